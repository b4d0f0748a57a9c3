"""A strict decoder from plain data (what a stack file holds) to frozen dataclasses.

It knows nothing of Pulumi, Istio or clouds. Every problem is collected with its path and a hint, so that a user mends a stack
file in one pass; nothing is converted silently (the text "80" is no port).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from .problems import Problem, suggestion


def key_of(field: str) -> str:
    """The key of a dataclass field in a stack file: camelCase, as Pulumi and Kubernetes write keys (`trust_domain` → `trustDomain`)."""
    head, *tail = field.split("_")
    return head + "".join(part.capitalize() for part in tail)


def _name(expected: Any) -> str:
    names = {str: "a text", int: "a whole number", bool: "true or false", float: "a number"}
    return names.get(expected, "a map" if dataclasses.is_dataclass(expected) else str(expected))


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def decode(expected: Any, value: Any, path: str, problems: list[Problem]) -> Any:
    """Turn `value` into the type `expected`.

    Known types: str, int, bool, `X | None`, `tuple[X, ...]` (from a list), `Mapping[str, X]`, `Literal[...]`, `Any`, frozen
    dataclasses, and unions of dataclasses that differ in a `platform: Literal[...]` field. A field whose metadata says `internal` has no
    key. Problems are appended to `problems`; what could not be decoded is returned as None.
    """
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        choices = [choice for choice in arguments if choice is not type(None)]
        if value is None and len(choices) < len(arguments):
            return None
        return decode(choices[0], value, path, problems) if len(choices) == 1 else _decode_platform(choices, value, path, problems)
    if origin is typing.Literal:
        if value not in arguments or (isinstance(value, bool) and not any(value is a for a in arguments)):
            problems.append(Problem(path, f"expected one of {', '.join(map(str, arguments))}; got {_shown(value)}"))
            return None
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            problems.append(Problem(path, f"expected a list; got {_shown(value)}"))
            return ()
        return tuple(decode(arguments[0], item, f"{path}[{index}]", problems) for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            problems.append(Problem(path, f"expected a map; got {_shown(value)}"))
            return {}
        return {str(key): decode(arguments[1], item, f"{path}.{key}", problems) for key, item in value.items()}
    if dataclasses.is_dataclass(expected):
        return _decode_dataclass(typing.cast("type", expected), value, path, problems)
    if expected is float and type(value) is int:
        return float(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        problems.append(Problem(path, f"expected {_name(expected)}; got {_shown(value)}"))
        return None
    return value


def _decode_platform(choices: list[Any], value: Any, path: str, problems: list[Problem]) -> Any:
    by_platform = {typing.get_args(typing.get_type_hints(choice)["platform"])[0]: choice for choice in choices}
    if not isinstance(value, Mapping):
        problems.append(Problem(path, f"expected a map; got {_shown(value)}"))
        return None
    platform = value.get("platform")
    if platform not in by_platform:
        what = "is missing" if platform is None else f"{platform!r} is not known"
        problems.append(Problem(f"{path}.platform", what + suggestion(str(platform or ""), by_platform)))
        return None
    return _decode_dataclass(by_platform[platform], value, path, problems)


def _decode_dataclass(cls: type, value: Any, path: str, problems: list[Problem]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(Problem(path, f"expected a map; got {_shown(value)}"))
        return None
    hints, fields = (
        typing.get_type_hints(cls),
        {key_of(field.name): field for field in dataclasses.fields(cls) if not field.metadata.get("internal")},
    )
    problems.extend(Problem(f"{path}.{key}", "unknown key" + suggestion(str(key), fields)) for key in value if key not in fields)
    found: dict[str, Any] = {}
    before = len(problems)
    for key, field in fields.items():
        if key in value:
            found[field.name] = decode(hints[field.name], value[key], f"{path}.{key}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(Problem(f"{path}.{key}", "is missing"))
    return cls(**found) if len(problems) == before else None
