"""A pytest plugin: which tests one worker of pytest-xdist runs, because they share something costly,
and that other tests leave the processors to the labs.

pytest-xdist's own `--dist=loadgroup` has no effect with pytest 9.2: it renames tests by an attribute
that pytest no longer reads.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

LABS = "tests/e2e/"
GROUPS = {
    f"{LABS}single_network/": "lab",
    f"{LABS}faults/single_network/": "lab",
    f"{LABS}multi_network/": "lab with two networks",
    f"{LABS}faults/multi_network/": "lab with two networks",
    "tests/preview/": "graphs",
    "tests/unit/tools/plan/test_": "plans",
    "tests/unit/tools/devtools/test_plan_examples.py": "plans",
    "tests/unit/tools/devtools/test_schema.py": "plans",
    "tests/library/": "wheel",
    "tests/engine/kubernetes/": "control plane",
    "tests/engine/google/test_instance_group.py": "control plane",
    "tests/engine/google/test_kubeconfig.py": "control plane",
    "tests/plugins/kubernetes/": "control plane",
}
"""By the beginning of a path: what these tests share. Each lab has a worker, which runs its scenarios in their order.
One worker computes all graphs, one the plans, one builds the wheel, one starts the control plane.
"""

BY_TEST = ("tests/engine/", "tests/plugins/")
"""Directories whose tests take seconds each. Elsewhere the tests of a file share its fixtures, and
what it parses.
"""


class Scheduler(LoadScopeScheduling):
    """Give the worker that is free the next group, test or file, in the order of the command line."""

    def _split_scope(self, nodeid: str) -> str:
        groups = (group for directory, group in GROUPS.items() if nodeid.startswith(directory))
        return next(groups, nodeid if nodeid.startswith(BY_TEST) else nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    """Use this scheduler. It does not begin with what has most tests: these are the shortest."""
    config.option.loadscopereorder = False
    return Scheduler(config, log)


NICENESS = 5
"""Of the other tests while there are labs: machines and pods answer in time whatever else runs.

Other tests have deadlines, too: Pulumi's engine gives a provider 10 s to answer its first call. With
the niceness 10, a provider in a test's process once missed them, beside labs and a busy core. Beside
24 busy processes of normal priority it answered within 1.7 s with 10, and within 0.4 s with 5.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lower the priority of a worker, and of what it starts, before its first test without a lab.

    The scenarios of labs come first, so a worker has none after that.
    """
    with_labs = item.session.items[0].nodeid.startswith(LABS)
    if with_labs and not item.nodeid.startswith(LABS) and os.getpriority(os.PRIO_PROCESS, 0) < NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
