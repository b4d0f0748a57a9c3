"""Meshes as clusters have them: meshes.yaml is what Helm renders of Istio's chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from components.istio import revisions
from components.mesh_facts import MeshFacts

MESHES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("meshes.yaml").read_text())
"""What a cluster has of each mesh, and the values of its chart, by the mesh's name."""


def of_cluster(mesh: dict[str, Any], wanted: str | None = None) -> MeshFacts:
    """Return the facts of a mesh as its cluster has them.

    wanted: the revision or tag that a stack states.
    """
    tags = revisions.tags_of(mesh["webhooks"], mesh["namespace"])
    plane = revisions.choose(mesh["deployments"], tags, wanted)
    maps = mesh["config_maps"]
    configs = [maps[name]["mesh"] for name in (plane.shared_config_map, plane.config_map) if name]
    return revisions.from_cluster(mesh["namespace"], plane, configs, maps[f"istio-sidecar-injector{plane.suffix}"]["values"])
