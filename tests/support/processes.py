"""The running processes, by their command lines and environments."""

from __future__ import annotations

from pathlib import Path


def processes(text: str, *, environment: bool = False) -> list[str]:
    """Return the command lines of the running processes in which `text` stands.

    With `environment`, processes whose environment holds `text` are returned too.
    A process that ended and that its parent has not collected yet (a zombie) is none.
    """
    names = ("cmdline", "environ") if environment else ("cmdline",)
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            parts = [(process / name).read_bytes().replace(b"\0", b" ") for name in names]
        except OSError:
            continue  # it has ended, or belongs to another user
        if state != "Z" and any(text.encode() in part for part in parts):
            lines.append(parts[0].decode(errors="replace"))
    return lines
