"""The facts of meshes by Istio's own chart: tests/support/meshes.yaml is what Helm renders of it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from tests.support.control_plane import program
from tests.support.meshes import MESHES, of_cluster
from tests.support.module_files import directory


def rendered(mesh: dict[str, Any]) -> dict[str, Any]:
    """What Helm installs by the values of a mesh, as a cluster would have it."""
    command = [
        program("helm"),
        "template",
        "istiod",
        directory("istio-charts") / "istiod",
        "--namespace",
        mesh["namespace"],
        "--values",
        "-",
    ]
    text = subprocess.run(command, input=json.dumps(mesh["values"]), check=True, capture_output=True, text=True).stdout
    objects = [each for each in yaml.safe_load_all(text) if each]
    kinds = {kind: [each for each in objects if each["kind"] == kind] for kind in {each["kind"] for each in objects}}
    return {
        **mesh,
        "deployments": kinds["Deployment"],
        "webhooks": kinds["MutatingWebhookConfiguration"],
        "config_maps": {each["metadata"]["name"]: each.get("data") for each in kinds["ConfigMap"]},
    }


@pytest.mark.parametrize("name", MESHES)
def test_the_fixtures_say_what_istios_chart_says(name: str) -> None:
    assert of_cluster(rendered(MESHES[name])) == of_cluster(MESHES[name])
