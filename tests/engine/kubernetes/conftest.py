"""A real API server with the kinds of Istio and of the Gateway API."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from tests.support.control_plane import ControlPlane
from tools.lab.offline.programs import Tools
from tools.lab.steps import Steps


@cache
def directory(name: str) -> Path:
    """Files of a Go module, as the lab uses them."""
    with TemporaryDirectory() as logs, Steps("test", 1, logs=Path(logs)).step(f"get {name}") as step:
        return Tools().directory(step, name).path


@pytest.fixture(scope="session")
def strict(plane: ControlPlane) -> ControlPlane:
    """A control plane that knows the kinds of Istio and of the Gateway API."""
    texts = [
        directory("istio-charts") / "base" / "files" / "crd-all.gen.yaml",
        *sorted(directory("gateway-api-crds").glob("*gateways.yaml")),
    ]
    for text in texts:
        for crd in yaml.safe_load_all(text.read_text()):
            if crd and crd["kind"] == "CustomResourceDefinition":
                plane.cluster.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body=crd)
    deadline = time.monotonic() + 30
    for api_version, kind in (("networking.istio.io/v1", "WorkloadGroup"), ("gateway.networking.k8s.io/v1", "Gateway")):
        while True:
            try:
                plane.cluster.endpoint(api_version, kind)
                break
            except Exception:
                assert time.monotonic() < deadline, f"{kind} does not become known"
                time.sleep(0.2)
    return plane
