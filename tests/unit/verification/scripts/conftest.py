"""Fixtures of the scripts of the verification."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from components.verification.scripts import calling_pods, deployment, members, verify_workload
from tests.support.fake_programs import ProgramsInMemory
from tests.support.verified_workload import UPDATE, ApiServer


@pytest.fixture
def cluster(programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    passed: list[float] = []
    monkeypatch.setattr(calling_pods.update_id, "update_id", lambda: UPDATE)
    monkeypatch.setattr(calling_pods.update_id, "ancestors", list)
    for module in (deployment, members, calling_pods, verify_workload):
        monkeypatch.setattr(module, "sleep", lambda _: passed.append(10))
        monkeypatch.setattr(module, "monotonic", lambda: sum(passed))
    yield ApiServer(programs)
