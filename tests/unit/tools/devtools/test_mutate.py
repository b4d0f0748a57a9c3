"""The mutations of the program that tests must notice."""

from __future__ import annotations

from tools import ROOT
from tools.devtools.mutate import mutations


def test_every_mutation_finds_its_place() -> None:
    """So that `./scripts/mutations` can be run any day: it takes minutes, so it is not run with every change."""
    for mutation in mutations():
        assert (ROOT / mutation.file).read_text().count(mutation.before) == 1, mutation.what
    names = [mutation.what for mutation in mutations()]
    assert len(names) == len(set(names)) >= 20
