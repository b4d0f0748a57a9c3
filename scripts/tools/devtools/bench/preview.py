"""What a preview costs as a stack grows, and what `./scripts/plan` adds to it.

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

from components.config import load, reader
from tools import PYTHONPATH, ROOT, mock_engine
from tools.plan import preview, state

from .cli import SIZES

RUNS = 3
"""How often each size is run; the best counts, since others are slowed by what else the computer does."""
MOST_PER_MACHINE, MOST_GROWTH, MOST_PLAN = 40.0, 3.3, 0.3
"""At most: milliseconds for each machine; the time of 300 machines by that of 100; the time of a
plan by that of its preview.

The engine and its plugins come on top of the preview that is measured here, so the real part is
smaller.
"""


def grown(config: dict[str, Any], machines: int) -> dict[str, Any]:
    """Return a stack's configuration with its first machine as many times."""
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


def steps(config: Mapping[str, Any]) -> str:
    """Return what Pulumi prints of a preview in which every resource changes, as JSON."""
    recorder = mock_engine.Recorder(Echo())
    mock_engine.run_program(recorder, config, preview=True)

    def urn(type_: str, name: str) -> str:
        return f"urn:pulumi:s::{mock_engine.MAIN.project}::{type_}::{name}" if name else ""

    def state(node: mock_engine.Node, **more: Any) -> dict[str, Any]:
        inputs = {**node.inputs, **more}
        return {"urn": urn(node.type, node.name), "type": node.type, "parent": urn("", node.parent), "inputs": inputs, "outputs": inputs}

    changes = [{"op": "update", "oldState": state(node), "newState": state(node, changed="it is")} for node in recorder.nodes]
    return json.dumps({"steps": changes}, indent=4)


def plan(stack: str, config: Mapping[str, Any], text: str) -> float:
    """Return the processor time that a plan of a preview takes, in seconds. text: what Pulumi prints."""
    spent = time.process_time()
    state.plan_of(stack, preview.decode(text), load(config))
    return time.process_time() - spent


def measure(stack: str, machines: int) -> dict[str, float]:
    """Return what one preview in this process takes: seconds, seconds of a processor, MiB."""
    import warnings

    warnings.simplefilter("ignore")
    config = reader.read_file(stack)
    resources(grown(config, 1))  # imports, once
    best, planned = (float("inf"), float("inf")), float("inf")
    text = steps(grown(config, machines))
    for _ in range(RUNS):
        started, spent = time.perf_counter(), time.process_time()
        count = resources(grown(config, machines))
        best = min(best, (time.process_time() - spent, time.perf_counter() - started))
        gc.collect()
        planned = min(planned, plan(stack, grown(config, machines), text))
    unit = 1024 if sys.platform != "darwin" else 1024 * 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"machines": machines, "resources": count, "seconds": best[1], "processor": best[0], "plan": planned, "mib": memory}


def run(stack: str) -> list[dict[str, float]]:
    """Measure every size, each in a process of its own.

    Raises SettingsError for a stack whose file is not there.
    """
    reader.read_file(stack)
    figures = []
    for machines in SIZES:
        command = [sys.executable, "-m", "tools.devtools.bench", "one", stack, str(machines)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": PYTHONPATH})
        if done.returncode:
            sys.exit(f"the preview of {stack} with {machines} machines failed:\n{done.stderr}")
        figures.append(json.loads(done.stdout))
    return figures


def verdict(figures: list[dict[str, float]]) -> tuple[float, float, float]:
    """Milliseconds that one more machine costs, how much longer the largest takes than the one before, and the part that its plan adds."""
    first, *_, before, last = figures
    each = (last["processor"] - first["processor"]) / (last["machines"] - first["machines"]) * 1000
    return each, last["processor"] / before["processor"], last["plan"] / last["processor"]


def show(figures: list[dict[str, float]], stack: str, as_json: bool) -> bool:
    """Print what was found; whether it is good."""
    each, growth, part = verdict(figures)
    good = each <= MOST_PER_MACHINE and growth <= MOST_GROWTH and part <= MOST_PLAN
    if as_json:
        print(json.dumps({"stack": stack, "sizes": figures, "msPerMachine": each, "growth": growth, "plan": part, "good": good}))
        return good
    columns = {"machines": ".0f", "resources": ".0f", "seconds": ".2f", "processor": ".2f", "plan": ".2f", "mib": ".0f"}
    print("  ".join(f"{name:>9}" for name in columns))
    for one in figures:
        print("  ".join(f"{one[name]:>9{shape}}" for name, shape in columns.items()))
    print(
        f"{each:.1f} ms a machine (at most {MOST_PER_MACHINE:.0f}); {SIZES[-1]} take {growth:.1f} times as long as {SIZES[-2]} (at most {MOST_GROWTH}). "
        f"Their plan takes {part:.2f} of that (at most {MOST_PLAN})"
    )
    return good
