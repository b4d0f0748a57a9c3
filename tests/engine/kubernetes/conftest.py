"""A control plane that knows the kinds of a mesh."""

from __future__ import annotations

import time

import pytest
import yaml

from tests.support.control_plane import ControlPlane
from tests.support.module_files import directory


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
    deadline = time.monotonic() + 30
    for api_version, kind in (
        ("networking.istio.io/v1", "WorkloadGroup"),
        ("networking.istio.io/v1", "WorkloadEntry"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
    ):
        while True:
            try:
                plane.cluster.endpoint(api_version, kind)
                break
            except Exception:
                assert time.monotonic() < deadline, f"{kind} does not become known"
                time.sleep(0.2)
    return plane
