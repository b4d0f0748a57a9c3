"""Istio that plain Helm installs in the cluster of a lab, as somebody did before this program came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from components.config import reader
from components.mesh_facts import merge
from components.names import config_key
from tests.support.lab import Lab
from tools.lab.offline import versions

IMAGES = {"hub": "docker.io/istio", "tag": versions.ISTIO}
"""The images that the lab has, as values of a chart's `global`."""


def install(lab: Lab, namespace: str, release: str, chart: Path, values: dict[str, Any]) -> None:
    """Install a chart and wait for its pods."""
    words = ("install", release, str(chart), "--namespace", namespace, "--values", "-", "--wait")
    lab.run("helm", *words, stdin=yaml.safe_dump(values))


def uninstall(lab: Lab, namespace: str, *releases: str) -> None:
    """Uninstall those of the releases that are there, and remove the namespace."""
    lab.run("helm", "uninstall", *releases, "--namespace", namespace, "--ignore-not-found", check=False)
    lab.run("kubectl", "delete", "namespace", namespace, "--ignore-not-found", check=False)


def charts(lab: Lab) -> Path:
    """Return the directory of Istio's charts base, istiod and gateway."""
    return lab.root / ".lab" / "charts"


def istiod_values(lab: Lab, values: dict[str, Any]) -> dict[str, Any]:
    """Return values of istiod with those that the lab's Envoy needs."""
    of_lab = reader.read_document(lab.stack_file, lab.root / "stacks")["config"][config_key("mesh")]["values"]
    return merge(of_lab["istiod"], values)
