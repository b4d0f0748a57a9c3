"""A machine's life: its agent stops and starts, its application falls ill and recovers, it reboots, and an `up` finds nothing to do."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.lab.environment import Call, Lab, wait_for

BOTH = {"pod", "product-1"}


def test_the_same_up_changes_and_restarts_nothing(lab: Lab) -> None:
    agent, started = lab.agent(), time.monotonic()
    output = lab.up()
    seconds = time.monotonic() - started
    assert seconds < 20
    assert " created" not in output and " updated" not in output and " replaced" not in output
    assert lab.agent() == agent
    print(f"second up: {seconds:.1f} s")


def test_preview_and_refresh_by_hand_find_no_difference(lab: Lab) -> None:
    lab.pulumi("preview", "--expect-no-changes")
    refreshed = [words[2] for words in map(str.split, lab.pulumi("refresh", "--yes").splitlines()) if words[3:4] == ["updated"]]
    assert refreshed == ["root-certificate"], "what is only read counts as updated"
    lab.pulumi("preview", "--expect-no-changes")


def test_an_agent_that_stops_is_gone_within_15_seconds_and_back_within_5(lab: Lab) -> None:
    entry = lab.outputs()["machines"]["product-1"]["entry"]
    with lab.traffic() as calls:
        lab.ssh("product-1", "sudo systemctl stop istio")
        gone = wait_for(lambda: lab.health(entry) is None, 15, "the WorkloadEntry is gone")
        without = time.monotonic()
        # The machine stays reachable, and its own names resolve: nothing is captured any more.
        assert lab.ssh("product-1", "getent hosts host.docker.internal && ! sudo iptables-save | grep ISTIO")
        lab.ssh("product-1", "sudo systemctl start istio")
        back = wait_for(lambda: lab.health(entry) == "True", 5, "the WorkloadEntry is Healthy")
        wait_for(lambda: lab.answering() == (BOTH, BOTH), 10, "both endpoints answer both")
    before, after = shares(calls, without)
    print(f"gone after {gone:.1f} s, Healthy after {back:.1f} s; lost {before:.1%}, then {after:.1%}")
    # Callers turn to the pod at once: a few calls that were under way, at most.
    assert before < 0.01 and after == 0


def test_a_failing_probe_takes_the_machine_out_and_a_passing_one_back_in(lab: Lab) -> None:
    entry = lab.outputs()["machines"]["product-1"]["entry"]
    with lab.traffic() as calls:
        lab.ssh("product-1", "sudo systemctl kill --signal KILL echo && sudo systemctl stop echo")
        out = wait_for(lambda: lab.health(entry) == "False", 15, "the WorkloadEntry is unhealthy")
        wait_for(lambda: lab.answering() == ({"pod"}, {"pod"}), 3, "only the pod is called")
        without = time.monotonic()
        lab.ssh("product-1", "sudo systemctl start echo")
        back = wait_for(lambda: lab.health(entry) == "True", 15, "the WorkloadEntry is Healthy")
        wait_for(lambda: lab.answering() == (BOTH, BOTH), 10, "both endpoints answer both")
    before, after = shares(calls, without)
    print(f"out after {out:.1f} s, back after {back:.1f} s; lost {before:.1%}, then {after:.1%}")
    # Until the probe has failed often enough, callers see the machine's own share fail: Istio repeats no answer 503.
    assert after == 0


def shares(calls: Sequence[Call], since: float) -> tuple[float, float]:
    """The share of calls that was lost before a moment, and since then."""
    parts = [call.by for call in calls if call.at < since], [call.by for call in calls if call.at >= since]
    before, after = (part.count("lost") / len(part) for part in parts)
    return before, after


def test_a_machine_that_reboots_comes_back_by_itself(lab: Lab) -> None:
    entry = lab.outputs()["machines"]["product-1"]["entry"]
    lab.docker("restart", f"istio-vm-mesh-{lab.stack}-product-1")
    seconds = wait_for(
        lambda: lab.health(entry) == "True" and lab.answering() == (BOTH, BOTH), 60, "the machine is back, both endpoints answer both"
    )
    print(f"both directions answered {seconds:.1f} s after the restart")
