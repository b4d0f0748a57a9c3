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


class Scheduler(LoadScopeScheduling):
    """Distribute groups first, the largest first, then test by test to the worker that is free."""

    def _split_scope(self, nodeid: str) -> str:
        groups = (group for directory, group in GROUPS.items() if nodeid.startswith(directory))
        return next(groups, nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    """Use this scheduler."""
    return Scheduler(config, log)
