"""What a preview costs is measured, and judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from tools import PYTHONPATH, ROOT
from tools.devtools.bench import cli, figures, mesh, preview
from tools.devtools.bench.__main__ import main
from tools.steps import StepError


@pytest.mark.slow
def test_one_size_is_measured_with_as_many_machines_as_it_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.devtools.bench", "one", "lab", "3"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=True,
    )
    figures_of_size = json.loads(done.stdout)
    assert figures_of_size["machines"] == 3 and figures_of_size["resources"] > 3 * 5
    assert 0 < figures_of_size["plan"] < figures_of_size["processor"] < 10 and 20 < figures_of_size["mib"] < 1000


def test_a_stack_without_a_file_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "preview", "--stack", "labb"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main() == cli.BAD
    assert "Pulumi.labb.yaml (did you mean 'lab'?)" in capsys.readouterr().err


def sizes(*seconds: float) -> list[dict[str, float]]:
    return [{"machines": count, "processor": spent, "plan": spent / 4} for count, spent in zip(preview.SIZES, seconds, strict=True)]


@pytest.mark.parametrize(
    ("seconds", "each", "growth"),
    [((0.1, 0.4, 3.1, 9.1), 30.1, 2.94), ((0.1, 0.4, 3.1, 31.0), 103.3, 10.0)],
)
def test_a_verdict_is_the_cost_of_a_machine_and_the_growth(seconds: tuple[float, ...], each: float, growth: float) -> None:
    assert preview.verdict(sizes(*seconds)) == (pytest.approx(each, abs=0.1), pytest.approx(growth, abs=0.01), 0.25)


def test_a_figure_is_held_against_its_bound() -> None:
    alone = figures.Figure(what="resources", value=7, unit="", most=6)
    compared = figures.Figure(what="join", value=3.0, against="an agent alone", base=2.0, most=1.5)
    shown = figures.Figure(what="up", value=60.0)
    assert [each.good for each in (alone, compared, shown)] == [False, True, True]
    assert compared.ratio == 1.5


def test_figures_are_a_table_for_people_and_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    slow = figures.Figure(what="join", value=3.26, against="by hand", base=2.0, most=1.0)
    assert not figures.show([slow], as_json=False)
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.split() == ["join", "3.3", "s", "by", "hand,", "2.0", "s", "1.63", "1", "too", "much"]
    assert not figures.show([slow], as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["good"] is False and document["figures"][0]["ratio"] == pytest.approx(1.63)


def test_many_machines_are_of_both_workloads() -> None:
    stack = mesh.Mesh(more=3)
    assert stack.added() == ["product-2", "billing-2", "product-3"]


def test_joins_that_are_compared_are_of_workloads_that_are_not_verified() -> None:
    machine = {"platform": "docker", "workload": "product"}
    configs: list[dict[str, Any]] = [
        {"workloads": {"product": {"ports": {"http": 8080}}}, "machines": {"product-1": dict(machine)}} for _ in range(2)
    ]
    for config, is_verified in zip(configs, (True, False), strict=True):
        mesh.Mesh(is_verified=is_verified)._change(config)
    assert [{each.get("verify", {}).get("mode") for each in config["workloads"].values()} for config in configs] == [{None}, {"none"}]
    assert set(configs[0]["machines"]) == {"product-1", "billing-1"}


def test_an_entry_that_was_there_before_is_not_the_one_that_is_waited_for() -> None:
    watch = mesh.Watch()
    watch.read(["e 1 True\n"])
    since = time.time()
    watch.read(["e 1 True\n", "e 2 \n", "e 2 True\n"])
    assert watch.wait(["e"], since) == watch.healthy["e", "2"]
    with pytest.raises(StepError, match="not Healthy within 0 s: other"):
        watch.wait(["e", "other"], since, seconds=0.05)
