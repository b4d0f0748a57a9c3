"""Private files of a stack on the computer that runs Pulumi: generated keys, and links to keys.

A reference `state:<organization>/<project>/<stack>/<name>` names such a file without the user's
home directory. So it is the same on every computer, and may be an input of a command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "state:"
_STACK_PARTS = 3
"""`<organization>/<project>/<stack>`"""
IDENTITIES = "identities"
"""Directory of the links to the keys that a stack file names, by the name of the SSH server."""


def reference(stack: str, *names: str) -> str:
    """Return the reference of a file.

    stack: `<organization>/<project>/<stack>`. names: the file's path below the stack's directory.
    """
    return PREFIX + "/".join([stack, *names])


def is_reference(path: str) -> bool:
    """Return whether `path` is a reference, and not a path."""
    return path.startswith(PREFIX)


def is_generated(path: str | None) -> bool:
    """Return whether `path` is the reference of a key that a stack generates.

    Such a key is in the stack's own directory. Links to the keys of others are below `IDENTITIES`.
    """
    return path is not None and is_reference(path) and path.count("/") == _STACK_PARTS


def path_of(name: str) -> Path:
    """Return the path that a reference stands for, below XDG_STATE_HOME or ~/.local/state.

    Raises ValueError for a reference that leaves its directory.
    """
    parts = name[len(PREFIX) :].split("/")
    if not is_reference(name) or not all(part.strip(".") and part.isprintable() for part in parts):
        raise ValueError(f"{name!r} is no reference to a private file")
    home = os.environ.get("XDG_STATE_HOME", "")
    state = Path(home) if os.path.isabs(home) else Path.home() / ".local/state"
    return state.joinpath("istio-vm-mesh", *parts)


def write(name: str, text: str) -> None:
    """Write a file that only this user can read, in directories that only this user can enter."""
    path = _writable(name)
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(new, path)


def link(name: str, target: Path | None) -> None:
    """Link a reference to an absolute path; None removes the link."""
    if target is None:
        remove(name)
        return
    path = _writable(name)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as directory:
        new = Path(directory, "link")
        new.symlink_to(target)
        os.replace(new, path)


def linked(name: str) -> str | None:
    """Return the path that a reference is linked to; None where it is not linked."""
    with contextlib.suppress(OSError):
        return os.readlink(path_of(name))
    return None


def remove(name: str) -> None:
    """Remove a file or a link, where it exists, and directories that are then empty."""
    path = path_of(name)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
    with contextlib.suppress(OSError):  # one that is not empty stays
        for directory in list(path.parents)[: name.count("/") + 1]:
            directory.rmdir()


def remove_all(stack: str) -> None:
    """Remove all files of a stack, also what a write that was killed has left.

    stack: `<organization>/<project>/<stack>`.
    """
    directory = reference(stack)
    shutil.rmtree(path_of(directory), ignore_errors=True)
    remove(directory)


def _writable(name: str) -> Path:
    """Return the path of a file, and make its directories, which this user alone can enter.

    Raises OSError with the fix.
    """
    path = path_of(name)
    try:
        for directory in [*reversed(path.parents)]:
            directory.mkdir(mode=0o700, exist_ok=True)
        if os.access(path.parent, os.W_OK):
            return path
    except OSError:
        pass
    fix = "set XDG_STATE_HOME to a directory that this user can write"
    raise OSError(f"cannot write {path}: {fix}")
