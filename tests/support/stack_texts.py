"""Every text that a stack file can hold, found in the settings' records, and ways to change it.

The records say where texts are: a new field is here without a change of this module.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from components.config.record import INTERNAL_ALIASES

Raw = dict[str, Any]
"""The configuration of a stack, as `config.load` takes it."""
Path = tuple[str | int, ...]
"""A place in a configuration: keys of maps, and indices of lists."""
_UNIONS = (Union, UnionType)


@dataclass(frozen=True)
class Text:
    """One text of a stack file.

    field: record and field that hold it, `<Record>.<field>`; with `[]` behind it a key of a map.
    path: where it is in a configuration.
    change: returns a configuration with another text in its place.
    present: the text that is there, "" for none.
    renames: whether it is a name, which is changed wherever it stands.
    """

    field: str
    path: Path
    change: Callable[[Raw, str], Raw]
    present: str = ""
    renames: bool = False


def texts(record: type[BaseModel], raw: Raw) -> Iterator[Text]:
    """Yield every text that the records allow in a configuration.

    record: the record of the whole configuration.

    A map that is empty, and a record that is absent and has required fields, yield nothing: give
    them in `raw`.
    """
    yield from _Walk(record).of_record(record, raw, ())


def fields_with_text(record: type[BaseModel]) -> set[str]:
    """Return all that a `Text.field` of these records can be, whatever a configuration holds."""
    fields: set[str] = set()
    seen: set[type[BaseModel]] = set()
    waiting = [record]
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        for name, annotation in _fields(each):
            field = f"{each.__name__}.{name}"
            for choice in _choices(annotation):
                if _is_record(choice):
                    waiting.append(choice)
                elif choice is str or _item(choice) is str:
                    fields.add(field)
                elif value := _map_value(choice):
                    fields.add(f"{field}[]")
                    fields |= {field} if value in (str, Any) else set()
                    waiting += [part for part in _choices(value) if _is_record(part)]
    return fields


def _fields(record: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Yield keys of a record in stack files, and the types of their values."""
    for field in record.model_fields.values():
        if field.alias not in INTERNAL_ALIASES:
            yield str(field.alias), field.annotation


def _choices(annotation: Any) -> Sequence[Any]:
    """Return the types of a union, of one type that one."""
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in _UNIONS:
        return [choice for each in get_args(annotation) for choice in _choices(each)]
    return [annotation]


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _item(annotation: Any) -> Any:
    """Return the type of a list's items, None for what is no list."""
    return get_args(annotation)[0] if get_origin(annotation) is tuple else None


def _map_value(annotation: Any) -> Any:
    """Return the type of a map's values, None for what is no map."""
    origin = get_origin(annotation)
    return get_args(annotation)[1] if isinstance(origin, type) and issubclass(origin, Mapping) else None


class _Walk:
    """A walk through the records of a configuration. root: the record of all of it."""

    def __init__(self, root: type[BaseModel]) -> None:
        self._root = root

    def of_record(self, record: type[BaseModel], value: Raw, path: Path) -> Iterator[Text]:
        for key, annotation in _fields(record):
            for choice in _choices(annotation):
                yield from self._of(choice, value.get(key), (*path, key), f"{record.__name__}.{key}")

    def _of(self, annotation: Any, value: Any, path: Path, field: str) -> Iterator[Text]:
        if annotation is str:
            yield Text(field, path, _setter(path), value if isinstance(value, str) else "")
        elif _item(annotation) is str:
            items = value or []
            place = (*path, len(items))
            yield Text(field, place, _setter(place), items[0] if items else "")
        elif _is_record(annotation):
            if _fits(annotation, value):
                yield from self.of_record(annotation, value or {}, path)
        elif item := _map_value(annotation):
            yield from self._of_map(item, value or {}, path, field)

    def _of_map(self, item: Any, value: Mapping[str, Any], path: Path, field: str) -> Iterator[Text]:
        keys = sorted(value)
        if item is Any:
            yield from _texts_of_values(value, path, field)
        elif keys:
            # A name is what other keys refer to: each of them is changed with it.
            yield Text(f"{field}[]", (*path, keys[0]), _renamer(self._root, keys[0]), keys[0], renames=True)
            yield Text(f"{field}[]", path, _adder(path, value[keys[0]]), keys[0])
        if item is str and keys:
            yield Text(field, (*path, keys[0]), _setter((*path, keys[0])), value[keys[0]])
        for record in (choice for choice in _choices(item) if _is_record(choice)):
            for key in [key for key in keys if _fits(record, value[key])][:1]:
                yield from self.of_record(record, value[key] or {}, (*path, key))


def _fits(record: type[BaseModel], value: Any) -> bool:
    """Return whether a value is of this record, of a union by its `platform`, or can be added."""
    required = [name for name, field in record.model_fields.items() if field.is_required() and field.alias not in INTERNAL_ALIASES]
    if value is None:
        return not required
    platform = record.model_fields.get("platform")
    if platform is None or get_origin(platform.annotation) is not Literal:
        return True
    return value.get("platform") in get_args(platform.annotation)


def _texts_of_values(value: Any, path: Path, field: str) -> Iterator[Text]:
    """Yield the texts of a value without a record, such as Helm's."""
    if isinstance(value, str):
        yield Text(field, path, _setter(path), value)
    elif isinstance(value, Mapping):
        yield Text(f"{field}[]", path, _adder(path, "example"))
        for key in sorted(value):
            yield from _texts_of_values(value[key], (*path, key), field)
    elif isinstance(value, list) and value:
        yield from _texts_of_values(value[0], (*path, 0), field)


def _setter(path: Path) -> Callable[[Raw, str], Raw]:
    def change(raw: Raw, text: str) -> Raw:
        changed = copy.deepcopy(raw)
        _set(changed, path, text)
        return changed

    return change


def _adder(path: Path, value: Any) -> Callable[[Raw, str], Raw]:
    def change(raw: Raw, text: str) -> Raw:
        changed = copy.deepcopy(raw)
        _set(changed, (*path, text), value)
        return changed

    return change


def _set(raw: Raw, path: Path, value: Any) -> None:
    place: Any = raw
    for key, following in itertools.pairwise(path):
        if isinstance(place, list):
            place = place[int(key)]
            continue
        if place.get(key) is None:
            place[key] = [] if isinstance(following, int) else {}
        place = place[key]
    if isinstance(place, list):
        place[int(path[-1]) : int(path[-1]) + 1] = [value]
    else:
        place[path[-1]] = value


def _renamer(root: type[BaseModel], name: str) -> Callable[[Raw, str], Raw]:
    def change(raw: Raw, text: str) -> Raw:
        renamed: Raw = _renamed(root, raw, name, text)
        return renamed

    return change


def _renamed(annotation: Any, value: Any, name: str, text: str) -> Any:
    """Return a value in which keys of maps and texts that are equal to `name` are `text`."""
    for choice in _choices(annotation):
        if _is_record(choice) and isinstance(value, dict) and _fits(choice, value):
            types = dict(_fields(choice))
            return {key: _renamed(types[key], item, name, text) for key, item in value.items()}
        item_type = _map_value(choice)
        if item_type not in (None, Any) and isinstance(value, dict):
            return {text if key == name else key: _renamed(item_type, item, name, text) for key, item in value.items()}
        if _item(choice) and isinstance(value, list):
            return [_renamed(_item(choice), item, name, text) for item in value]
        if choice is str and value == name:
            return text
    return value
