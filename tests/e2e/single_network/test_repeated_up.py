"""Nothing to do: the same `up` again, a preview, a refresh, and a machine that reboots."""

from __future__ import annotations

import pytest

from tests.support.lab import Lab
from tests.support.waiting import wait_until

BOTH = {"pod", "product-1"}


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Lab:
    """The stack `lab`."""
    single_network_lab.ensure()
    return single_network_lab


@pytest.mark.istio_case(30)
def test_the_same_up_changes_and_restarts_nothing(lab: Lab) -> None:
    agent = lab.agent_pid()
    output = lab.up()
    assert " created" not in output and " updated" not in output and " replaced" not in output
    assert lab.agent_pid() == agent


def test_preview_and_refresh_by_hand_find_no_difference(lab: Lab) -> None:
    lab.pulumi("preview", "--expect-no-changes")
    refreshed = [words[2] for words in map(str.split, lab.pulumi("refresh", "--yes").splitlines()) if words[3:4] == ["updated"]]
    assert refreshed == ["root-certificate"], "what is only read counts as updated"
    lab.pulumi("preview", "--expect-no-changes")


@pytest.mark.istio_case(26)
def test_a_machine_that_reboots_comes_back_by_itself(lab: Lab) -> None:
    entry = lab.outputs()["machines"]["product-1"]["entry"]
    lab.docker("restart", lab.container("product-1"))
    seconds = wait_until(
        lambda: lab.entry_health(entry) == "True" and lab.answering_endpoints() == (BOTH, BOTH),
        description="the machine is back, both endpoints answer both",
    )
    print(f"both directions answered {seconds:.1f} s after the restart")
