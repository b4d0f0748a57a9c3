"""How a program waits for its outputs: as the SDK does, in less time."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks, stack
from pulumi.runtime.stack import wait_for_rpcs

from components import waiting
from tools import mock_engine
from tools.devtools.bench.preview import Echo

PROGRAM = """
    import asyncio
    import pathlib
    import pulumi
    from pulumi.runtime.stack import ResourceRegistrationFailed

    def ended():
        pathlib.Path(__file__).with_name("ended").touch()

    async def after(ticks, do=lambda: None):
        for _ in range(ticks):
            await asyncio.sleep(0)
        return do()

    def fail(error):
        raise error

    output = pulumi.Output.from_input
"""
Run = Callable[[str], None]


@pytest.fixture(params=["the SDK's wait", "ours"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a program to its end; raise what it raises."""
    monkeypatch.setattr(stack, "wait_for_rpcs", wait_for_rpcs)
    if request.param == "ours":
        waiting.install()

    def to_end(lines: str) -> None:
        file = tmp_path / "__main__.py"
        file.write_text(textwrap.dedent(PROGRAM) + textwrap.dedent(lines))
        mock_engine.run_program(mocks.MockMonitor(Echo()), {}, preview=True, program=mock_engine.Program(file, "p"))

    return to_end


def ended(tmp_path: Path) -> bool:
    return (tmp_path / "ended").exists()


def test_the_end_of_a_program_awaits_outputs_of_outputs(run: Run, tmp_path: Path) -> None:
    run("output(after(3)).apply(lambda _: output(after(50, ended)) and None)")
    assert ended(tmp_path)


@pytest.mark.parametrize(
    "failing",
    [
        "output(1).apply(lambda _: fail(pulumi.RunError('no such network')))",
        "output(after(20, lambda: fail(pulumi.RunError('no such network'))))",
        "pulumi.export('unused', output(1).apply(lambda _: fail(pulumi.RunError('no such network'))))",
        "pulumi.ComponentResource('a:b:C', 'c', {'of': output(1).apply(lambda _: fail(pulumi.RunError('no such network')))}, remote=True)",
    ],
)
def test_an_error_ends_a_program_while_other_outputs_are_pending(run: Run, failing: str, tmp_path: Path) -> None:
    with pytest.raises(pulumi.RunError, match="no such network"):
        run(f"output(after(1_000_000, ended))\n{failing}")
    assert not ended(tmp_path)


def test_an_error_of_an_output_that_nothing_awaits_is_raised(run: Run) -> None:
    lines = "output(1).apply(lambda _: output(after(9, lambda: fail(OSError('it')))) and None)"
    with pytest.raises(OSError, match="it"):
        run(lines)


def test_an_error_while_resources_are_declared_is_raised(run: Run, tmp_path: Path) -> None:
    """All outputs are awaited first, so that resources that are under way are completed."""
    with pytest.raises(KeyError, match="second"):
        run("output(after(50, ended))\nraise KeyError('second')")
    assert ended(tmp_path)


def test_a_resource_that_failed_ends_no_program(run: Run, tmp_path: Path) -> None:
    """With `--continue-on-error` the engine reports it, and other resources go on."""
    run(
        """
        for ticks in range(5):
            output(after(ticks, lambda: fail(ResourceRegistrationFailed())))
        output(after(50, ended))
        """
    )
    assert ended(tmp_path)


def test_an_error_after_a_resource_that_failed_is_raised(run: Run) -> None:
    with pytest.raises(OSError, match="it"):
        run(
            """
            output(after(1, lambda: fail(ResourceRegistrationFailed())))
            output(after(9, lambda: fail(OSError("it"))))
            """
        )


def test_each_output_is_waited_for_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK alone looks at all that are pending whenever one is complete: thousands of times."""
    looked_at, wait = 0, asyncio.wait

    async def counted(outputs: Collection[Any], **options: Any) -> Any:
        nonlocal looked_at
        looked_at += len(outputs)
        counted.has_begun = True  # type: ignore[attr-defined]
        return await wait(outputs, **options)

    monkeypatch.setattr(asyncio, "wait", counted)
    run(
        """
        async def after_the_wait_has_begun(ticks):
            while not hasattr(asyncio.wait, "has_begun"):
                await asyncio.sleep(0)
            await after(ticks)

        for ticks in range(100):
            output(after_the_wait_has_begun(ticks))
        """
    )
    assert (looked_at < 300) is (stack.wait_for_rpcs is not wait_for_rpcs)
