"""Property values: the wire format, secrets, differences."""

from __future__ import annotations

from typing import Any

import pytest

from ..properties import UNKNOWN, Secret, differences, from_struct, has_secret, has_unknown, plain, secret_like, to_struct

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
VALUES = {
    "text": "ü\n",
    "whole": 8080,
    "fraction": 0.5,
    "yes": True,
    "nothing": None,
    "list": [1, Secret({"a": [UNKNOWN]}), {"b": ""}],
    "secret": Secret("s"),
    "unknown": UNKNOWN,
    "asset": {SIGNATURE: "c44067f5952c0a294b673a41bacd8c17", "text": "x"},
}


def test_values_survive_a_round_trip() -> None:
    assert from_struct(to_struct(VALUES)) == VALUES
    assert type(from_struct(to_struct({"n": 1}))["n"]) is int


def test_wire_format() -> None:
    struct = to_struct({"secret": Secret("s"), "unknown": UNKNOWN})
    assert dict(struct.fields["secret"].struct_value.items()) == {SIGNATURE: SECRET, "value": "s"}
    assert struct["unknown"] == "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    outputs = {"known": {SIGNATURE: OUTPUT, "value": 1, "secret": True}, "unknown": {SIGNATURE: OUTPUT}}
    assert from_struct(to_struct(outputs)) == {"known": Secret(1), "unknown": UNKNOWN}


def test_what_no_property_can_hold() -> None:
    with pytest.raises(TypeError, match="cannot hold a set"):
        to_struct({"x": {1}})


def test_secrets_do_not_show() -> None:
    assert "hunter2" not in repr(Secret("hunter2"))
    assert plain(VALUES)["list"] == [1, {"a": [UNKNOWN]}, {"b": ""}]
    assert has_secret(VALUES) and not has_secret(plain(VALUES))
    assert has_unknown(Secret([UNKNOWN])) and not has_unknown({"a": [1]})


@pytest.mark.parametrize(
    ("value", "pattern", "expected"),
    [
        ("a", Secret("b"), Secret("a")),
        ({"a": 1, "b": 2}, {"a": Secret(0)}, {"a": Secret(1), "b": 2}),
        ([1, 2, 3], [Secret(1), 2], [Secret(1), 2, 3]),
        ({"a": Secret(1)}, {}, {"a": Secret(1)}),
        ("text", {"a": Secret(1)}, "text"),
    ],
)
def test_secret_like(value: Any, pattern: Any, expected: Any) -> None:
    assert secret_like(value, pattern) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": "update", "b": "add"}),
        ({"a": {"b.c": [1, 2]}}, {"a": {"b.c": [1]}}, {'a["b.c"][1]': "delete"}),
        ({"a": [1]}, {"a": [1, 2]}, {"a[1]": "add"}),
        ({"a": Secret("x")}, {"a": Secret("x")}, {}),
        ({"a": "x"}, {"a": Secret("x")}, {"a": "update"}),
        ({"a": "x"}, {"a": UNKNOWN}, {"a": "update"}),
        ({"a": 1}, {"a": True}, {"a": "update"}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": "update"}),
    ],
)
def test_differences(old: dict[str, Any], new: dict[str, Any], expected: dict[str, str]) -> None:
    assert differences(old, new) == expected
