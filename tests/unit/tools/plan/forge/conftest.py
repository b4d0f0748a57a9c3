"""A forge, and a job on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import fake_forge
from tests.support.fake_forge import Forge
from tools.plan.forge import client

EVENTS = Path(__file__).with_name("events")
FORGES = ("github", "gitlab")


class Waits(list[float]):
    """The seconds that the program under test would have waited."""


@pytest.fixture
def forge() -> Iterator[Forge]:
    with fake_forge.running() as server:
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Have the program under test wait for nothing."""
    waits = Waits()
    monkeypatch.setattr(client, "SLEEP", waits.append)
    return waits


@pytest.fixture(params=FORGES)
def name(
    request: pytest.FixtureRequest, forge: Forge, monkeypatch: pytest.MonkeyPatch, waits: Waits
) -> str:
    """Set the environment of a job that posts the plans of a run of this repository's own branch."""
    name = str(request.param)
    set_job(
        monkeypatch, forge, name, "github_workflow_run" if name == "github" else "gitlab_pipeline"
    )
    return name


def set_job(monkeypatch: pytest.MonkeyPatch, forge: Forge, name: str, event: str) -> None:
    """Set the environment of a job that an event started."""
    for variable in list(os.environ):
        if variable.startswith(("GITHUB_", "GITLAB_", "CI_", "TRIGGER_")):
            monkeypatch.delenv(variable)
    for variable, value in forge.environment(name).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv(
        "GITHUB_EVENT_PATH" if name == "github" else "TRIGGER_PAYLOAD",
        str(EVENTS / f"{event}.json"),
    )
