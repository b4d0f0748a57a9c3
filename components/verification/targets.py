"""Whether a workload is called, and how long its verification waits."""

from __future__ import annotations

from ..config.workload import WorkloadSettings

TIMEOUT_S = 60
"""Seconds to wait for the health of entries."""
CALL_TIMEOUT_S = 30
"""Seconds until endpoints must have answered."""


def is_called(workload: WorkloadSettings) -> bool:
    """Return whether clients reach the workload's machines by a Service: by one with a cluster IP."""
    return any(not service.headless for service in workload.services.values())
