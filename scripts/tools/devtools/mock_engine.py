"""Runs programs under Pulumi's mocks: no engine, no plugins, everything in this process."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.runtime import mocks

from tools import ROOT


@dataclass(frozen=True)
class Program:
    """A Pulumi program.

    file: its Python file.
    project: the name of its project.
    """

    file: Path
    project: str


MAIN = Program(ROOT / "__main__.py", yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["name"])
"""This project. Nothing of it is imported here: programs that use the wheel run where it is not."""


def run_program(
    monitor: mocks.MockMonitor,
    config: Mapping[str, Any],
    *,
    preview: bool,
    program: Program = MAIN,
) -> tuple[dict[str, Any], frozenset[str]]:
    """Run a program; return the stack's outputs by name, and the names of secret ones.

    - `monitor`: answers for the engine
    - `config`: the stack's configuration, keys without the project's name

    An output that a preview does not know is left empty. Raises what the program raises.
    """
    project = program.project
    pulumi.runtime.reset_options(project=project, stack="test")
    values = {f"{project}:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    pulumi.runtime.set_all_config(values, [])
    outputs: dict[str, Any] = {}
    secret_outputs: set[str] = set()

    async def resolve() -> None:
        root = pulumi.runtime.get_root_resource()
        for name, value in getattr(root, "outputs", {}).items():
            output = pulumi.Output.from_input(value)
            outputs[name] = await output.future()
            if await output.is_secret():
                secret_outputs.add(name)

    def body() -> Any:
        runpy.run_path(str(program.file), run_name="__main__")
        return resolve()

    with _event_loops():
        pulumi.runtime.set_mocks(monitor.mocks, project=project, stack="test", preview=preview, monitor=monitor)
        pulumi.runtime.test(body)()
    return outputs, frozenset(secret_outputs)


@contextmanager
def _event_loops() -> Iterator[None]:
    """Event loops for this thread and those that answer for the engine; Pulumi makes some where
    there are none, and closes none.
    """
    loops: list[asyncio.AbstractEventLoop] = []

    def make() -> None:
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[-1])

    make()
    with ThreadPoolExecutor(initializer=make) as threads:
        loops[0].set_default_executor(threads)
        try:
            yield
        finally:
            threads.shutdown()
            for loop in loops:
                loop.close()
            asyncio.set_event_loop(None)
