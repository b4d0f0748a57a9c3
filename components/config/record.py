"""The base of all settings records: frozen, strict, camelCase keys in stack files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict
from pydantic.alias_generators import to_camel

T = TypeVar("T")

# Aliases of fields that have no key in stack files. No key of a stack file can be equal to them,
# because `reader` validates by alias alone and refuses keys with these characters as unknown.
MAP_KEY = "\0map key"
ROLE = "\0role"
INTERNAL_ALIASES = frozenset({MAP_KEY, ROLE})


class Record(BaseModel):
    """Base of all records.

    Stack files use camelCase keys, Python constructors the fields' own names.
    A record that is a value of a map has the map's key as its `name`; a stack file cannot set it.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
    )


def _with_names(value: Any) -> Any:
    """Add each map key to its value, for `name`. A record keeps a name that it has."""
    if not isinstance(value, Mapping):
        return value
    return {key: _with_name(str(key), item) for key, item in value.items()}


def _with_name(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {**value, MAP_KEY: key}
    if isinstance(value, Record) and not getattr(value, "name", key):
        return value.model_copy(update={"name": key})
    return value


# A map of records that have their key as `name`.
Named = Annotated[Mapping[str, T], BeforeValidator(_with_names)]

# A list of a stack file, as a tuple. Not strict: YAML and JSON have lists alone.
Items = Annotated[tuple[T, ...], Strict(False)]
