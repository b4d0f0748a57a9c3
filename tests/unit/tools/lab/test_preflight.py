"""A machine that cannot run the lab is told so at once, with the reason and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools import PYTHONPATH, UNFIT
from tools.lab import paths, preflight
from tools.lab.preflight import GIB, Machine

GOOD = Machine(
    system="Linux",
    architecture="x86_64",
    root=True,
    capabilities=lambda: -1,
    engine_answers=lambda: False,
    engine_requirement=lambda: None,
    memory=lambda: 8 * GIB,
    cold=lambda: True,
    free=lambda directories: {"disk": (Path("/cache"), 40 * GIB)},
)


def test_a_good_machine_is_not_refused() -> None:
    assert preflight.unmet_requirements(GOOD) == []


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (replace(GOOD, system="Darwin"), "the lab needs Linux, this is Darwin: use a Linux machine"),
        (replace(GOOD, architecture="aarch64"), "x86_64 processor"),
        (replace(GOOD, root=False, engine_requirement=lambda: "no Docker engine answers: run as root"), "run as root"),
        (replace(GOOD, capabilities=lambda: 0), "has no CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        (replace(GOOD, memory=lambda: 5 * GIB), "5.0 GiB of memory are too little to build everything once (7 GiB)"),
        (
            replace(GOOD, free=lambda directories: {"d": (Path("/cache"), 9 * GIB)}),
            "9.0 GiB free for /cache are too little to build everything",
        ),
        (
            replace(GOOD, cold=lambda: False, free=lambda directories: {"d": (paths.ROOT, GIB)}),
            "are too little to run the lab (3 GiB): free some",
        ),
    ],
)
def test_the_reason_and_the_cure_are_named(machine: Machine, says: str) -> None:
    [obstacle] = preflight.unmet_requirements(machine)
    assert says in obstacle


def test_less_is_enough_where_nothing_has_to_be_built() -> None:
    small = replace(GOOD, memory=lambda: 5 * GIB, free=lambda directories: {"d": (Path("/cache"), 9 * GIB)}, cold=lambda: False)
    assert preflight.unmet_requirements(small) == []


def test_a_root_without_capabilities_may_use_an_engine_that_answers() -> None:
    assert preflight.unmet_requirements(replace(GOOD, capabilities=lambda: 0, engine_answers=lambda: True)) == []


def test_this_machine_can_be_looked_at() -> None:
    assert preflight.memory() > 0
    assert all(free > 0 for _, free in preflight.free({"root": paths.ROOT, "absent": Path("/no/such/place")}).values())


def test_the_launcher_refuses_with_the_reason_and_its_exit_code(tmp_path: Path) -> None:
    program = f"""
import runpy, sys
from tools.lab import preflight
preflight.unmet_requirements = lambda: ["this is a toaster: use a computer"]
sys.argv = ["lab", "up"]
runpy.run_path({str(paths.ROOT / "scripts" / "lab")!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True, text=True, check=False
    )
    assert done.returncode == UNFIT
    assert done.stderr == "This machine cannot run the lab:\n- this is a toaster: use a computer\n"


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), ([], 2), (["sideways"], 2)])
def test_help_and_usage_need_no_environment(arguments: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-S", paths.ROOT / "scripts" / "lab", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "usage: ./scripts/lab" in done.stdout + done.stderr
    if code == 0:
        assert all(command in done.stdout for command in ("up", "down", "tools", "env", "logs"))
