"""A plan as JSON, its schema, and the strict reader of JSON that others wrote.

The keys are the fields of `model` in camelCase. A plan of a fork is data. `read` refuses all that
`text` does not write, and code of this checkout renders it.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.alias_generators import to_camel

from .model import FORMAT, Operation, Plan
from .untrusted import LINE, clean

MOST_BYTES = 20_000_000
"""Bytes of a plan as JSON. That of 300 machines has about a tenth."""

MOST_ITEMS, MOST_CHARACTERS, MOST_IN_DIFF = 20_000, 2_000, 50_000
"""Items of a list, characters of a text, and those of the differences of one resource."""

_LARGEST = 2**40
_LONG_FIELDS: dict[tuple[type[Any], str], int] = {(Operation, "diff"): MOST_IN_DIFF}


class ArtefactError(Exception):
    """A plan as JSON is not one. The text is one line for each problem, safe to print."""


def text(plan: Plan) -> str:
    """Return a plan as JSON that `read` takes. Texts over its limits are cut, with an ellipsis."""
    return json.dumps(_plain(plan), indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any, limit: int = MOST_CHARACTERS) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {
            to_camel(each.name): _plain(
                getattr(value, each.name), _LONG_FIELDS.get((type(value), each.name), limit)
            )
            for each in fields(value)
        }
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str):
        # Half of a pair of UTF-16 cannot be written as UTF-8.
        valid = str(value).encode("utf-8", "backslashreplace").decode()
        return valid if len(valid) <= limit else f"{valid[: limit - 1]}…"
    return value


def read(data: bytes) -> Plan:
    """Return the plan that JSON holds.

    data: UTF-8, as another computer may have written it.

    Raises ArtefactError for unknown keys, wrong types, missing keys, values that no plan has,
    another format, and sizes over the limits.
    """
    if len(data) > MOST_BYTES:
        raise ArtefactError(f"the plan has {len(data):,} bytes; at most {MOST_BYTES:,} are read")
    try:
        valid = _record(Plan).model_validate_json(data, strict=True)
    except ValidationError as error:
        raise ArtefactError("\n".join(_problems(error))) from None
    plan: Plan = _value(valid)
    if plan.format != FORMAT:
        raise ArtefactError(f"the plan has format {plan.format}, not {FORMAT}: compute it again")
    return plan


def _problems(error: ValidationError, most: int = 10) -> Iterator[str]:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    for each in problems[:most]:
        path = ".".join(map(str, each["loc"])) or "the plan"
        yield f"{clean(path)}: {clean(each['msg'], LINE)}"
    if len(problems) > most:
        yield f"and {len(problems) - most} more problems"


def schema() -> str:
    """Return the JSON Schema (draft 2020-12) of a plan."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_untitled(_record(Plan).model_json_schema(mode="validation")),
        "title": "A plan of ./scripts/plan --json",
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _untitled(node: Any) -> Any:
    """Remove titles that repeat a key, and join the lines of descriptions."""
    if isinstance(node, list):
        return [_untitled(each) for each in node]
    if not isinstance(node, dict):
        return node
    result = {
        key: _untitled(each)
        for key, each in node.items()
        if not (key == "title" and isinstance(each, str))
    }
    if isinstance(result.get("description"), str):
        paragraphs = result["description"].split("\n\n")
        result["description"] = "\n\n".join(" ".join(each.split()) for each in paragraphs)
    return result


@cache
def _record(record: type[Any]) -> type[BaseModel]:
    """Return the model of a record: its fields, strict, with limits and no other keys."""
    hints = get_type_hints(record)
    definitions: dict[str, Any] = {}
    for each in fields(record):
        limit = _LONG_FIELDS.get((record, each.name), MOST_CHARACTERS)
        definitions[_field(each.name)] = (
            _limited(hints[each.name], limit),
            Field(alias=to_camel(each.name)),
        )
    config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    model: type[BaseModel] = create_model(
        record.__name__, __config__=config, __doc__=record.__doc__, **definitions
    )
    _RECORDS[model] = record
    return model


def _field(name: str) -> str:
    """Return the name of a model's field, which is none of pydantic's own attributes."""
    return f"{name}_"


_RECORDS: dict[type[BaseModel], type[Any]] = {}
"""The record of each model."""


def _limited(annotation: Any, limit: int) -> Any:
    """Return a type with limits, and models in place of records."""
    if get_origin(annotation) in (Union, types.UnionType):
        choices = tuple(_limited(each, limit) for each in get_args(annotation))
        return Union[choices]  # noqa: UP007 - of a tuple
    if get_origin(annotation) is tuple:
        item = _limited(get_args(annotation)[0], limit)
        return Annotated[types.GenericAlias(tuple, (item, ...)), Field(max_length=MOST_ITEMS)]
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _record(annotation)
    if annotation is str:
        return Annotated[str, Field(max_length=limit)]
    if annotation in (int, float):
        return Annotated[annotation, Field(ge=-_LARGEST, le=_LARGEST)]
    return annotation


def _value(value: Any) -> Any:
    """Return the record of a model's instance."""
    if isinstance(value, BaseModel):
        record = _RECORDS[type(value)]
        return record(
            **{each.name: _value(getattr(value, _field(each.name))) for each in fields(record)}
        )
    if isinstance(value, tuple):
        return tuple(map(_value, value))
    return value
