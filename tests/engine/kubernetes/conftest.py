"""A control plane that knows the kinds of a mesh."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import yaml

from tests.support.control_plane import ControlPlane
from tests.support.module_files import directory
from tests.support.waiting import wait_until
from tools.standins.kubernetes.client import ApiError, Unreachable


@pytest.fixture(scope="session")
def strict(plane: ControlPlane) -> ControlPlane:
    """Return the control plane, which knows the kinds of Istio and of the Gateway API now."""
    texts = [
        directory("istio-charts") / "base" / "files" / "crd-all.gen.yaml",
        *sorted(directory("gateway-api-crds").glob("*gateways.yaml")),
    ]
    for text in texts:
        for crd in yaml.safe_load_all(text.read_text()):
            if crd and crd["kind"] == "CustomResourceDefinition":
                plane.cluster.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body=crd)

    def is_served(api_version: str, kind: str) -> bool:
        with suppress(ApiError, Unreachable):
            plane.cluster.endpoint(api_version, kind)
            return True
        return False

    for api_version, kind in (
        ("networking.istio.io/v1", "WorkloadGroup"),
        ("networking.istio.io/v1", "WorkloadEntry"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
    ):
        wait_until(partial(is_served, api_version, kind), description=f"{kind} becomes known")
    return plane
