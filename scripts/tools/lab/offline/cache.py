"""The cache of everything that is expensive to make: programs, charts, images.

An entry is a directory, keyed by name, version and the digest of all inputs (flags, file contents).
It is built in a temporary directory under a lock, and renamed when complete. So an incomplete entry
is never used, and two runs build it once. The marker inside lists the files and their sizes. An
entry that does not match its marker counts as absent, and is built again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths

MARKER = ".complete.json"
ENGINE_DATA, ENGINE_LOG, RUNC_WRAPPER = "docker", "dockerd.log", "runc-without-missing-capabilities"
"""The lab's own container engine: its data root, its log, and the program that starts
containers.
"""
_PARTS = (paths.LOCKS, paths.UNFINISHED, ENGINE_DATA, ENGINE_LOG, RUNC_WRAPPER)
"""What is in the cache beside its entries."""


def digest(inputs: Any) -> str:
    """Return a short digest of plain data (str, bytes, Path, int, None, list, tuple, dict).

    A Path stands for the content of that file, or of all files below that directory.
    """
    return hashlib.sha256(json.dumps(_plain(inputs), sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        if value.is_dir():
            return {str(file.relative_to(value)): _plain(file) for file in sorted(value.rglob("*")) if file.is_file()}
        return [f"{value.stat().st_mode & 0o111:o}", hashlib.sha256(value.read_bytes()).hexdigest()]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a cache key cannot hold {type(value).__name__}")


@dataclass(frozen=True)
class Key:
    """What an entry is; `Key.of` digests the inputs."""

    name: str
    version: str
    inputs: str

    @classmethod
    def of(cls, name: str, version: str, inputs: Any) -> Key:
        return cls(name, version, digest(inputs))

    @property
    def directory(self) -> Path:
        return paths.cache() / self.name / f"{self.version}-{self.inputs}"


def find(key: Key) -> Path | None:
    """Return the directory of a complete, undamaged entry, or None."""
    try:
        files = json.loads((key.directory / MARKER).read_text())
        complete = isinstance(files, dict) and all(os.lstat(key.directory / name).st_size == size for name, size in files.items())
    except (OSError, ValueError):
        return None
    return key.directory if complete else None


def ensure(key: Key, make: Callable[[Path], object], waiting: Callable[[str], object] = lambda text: None) -> Path:
    """Return the entry's directory, made now unless it is there.

    `make` gets an empty directory to fill; what it raises is passed on, and nothing is kept.
    `waiting` is called while another run holds the lock; what it raises ends the wait.
    """
    if directory := find(key):
        return directory
    with locked(key, waiting):
        if directory := find(key):  # made by the run that we waited for
            return directory
        unfinished = paths.cache() / paths.UNFINISHED / f"{key.name}-{key.version}-{key.inputs}".replace("/", "_")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            make(unfinished)
            (unfinished / MARKER).write_text(json.dumps(_sizes(unfinished)))
            shutil.rmtree(key.directory, ignore_errors=True)
            key.directory.parent.mkdir(parents=True, exist_ok=True)
            unfinished.rename(key.directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return key.directory


@contextmanager
def locked(key: Key, waiting: Callable[[str], object] = lambda text: None) -> Iterator[None]:
    """Hold the lock of an entry. The lock goes with the process, so a killed run leaves none
    behind.
    """
    file = paths.cache() / paths.LOCKS / f"{key.name}-{key.version}-{key.inputs}".replace("/", "_")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting(f"waiting for another run that makes {key.name}")
                time.sleep(0.2)
        yield


def _sizes(directory: Path) -> dict[str, int]:
    return {
        str((Path(where) / name).relative_to(directory)): os.lstat(Path(where) / name).st_size
        for where, _, names in os.walk(directory)
        for name in names
    }


def purge() -> int:
    """Remove what the cache holds, and nothing that others put beside it; returns the bytes on disk
    that this freed.

    An entry has its marker. A directory that becomes empty goes too.
    """
    directory = paths.cache()
    parts = [directory / name for name in _PARTS]
    parts += [marker.parent for marker in directory.glob(f"*/*/{MARKER}")]
    before = sum(_bytes_on_disk(part) for part in parts)
    for part in parts:
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
    for place in [*directory.glob("*"), directory]:
        if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
            place.rmdir()
    return before - sum(_bytes_on_disk(part) for part in parts)


def _bytes_on_disk(part: Path) -> int:
    if not part.is_dir():
        return os.lstat(part).st_blocks * 512 if os.path.lexists(part) else 0
    return sum(os.lstat(os.path.join(where, name)).st_blocks * 512 for where, _, names in os.walk(part) for name in names)
