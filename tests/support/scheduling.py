"""A pytest plugin: which tests one worker of pytest-xdist runs, because they share something costly.

pytest-xdist's own `--dist=loadgroup` has no effect with pytest 9.2: it renames tests by an attribute
that pytest no longer reads.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "tests/preview/": "graphs",
    "tests/library/": "wheel",
    "tests/engine/kubernetes/": "control plane",
    "tests/engine/google/test_instance_group.py": "control plane",
    "tests/engine/google/test_kubeconfig.py": "control plane",
    "tests/plugins/kubernetes/": "control plane",
}
"""By directory: what its tests share. One worker computes all graphs, one builds the wheel, one starts the control plane."""

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
