"""How scenarios share a lab: what runs between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.scenarios import SCENARIOS
from tests.support.lab import Completed, Config, Lab
from tools import ROOT

STACK = (
    "config: {istio-vm-mesh:networks: {pods: {cidrs: [x]}}, istio-vm-mesh:workloads: {product: {labels: {}, pods: {}}}, "
    "istio-vm-mesh:mesh: {version: 1}}"
)


class Recorder(Lab):
    """A lab that writes down its commands. `broken` is how many of the next `lab up` fail."""

    broken = 0
    commands: list[str]

    def lab(self, command: str, check: bool = True, timeout: float = 300) -> Completed:
        self.commands.append(command)
        if command == "up" and self.broken:
            self.broken -= 1
            raise AssertionError("`lab up` failed")
        return Completed([], 0, f"output {len(self.commands)}", "")

    def load_environment(self) -> None:
        """There is none."""

    def run(self, *command: str, check: bool = True, stdin: str = "", timeout: float = 120) -> Completed:
        return Completed([], 0, "", "")


@pytest.fixture
def lab(tmp_path: Path) -> Recorder:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.lab.yaml").write_text(STACK)
    (tmp_path / ".lab" / "logs").mkdir(parents=True)
    lab = Recorder(tmp_path, cidrs=["172.31.16.0/24"])
    lab.commands = []
    return lab


def another(config: Config) -> None:
    config["mesh"]["version"] = 2


def test_a_stack_is_brought_up_once_for_all_its_scenarios(lab: Recorder) -> None:
    lab.ensure()
    lab.ensure()
    lab.ensure_from_nothing()
    lab.ensure_any()
    assert lab.commands == ["down", "up"]
    assert lab.first_output == "output 2"


def test_another_stack_is_one_update(lab: Recorder) -> None:
    lab.ensure()
    lab.ensure(another)
    assert lab.commands == ["down", "up", "up"]
    lab.ensure_any()
    assert lab.commands == ["down", "up", "up"]
    lab.ensure_from_nothing(another)
    assert lab.commands == ["down", "up", "up", "down", "up"]


def test_after_a_failed_test_an_update_looks_at_the_lab(lab: Recorder) -> None:
    lab.ensure()
    lab.damaged = True
    lab.ensure()
    lab.ensure()
    assert lab.commands == ["down", "up", "up"]


def test_a_lab_that_no_update_mends_is_made_again(lab: Recorder) -> None:
    lab.ensure()
    lab.damaged, lab.broken = True, 1
    lab.ensure()
    assert lab.commands == ["down", "up", "up", "down", "up"]
    lab.useless = True
    lab.ensure()
    assert lab.commands[5:] == ["down", "up"]


def test_a_stack_that_is_declared_and_not_up_does_not_count(lab: Recorder) -> None:
    lab.ensure()
    lab.configure(another)
    lab.ensure()
    assert lab.commands == ["down", "up"]
    lab.ensure(another)
    assert lab.commands == ["down", "up", "up"]


def test_every_scenario_has_a_place_in_the_order() -> None:
    directory = ROOT / "tests" / "e2e"
    assert {file.relative_to(directory).as_posix() for file in directory.rglob("test_*.py")} == set(SCENARIOS)
