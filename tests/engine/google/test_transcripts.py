"""The stubs of Google's clients behave as the real ones, and those as they did when they were recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.google_fakes import clients, transcripts
from tests.support.google_fakes.transcripts import SITUATIONS


@pytest.mark.parametrize(("name", "kind"), clients.by_kind({name: situation.client for name, situation in SITUATIONS.items()}))
def test_a_client_of_google_behaves_as_recorded(name: str, kind: str, tmp_path: Path) -> None:
    observed = transcripts.observe(SITUATIONS[name], kind, tmp_path)
    fix = "record again by `python -m tests.support.google_fakes.transcripts`, then fit the stub"
    assert observed == transcripts.recorded()[name], fix


def test_every_situation_is_recorded() -> None:
    assert list(transcripts.recorded()) == list(SITUATIONS)
