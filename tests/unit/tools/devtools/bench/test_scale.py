"""`./scripts/bench scale` with few machines, and its judgement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import PYTHONPATH, ROOT
from tools.devtools.bench import scale
from tools.devtools.bench.scale import COMMANDS, PLAN, UP, Cost


def costs(processor_s: dict[int, float], plan_s: float = 1.0) -> dict[int, dict[str, Cost]]:
    """Costs where every command takes as much; a plan as many times its preview as `plan_s`."""
    return {
        size: {command: Cost(2 * each, each * (plan_s if command == PLAN else 1), 100.0) for command in COMMANDS}
        for size, each in processor_s.items()
    }


def test_work_that_grows_with_each_machine_is_too_much() -> None:
    linear = list(scale.figures(costs({10: 2.0, 100: 11.0, 300: 31.0})))
    assert all(each.good for each in linear)
    square = [each for each in scale.figures(costs({10: 2.0, 100: 11.0, 300: 91.0})) if not each.good]
    assert [(each.value, each.base) for each in square] == [(400.0, 100.0)] * len({*COMMANDS} - {UP})


def test_a_plan_is_held_against_its_preview() -> None:
    slow = [each for each in scale.figures(costs({300: 10.0}, plan_s=1.5)) if not each.good]
    assert [each.ratio for each in slow] == [1.5]


@pytest.mark.slow
def test_one_run_measures_every_command_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.devtools.bench", "scale", "--machines", "2", "--rounds", "1", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    values = {each["what"]: each["value"] for each in json.loads(done.stdout)["figures"]}
    for command in COMMANDS:
        assert values[f"2 machines: {command}"] > 0.1, command
        assert 50 < values[f"2 machines: {command}, memory at its peak"] < 4000, command
    assert list(tmp_path.iterdir()) == []
    assert not list(ROOT.glob("stacks/Pulumi.bench-scale-*"))
