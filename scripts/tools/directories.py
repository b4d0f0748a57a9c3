"""Directories that are private. Standard library only."""

from __future__ import annotations

from pathlib import Path


def make_private(directory: Path) -> Path:
    """Create a directory that only its owner can read, and return it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    return directory
