"""Which container engine is used, and what is missing where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.lab import engine


def test_an_engine_that_the_user_names_must_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setattr(engine, "refusal", lambda host: "no such socket")
    with pytest.raises(engine.StepError, match=r"DOCKER_HOST names .*none\.sock\) does not answer: no such socket"):
        engine.find()


def test_without_root_and_engine_the_obstacle_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "refusal", lambda host: "permission denied")
    monkeypatch.setattr(engine.os, "geteuid", lambda: 1000)
    assert (why := engine.unmet_requirement()) and "permission denied" in why and "group `docker`" in why
    monkeypatch.setattr(engine.os, "geteuid", lambda: 0)
    assert engine.unmet_requirement() is None
