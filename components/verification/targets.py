"""What a verification calls, and which endpoints must answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config.workload import WorkloadSettings
from ..names import CROSS_NETWORK_PORT

POD_ENDPOINTS = "PODS-OF-THE-WORKLOAD"
"""Stands for the pods' endpoints, which only the cluster knows, until the script that verifies fills them in."""
TIMEOUT_S = 60  # seconds to wait for an entry's health, and for endpoints to answer


def is_called(workload: WorkloadSettings) -> bool:
    """Return whether clients reach the workload's machines by a Service: by one with a cluster IP."""
    return any(not service.headless for service in workload.services.values())


def expected_endpoints(viewer: str, network: str, address: str, port: int, gateways: Mapping[str, Sequence[str]]) -> list[str]:
    """The endpoints under which callers in the network `viewer` see a machine of `network`: itself, its network's gateways, or none.

    `gateways` are addresses by network. As istiod filters endpoints (istio/istio: pilot/pkg/xds/endpoints/ep_filters.go).
    """
    if viewer == network:
        return [f"{address}:{port}"]
    return [f"{gateway}:{CROSS_NETWORK_PORT}" for gateway in gateways.get(network, ())]
