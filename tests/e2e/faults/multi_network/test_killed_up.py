"""`lab up` that is interrupted, and killed again and again: what is left, and that the next one finishes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator

import pytest

from components.platforms.docker import names
from tests.support.lab import MultiNetworkLab, processes_with
from tools.lab import engine, locks
from tools.process import accept_sigint

KILLS = int(os.environ.get("LAB_KILLS", "12"))
"""How often it is killed. Each run takes a part of a minute."""


def moments(kills: int) -> list[tuple[int, float]]:
    """When it is killed: so many seconds after so many resources of that run. Up to four times while the cluster is made, then all along."""
    early = [(0, seconds) for seconds in (12.0, 2.0, 6.0, 18.0)][: kills // 4]
    late = kills - len(early)
    return early + [(max(1, 24 // late), number % 4 / 4) for number in range(late)]


def iter_until(lines: Iterable[str], text: str) -> Iterator[str]:
    """Lines up to the first that holds a text."""
    for line in lines:
        yield line
        if text in line:
            return


def up_until_killed(lab: MultiNetworkLab, created: int, seconds: float) -> bool:
    """Run `lab up`, and send SIGKILL to its process group so many seconds after Pulumi has created so many resources.

    Returns whether it came to that.
    """
    command = ["./scripts/lab", "up", "--stack", lab.stack]
    with subprocess.Popen(command, cwd=lab.root, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            # The step before Pulumi has ended, and then each resource.
            if sum("plugins" in each or " created: " in each for each in lines) > created:
                break
        try:
            output, _ = process.communicate(timeout=seconds)
            assert process.returncode == 0, f"`up` after a kill failed:\n{''.join(lines)}{output}"
            return False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True


def interrupted_up(lab: MultiNetworkLab, after: str, seconds: float) -> tuple[int, str]:
    """Run `lab up`, and interrupt it as by Ctrl-C so long after it printed a line. Return its exit code, and its output."""
    command = ["./scripts/lab", "up", "--stack", lab.stack]
    accept_sigint()
    with subprocess.Popen(
        command,
        cwd=lab.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    ) as process:
        assert process.stdout
        lines = list(iter_until(process.stdout, after))
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate()
        return process.returncode, "".join(lines) + output


def leftovers(lab: MultiNetworkLab) -> str:
    """Return what is left of the stack in the engine and in this checkout's state."""
    label = f"label={names.stack_label(lab.stack)}"
    of_engine = []
    with locks.shared_lock():
        if container_engine := engine.find():
            nodes = f"name={names.docker_name(lab.stack, '')}"
            what = (("ps", "--all", "--filter", label), ("network", "ls", "--filter", label), ("ps", "--all", "--filter", nodes))
            of_engine = [container_engine.docker(*each, "--quiet") for each in what]
    state = [str(file) for file in (lab.root / ".lab").rglob(f"*{lab.stack}*")]
    state += [str(file) for file in (lab.root / ".lab" / "run" / "tmp").glob("*")]
    return " ".join([*of_engine, *state]).strip()


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab) -> MultiNetworkLab:
    """The stack `lab-multi-network`, declared; nothing of it is up."""
    multi_network_lab.configure()
    multi_network_lab.down()
    return multi_network_lab


@pytest.fixture(scope="module")
def survivor(lab: MultiNetworkLab) -> MultiNetworkLab:
    """The same, up after having been killed over and over."""
    kills = sum(up_until_killed(lab, *moment) for moment in moments(KILLS))
    print(f"killed {kills} times")
    assert kills >= KILLS / 2  # a fast machine is done before the last ones
    lab.up()
    return lab


def test_down_leaves_nothing_of_an_up_that_was_killed(lab: MultiNetworkLab) -> None:
    # With a resource that is complete, and a cluster that is not: however slow the computer is.
    assert up_until_killed(lab, 1, 6)
    assert leftovers(lab)
    for _ in range(2):
        lab.down()
        assert not leftovers(lab)
        assert not processes_with(str(lab.root))


@pytest.mark.parametrize(("after", "seconds"), [("[ 1/", 0.0), ("plugins", 6.0)], ids=["early", "in pulumi up"])
def test_an_interrupted_up_stops_and_says_what_to_run_next(lab: MultiNetworkLab, after: str, seconds: float) -> None:
    code, output = interrupted_up(lab, after, seconds)
    assert code == 130
    of = f"--stack {lab.stack}"
    assert output.endswith(f"run ./scripts/lab up {of} to continue or ./scripts/lab down {of} to remove what there is.\n")
    assert not [line for line in processes_with(str(lab.root)) if "pulumi" in line]


@pytest.mark.istio_case(30)
def test_it_comes_up_however_often_it_is_killed(survivor: MultiNetworkLab) -> None:
    assert set(survivor.outputs()["machines"]) == {*survivor.machines, *survivor.gateways}
    survivor.pulumi("preview", "--expect-no-changes")
