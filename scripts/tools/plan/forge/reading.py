"""Read JSON of a forge: answers and event files. Every access checks what is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .client import Json
from .errors import ForgeError


def at(value: Json, *path: str) -> Json:
    """Return what is at a path of objects; None where a part of it is missing or null."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def number_at(value: Json, *path: str) -> int:
    """Return the number at a path. Raises ForgeError."""
    number = at(value, *path)
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    raise ForgeError(f"the forge's answer or event has no number {'.'.join(path)}")


def text_at(value: Json, *path: str) -> str:
    """Return the text at a path. Raises ForgeError."""
    text = at(value, *path)
    if isinstance(text, str):
        return text
    raise ForgeError(f"the forge's answer or event has no text {'.'.join(path)}")


def variable(environment: Mapping[str, str], name: str, purpose: str) -> str:
    """Return a variable of the environment. Raises ForgeError where it is not set."""
    if value := environment.get(name):
        return value
    raise ForgeError(f"{name} is not set: {purpose}")


def load(path: str, name: str) -> Json:
    """Return the JSON in a file that the variable `name` names. Raises ForgeError."""
    try:
        value: Json = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ForgeError(f"{name} cannot be read: {error}") from error
    return value
