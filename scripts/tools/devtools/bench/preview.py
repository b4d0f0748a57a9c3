"""What a preview costs as a stack grows.

The program runs against a monitor in the same process, so that nothing is measured but the program and Pulumi's SDK. Every size has a process of its
own: memory is that of the whole process, time that of the program without the SDKs' imports. What is judged is processor time, which does
not depend on what else the computer does.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from pulumi.runtime import mocks

from components.config import reader
from tools import PYTHONPATH, ROOT, mock_engine

from .cli import SIZES

RUNS = 3
"""How often each size is run; the best counts, since others are slowed by what else the computer does."""
MOST_PER_MACHINE, MOST_GROWTH = 40.0, 3.3
"""Milliseconds that a machine may cost, and how much longer 300 machines may take than 100."""


def grown(config: dict[str, Any], machines: int) -> dict[str, Any]:
    """A stack's configuration with its first machine as many times."""
    result = copy.deepcopy(config)
    name, first = sorted(result["machines"].items())[0]
    result["machines"] = {}
    for number in range(1, machines + 1):
        result["machines"][f"{name}-{number}"] = dict(first)
    return result


class Echo(mocks.Mocks):
    """Answers every resource with its inputs, as a preview does."""

    def __init__(self) -> None:
        self.count = 0

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[None, dict[Any, Any]]:
        self.count += args.typ != "pulumi:pulumi:Stack"
        # Google's provider names resources in previews too.
        name = {"name": args.inputs.get("name") or f"{args.name}-0123456"} if args.typ.startswith("gcp:") else {}
        return None, {**args.inputs, **name}

    def call(self, args: mocks.MockCallArgs) -> NoReturn:
        raise AssertionError(f"the program calls {args.token}: it must not look anything up")


def resources(config: Mapping[str, Any]) -> int:
    """Preview a stack and return how many resources it has."""
    answers = Echo()
    mock_engine.run_program(mocks.MockMonitor(answers), config, preview=True)
    return answers.count


def configuration(stack: str) -> dict[str, Any]:
    """Read the configuration of a stack file, keys without the project's name."""
    return reader.read_file(stack)


def measure(stack: str, machines: int) -> dict[str, float]:
    """What one preview in this process takes: seconds, seconds of a processor, MiB."""
    import warnings

    warnings.simplefilter("ignore")
    config = configuration(stack)
    resources(grown(config, 1))  # imports, once
    best = (float("inf"), float("inf"))
    for _ in range(RUNS):
        started, spent = time.perf_counter(), time.process_time()
        count = resources(grown(config, machines))
        best = min(best, (time.process_time() - spent, time.perf_counter() - started))
        gc.collect()
    unit = 1024 if sys.platform != "darwin" else 1024 * 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"machines": machines, "resources": count, "seconds": best[1], "processor": best[0], "mib": memory}


def run(stack: str) -> list[dict[str, float]]:
    """Measure every size, each in a process of its own."""
    figures = []
    for machines in SIZES:
        command = [sys.executable, "-m", "tools.devtools.bench", "one", stack, str(machines)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": PYTHONPATH})
        if done.returncode:
            sys.exit(f"the preview of {stack} with {machines} machines failed:\n{done.stderr}")
        figures.append(json.loads(done.stdout))
    return figures


def verdict(figures: list[dict[str, float]]) -> tuple[float, float]:
    """Milliseconds that one more machine costs, and how much longer the largest takes than the one before."""
    first, *_, before, last = figures
    each = (last["processor"] - first["processor"]) / (last["machines"] - first["machines"]) * 1000
    return each, last["processor"] / before["processor"]


def show(figures: list[dict[str, float]], stack: str, as_json: bool) -> bool:
    """Print what was found; whether it is good."""
    each, growth = verdict(figures)
    good = each <= MOST_PER_MACHINE and growth <= MOST_GROWTH
    if as_json:
        print(json.dumps({"stack": stack, "sizes": figures, "msPerMachine": each, "growth": growth, "good": good}))
        return good
    columns = {"machines": ".0f", "resources": ".0f", "seconds": ".2f", "processor": ".2f", "mib": ".0f"}
    print("  ".join(f"{name:>9}" for name in columns))
    for one in figures:
        print("  ".join(f"{one[name]:>9{shape}}" for name, shape in columns.items()))
    print(
        f"{each:.1f} ms a machine (at most {MOST_PER_MACHINE:.0f}), {SIZES[-1]} take {growth:.1f} times as long as {SIZES[-2]} (at most {MOST_GROWTH})"
    )
    return good
