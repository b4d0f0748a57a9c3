"""Problems of a stack file: their texts, and the error that reports all of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from .record import INTERNAL_ALIASES


class Problem(NamedTuple):
    """One problem of a stack file.

    path: the place, as keys with dots and list indices in brackets.
    message: what was found, what was expected, and the fix.
    """

    path: str
    message: str

    def __str__(self) -> str:
        # A key of a stack file may hold anything, and is in paths and in messages.
        return "".join(map(_printable, f"{self.path}: {self.message}"))


def _printable(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


class SettingsError(Exception):
    """Settings of a stack file or of a component are not valid.

    The text lists every problem, one a line.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"the settings have {count}:{lines}")


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Return a hint for a mistyped word: the nearest valid word, else all of them, else nothing."""
    words = sorted(valid)
    return nearest(word, words) or (f" (known: {', '.join(words)})" if words else "")


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return a hint for a mistyped word: the nearest valid word, else nothing."""
    near = difflib.get_close_matches(word, sorted(valid), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "bool_type": "true or false",
    "float_type": "a number",
    "tuple_type": "a list",
    "dict_type": "a map",
    "mapping_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
}


def problems_of(error: ValidationError, record: type[BaseModel]) -> Iterator[Problem]:
    """Yield the problems of a stack file that could not be validated as `record`."""
    for detail in error.errors(include_url=False):
        location, value = detail["loc"], detail["input"]
        if location and location[-1] in INTERNAL_ALIASES:
            continue  # of a map key that is not a string; the map reports it
        path, parents, records = _resolve(record, location)
        match detail["type"]:
            case "missing":
                yield Problem(path, "is missing")
            case "extra_forbidden":
                keys = {key for parent in parents for key in keys_of(parent)}
                yield Problem(path, "unknown key" + suggestion(str(location[-1]), keys))
            case "union_tag_not_found":
                platforms = [_platform(choice) for choice in records]
                yield Problem(f"{path}.platform", "is missing" + suggestion("", platforms))
            case "union_tag_invalid":
                tag, platforms = detail["ctx"]["tag"], [_platform(choice) for choice in records]
                yield Problem(
                    f"{path}.platform", f"{tag!r} is not known" + suggestion(tag, platforms)
                )
            case "literal_error":
                words = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
                expected = f"expected one of {', '.join(words)}"
                hint = nearest(str(value), words)
                yield Problem(path, f"{expected}; got {_shown(value)}{hint}")
            case kind:
                expected = f"expected {_EXPECTED[kind]}" if kind in _EXPECTED else detail["msg"]
                yield Problem(path, f"{expected}; got {_shown(value)}")


def keys_of(record: type[BaseModel]) -> list[str]:
    """Return the keys that a stack file may give to a record."""
    aliases = [field.alias or name for name, field in record.model_fields.items()]
    return [alias for alias in aliases if alias not in INTERNAL_ALIASES]


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def _platform(record: type[BaseModel]) -> str:
    """The platform of a record of a union."""
    platform: str = get_args(record.model_fields["platform"].annotation)[0]
    return platform


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation allows, without Annotated and unions."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _alternatives(arguments[0])
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _alternatives(argument)
    else:
        yield annotation


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _below(annotation: Any, part: str | int) -> Iterator[Any]:
    """Yield the types below a key or an index."""
    if _is_record(annotation):
        for field in annotation.model_fields.values():
            if field.alias == part:
                yield from _alternatives(field.annotation)
    elif arguments := get_args(annotation):
        yield from _alternatives(arguments[0] if isinstance(part, int) else arguments[-1])


def _resolve(
    record: type[BaseModel], location: Sequence[str | int]
) -> tuple[str, list[type[BaseModel]], list[type[BaseModel]]]:
    """Resolve the location of a validation error.

    Returns the path in the stack file, the records that the last key belongs to, and the records
    that are allowed at the location. pydantic puts the platform into the location after a value
    whose record depends on it; the path is without it.
    """
    path, parents, here = "", [], [record]
    for part in location:
        chosen = [each for each in here if "platform" in getattr(each, "model_fields", {})]
        chosen = [each for each in chosen if _platform(each) == part]
        if len(here) > 1 and chosen:
            here = chosen
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        parents, here = here, [below for each in here for below in _below(each, part)]
    records = [each for each in here if _is_record(each)]
    return path.removeprefix("."), [each for each in parents if _is_record(each)], records
