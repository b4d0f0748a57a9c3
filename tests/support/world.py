"""Machines as directories and a real API server, for whole stacks under the real CLI.

`ssh` runs a machine's script in its directory. A machine that has none is dead.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from components import names
from tests.support.control_plane import ControlPlane
from tests.support.meshes import MESHES

ROOT = Path(__file__).parents[2]
ROOT_CONFIG_MAP = f"{names.ISTIO_NAMESPACE}/{names.DEFAULT_ROOT_CONFIG_MAP}"
SSH = r"""#!/bin/bash
log=/dev/stderr words=("$@")
while [ "$1" != -- ]; do
  if [ "$1" = -E ]; then log=$2; fi
  shift
done
echo "ssh ${2}" >>"$WORLD/connections"
host=$2
if [ -e "$WORLD/names/$host" ]; then host=$(cat "$WORLD/names/$host"); fi
export HOST_DIRECTORY=$WORLD/machines/$host
if [ ! -d "$HOST_DIRECTORY" ]; then
  echo "ssh: connect to host $host port 22: Connection refused" >>"$log"
  exit 255
fi
if [ -e "$HOST_DIRECTORY/refuses" ]; then
  cat "$HOST_DIRECTORY/refuses" >>"$log"
  exit 255
fi
exec bash -s
"""


class World:
    """Machines that SSH reaches, and the entries of one namespace."""

    def __init__(self, directory: Path, plane: ControlPlane, namespace: str, environment: pytest.MonkeyPatch) -> None:
        self.directory, self.namespace, self._plane = directory, namespace, plane
        for part in ("machines", "names", "bin"):
            (directory / part).mkdir(parents=True)
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(plane.kubeconfig)
        fakes = ROOT / "tests/support/fake_machine_scripts.py"
        self._program("ssh", SSH)
        self._program(
            "python3", f'#!/bin/sh\nif [ "$1" != -I ]; then exec {sys.executable} "$@"; fi\nshift\nexec {sys.executable} -I {fakes} "$@"\n'
        )
        environment.setenv("PATH", f"{directory / 'bin'}:{os.environ['PATH']}")
        environment.setenv("WORLD", str(directory))
        environment.setenv("KUBECONFIG", str(self.kubeconfig))

    def _program(self, name: str, text: str) -> None:
        program = self.directory / "bin" / name
        program.write_text(text)
        program.chmod(0o755)

    def trust(self, data: dict[str, str]) -> None:
        """Publish the mesh's root certificate, as istiod does."""
        namespace, _, name = ROOT_CONFIG_MAP.partition("/")
        for kind, metadata, rest in (
            ("Namespace", {"name": namespace}, {}),
            ("ConfigMap", {"name": name, "namespace": namespace}, {"data": data}),
        ):
            self._plane.cluster.apply({"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest}, "istiod", force=True)
        self._install(namespace, MESHES["revisioned"])

    def _install(self, namespace: str, mesh: dict[str, Any]) -> None:
        """Create what Istio's chart does of a mesh, as far as it is read."""
        for name, data in mesh["config_maps"].items():
            metadata = {"name": name, "namespace": namespace}
            self._plane.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, "istiod", force=True)
        for deployment in mesh["deployments"]:
            labels = deployment["metadata"]["labels"]
            template = {**deployment["spec"]["template"], "metadata": {"labels": labels}}
            spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
            body = {"apiVersion": "apps/v1", "kind": "Deployment", **deployment, "spec": spec}
            self._plane.cluster.apply(body, "istiod", force=True)

    def machine(self, host: str) -> Path:
        """Return the files of a machine; the first time, create it."""
        path = self.directory / "machines" / host
        path.mkdir(exist_ok=True)
        return path

    def name(self, name: str, host: str) -> None:
        """Give a machine another name in DNS."""
        (self.directory / "names" / name).write_text(host)

    def kill(self, host: str) -> None:
        """Have a machine accept no connection any more; istiod removes its entries."""
        self.machine(host).rename(self.directory / f"dead-{host}")
        for name, entry in self.objects().items():
            if entry["spec"]["address"] == host:
                self._plane.cluster.delete("networking.istio.io/v1", "WorkloadEntry", self.namespace, name, "Background")

    def revive(self, host: str) -> None:
        (self.directory / f"dead-{host}").rename(self.directory / "machines" / host)

    def stamp(self, host: str) -> str:
        """Return `<project> <stack> <machine>` of whoever joined a machine; "" for none."""
        stamp = self.directory / "machines" / host / "owner"
        return " ".join(stamp.read_text().split()[:3]) if stamp.exists() else ""

    def log(self) -> list[str]:
        """Return and forget what happened on machines."""
        log = self.directory / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def connections(self) -> int:
        """Return and forget how many connections there were."""
        log = self.directory / "connections"
        count = len(log.read_text().splitlines()) if log.exists() else 0
        log.unlink(missing_ok=True)
        return count

    def objects(self) -> dict[str, Any]:
        """Return the WorkloadEntries by name."""
        entries = self._plane.cluster.list("networking.istio.io/v1", "WorkloadEntry", self.namespace)
        return {entry["metadata"]["name"]: entry for entry in entries}

    def entries(self) -> dict[str, str]:
        """Return the names of the WorkloadEntries, each with its machine, or what it keeps out."""
        labels = {name: entry["metadata"]["labels"] for name, entry in self.objects().items()}
        return {
            name: f"no {each[names.QUARANTINE_LABEL]}" if names.QUARANTINE_LABEL in each else each[names.MACHINE_LABEL]
            for name, each in labels.items()
        }
