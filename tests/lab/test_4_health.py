"""A machine's life: its agent stops and starts, its application falls ill and recovers, it reboots, and an `up` finds nothing to do."""

from __future__ import annotations

from tests.lab.environment import Lab, wait_for

BOTH = {"pod", "product-1"}


def test_the_same_up_changes_and_restarts_nothing(lab: Lab) -> None:
    agent = lab.agent()
    output = lab.up()
    assert " created" not in output and " updated" not in output and " replaced" not in output
    assert lab.agent() == agent


def test_preview_and_refresh_by_hand_find_no_difference(lab: Lab) -> None:
    lab.pulumi("preview", "--expect-no-changes")
    refreshed = [words[2] for words in map(str.split, lab.pulumi("refresh", "--yes").splitlines()) if words[3:4] == ["updated"]]
    assert refreshed == ["root-certificate"], "what is only read counts as updated"
    lab.pulumi("preview", "--expect-no-changes")


def test_a_machine_that_reboots_comes_back_by_itself(lab: Lab) -> None:
    entry = lab.outputs()["machines"]["product-1"]["entry"]
    lab.docker("restart", f"istio-vm-mesh-{lab.stack}-product-1")
    seconds = wait_for(
        lambda: lab.health(entry) == "True" and lab.answering() == (BOTH, BOTH), 60, "the machine is back, both endpoints answer both"
    )
    print(f"both directions answered {seconds:.1f} s after the restart")
