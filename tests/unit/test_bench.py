"""What a preview costs is measured, and judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import bench
import mutations
from lab import paths


def test_one_size_is_measured_with_as_many_machines_as_it_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "one", "lab", "3"],
        cwd=paths.ROOT,
        env={**os.environ, "PYTHONPATH": str(paths.LAB_D)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["machines"] == 3 and found["resources"] > 3 * 5
    assert 0 < found["processor"] < 10 and 20 < found["mib"] < 1000


def sizes(*seconds: float) -> list[dict[str, float]]:
    return [{"machines": count, "processor": spent} for count, spent in zip(bench.SIZES, seconds, strict=True)]


@pytest.mark.parametrize(
    ("seconds", "each", "growth"),
    [((0.1, 0.4, 3.1, 9.1), 30.1, 2.94), ((0.1, 0.4, 3.1, 31.0), 103.3, 10.0)],
)
def test_the_judgement_is_of_one_more_machine_and_of_growth(seconds: tuple[float, ...], each: float, growth: float) -> None:
    assert bench.verdict(sizes(*seconds)) == (pytest.approx(each, abs=0.1), pytest.approx(growth, abs=0.01))


def bench_config() -> dict[str, object]:
    return {"machines": {"one": {"platform": "gce"}}}


def test_machines_that_are_many_have_ports_of_their_own() -> None:
    ports = [machine["localPort"] for machine in bench.grown(bench_config(), 300)["machines"].values()]
    assert len(set(ports)) == 300


def test_every_mutation_finds_its_place() -> None:
    """So that `./scripts/mutations` can be run any day: it takes minutes, and nobody runs it with every change."""
    for mutation in mutations.MUTATIONS:
        assert (paths.ROOT / mutation.file).read_text().count(mutation.before) == 1, mutation.what
    assert len({mutation.what for mutation in mutations.MUTATIONS}) == len(mutations.MUTATIONS) >= 20
