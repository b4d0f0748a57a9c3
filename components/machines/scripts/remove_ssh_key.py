"""Removes the file of the stack's SSH key from this computer."""

from __future__ import annotations

from dataclasses import dataclass

from ...local import private_files


@dataclass(frozen=True)
class Payload:
    """A key's file.

    file: its reference (`private_files`).
    """

    file: str


def run(payload: Payload) -> None:
    """Remove the file, where it exists."""
    private_files.remove(payload.file)
