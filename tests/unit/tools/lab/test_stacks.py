"""Which addresses the networks of labs get."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.lab import engine, stacks
from tools.steps import StepError


class Engine(engine.Engine):
    """An engine with networks of other programs and of a lab."""

    def docker(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        return "172.17.0.0/16 172.31.17.128/25 fc00::/64"


def test_labs_that_come_up_at_once_get_different_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTIO_VM_MESH_CACHE", str(tmp_path))
    monkeypatch.setattr(engine, "find", lambda: Engine(None))
    assert stacks.free_cidrs(2) == ["172.31.16.0/24", "172.31.18.0/24"]
    assert stacks.free_cidrs(1) == ["172.31.19.0/24"], "the networks of the other lab are not there yet"
    with pytest.raises(StepError, match=r"fewer than 13 networks of 172\.31\.16\.0/20 are free"):
        stacks.free_cidrs(13)
