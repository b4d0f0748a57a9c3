"""Rules for texts that programs, registries and clouds read, by `components/grammar.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ... import grammar
from ..problems import Problem

# Of Compute Engine: `projects/…/family/…`, `family/…`, a name, or a URL.
_MACHINE_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_MACHINE_TYPE = re.compile(r"[a-z][a-z0-9-]*")
# What no reader of a text takes: control characters but tab and line breaks, and half characters.
_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def check_image(path: str, text: str) -> Iterator[Problem]:
    """Yield a problem for what is no image of containers."""
    if not grammar.is_image(text):
        yield Problem(
            path,
            f"{text!r} is not an image of containers: expected one such as "
            "registry.example.com/team/app:1.0",
        )


def check_machine_image(path: str, text: str) -> Iterator[Problem]:
    """Yield a problem for what is no image of Compute Engine."""
    if not _MACHINE_IMAGE.fullmatch(text):
        example = "projects/debian-cloud/global/images/family/debian-12"
        yield Problem(path, f"{text!r} is not an image of Compute Engine: expected {example}")


def check_machine_type(path: str, text: str) -> Iterator[Problem]:
    """Yield a problem for what is no machine type of Compute Engine."""
    if not _MACHINE_TYPE.fullmatch(text):
        yield Problem(path, f"{text!r} is not a machine type: expected one such as e2-small")


def check_source(path: str, text: str, schemes: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for what is neither a URL of one of the schemes nor the path of a file.

    A URL with credentials would be on command lines too.
    """
    scheme, is_remote, _ = text.partition("://")
    if not (scheme in schemes and grammar.is_url(text) if is_remote else grammar.is_file(text)):
        expected = " or ".join(f"{each}://" for each in schemes)
        yield Problem(
            path, f"{text!r} is neither a URL that begins with {expected}, nor the path of a file"
        )
    elif is_remote and grammar.has_credentials(text):
        yield Problem(
            path,
            "has credentials, which would be in states and messages: download what is there, and "
            "give its path",
        )


def check_readable(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the places of a configuration with a character that no program reads, such as NUL."""
    yield from _check_readable("", raw)


def _check_readable(path: str, value: Any) -> Iterator[Problem]:
    if isinstance(value, str) and (match := _UNREADABLE.search(value)):
        yield Problem(path, f"has the character {match[0]!r}, which no program reads: remove it")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            place = f"{path}.{key}".removeprefix(".")
            yield from _check_readable(place, str(key))
            yield from _check_readable(place, item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _check_readable(f"{path}[{index}]", item)
