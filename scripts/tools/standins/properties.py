"""Property values as the Pulumi plugin protocol carries them, and as Python values.

On the wire a property map is a `google.protobuf.Struct` in which marked objects and fixed strings
stand for what JSON cannot say (pulumi/pulumi, `sdk/go/common/resource/plugin/rpc.go`). Here the
same map is made of plain `dict`, `list`, `str`, numbers, `bool`, `None`, and of

- `Secret(value)`: a value that must be encrypted in the state and hidden from the user;
- `UNKNOWN`: a value that is only known after the resources it depends on have been created (in
  previews only).

Assets, archives and resource references stay the marked `dict` that they are on the wire: they
survive a round trip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2  # type: ignore[import-untyped]

Properties = dict[str, Any]

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
_UNKNOWN_STRING = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_UNKNOWNS = frozenset(
    {
        _UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)


class Unknown:
    """The type of `UNKNOWN`, of which there is one value."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret value. Its text form does not show the value."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(...)"


def from_struct(struct: struct_pb2.Struct) -> Properties:
    """Return the property map of a message. Whole numbers become `int`, since the protocol has
    floating point only.
    """
    return {key: _from_value(value) for key, value in struct.fields.items()}


def _from_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value in _UNKNOWNS else value.string_value
    if kind == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_from_value(item) for item in value.list_value.values]
    if kind == "struct_value":
        fields = from_struct(value.struct_value)
        signature = fields.get(_SIGNATURE)
        if signature == _SECRET:
            return secret(fields.get("value"))
        if signature == _OUTPUT:
            inner = fields.get("value", UNKNOWN)
            return secret(inner) if fields.get("secret") else inner
        return fields
    return None


def to_struct(properties: Mapping[str, Any]) -> struct_pb2.Struct:
    """Return the message for a property map. Raises `TypeError` for a value that no property can
    hold.
    """
    return struct_pb2.Struct(fields={key: _to_value(value) for key, value in properties.items()})


def _to_value(value: Any) -> struct_pb2.Value:
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case Unknown():
            return struct_pb2.Value(string_value=_UNKNOWN_STRING)
        case Secret():
            return struct_pb2.Value(struct_value=to_struct({_SIGNATURE: _SECRET, "value": value.value}))
        case Mapping():
            return struct_pb2.Value(struct_value=to_struct(value))
        case list() | tuple():
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[_to_value(item) for item in value]))
    raise TypeError(f"a property cannot hold a {type(value).__name__}")


def secret(value: Any) -> Secret:
    """`value` as a secret; a secret stays what it is."""
    return value if isinstance(value, Secret) else Secret(value)


def plain(value: Any) -> Any:
    """`value` without secret markers at any depth. For use, never for a log or an answer to the
    engine.
    """
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def has_unknown(value: Any) -> bool:
    """Return whether `value` is unknown or holds something unknown at any depth."""
    if isinstance(value, Secret):
        return has_unknown(value.value)
    if isinstance(value, Mapping):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return value is UNKNOWN


def has_secret(value: Any) -> bool:
    """Return whether `value` is secret or holds something secret at any depth."""
    if isinstance(value, Mapping):
        return any(has_secret(item) for item in value.values())
    if isinstance(value, list):
        return any(has_secret(item) for item in value)
    return isinstance(value, Secret)


def secret_like(value: Any, pattern: Any) -> Any:
    """`value` with everything marked secret that is secret at the same place in `pattern`.

    This is how a secret input stays secret in what a server returns for it."""
    if isinstance(pattern, Secret):
        return secret(secret_like(value, pattern.value) if not isinstance(value, Secret) else value)
    if isinstance(value, Secret):
        return value
    if isinstance(value, Mapping) and isinstance(pattern, Mapping):
        return {key: secret_like(item, pattern.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(pattern, list):
        return [secret_like(item, pattern[i] if i < len(pattern) else None) for i, item in enumerate(value)]
    return value


def differences(old: Any, new: Any, path: str = "") -> dict[str, str]:
    """Return what differs, as `{property path: "add" | "delete" | "update"}`, paths in Pulumi's
    notation (`a.b[0]["c.d"]`).

    Something unknown differs from everything. A value that became secret or stopped being secret
    differs, too.
    """
    if isinstance(old, Secret) and isinstance(new, Secret):
        return differences(old.value, new.value, path)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        changed: dict[str, str] = {}
        for key in [*old, *(key for key in new if key not in old)]:
            place = _place(path, key)
            if key not in new:
                changed[place] = "delete"
            elif key not in old:
                changed[place] = "add"
            else:
                changed |= differences(old[key], new[key], place)
        return changed
    if isinstance(old, list) and isinstance(new, list):
        changed = {}
        for i, (before, after) in enumerate(zip(old, new, strict=False)):
            changed |= differences(before, after, f"{path}[{i}]")
        changed |= {f"{path}[{i}]": "delete" for i in range(len(new), len(old))}
        return changed | {f"{path}[{i}]": "add" for i in range(len(old), len(new))}
    # `1 == True` in Python, but not as properties.
    if new is UNKNOWN or isinstance(old, bool) != isinstance(new, bool) or old != new:
        return {path: "update"}
    return {}


def _place(path: str, key: str) -> str:
    if any(character in key for character in '."[]'):
        escaped = key.replace('"', '\\"')
        return f'{path}["{escaped}"]'
    return f"{path}.{key}" if path else key
