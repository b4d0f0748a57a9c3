"""What a Helm chart is, and what Helm stored of a release in the cluster.

Helm 3 stores each revision of a release in a Secret of type `helm.sh/release.v1`. Its labels are
name, version and status. Its data is the gzipped JSON of the release (helm.sh/helm/v3,
`pkg/storage/driver`). Reading it takes one request and no `helm` process.
"""

from __future__ import annotations

import base64
import gzip
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..provider import ProviderError
from .client import Cluster, Object

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def local_path(chart: str, repository: str) -> Path | None:
    """Return where the chart is on this machine, or None if `helm` has to fetch it. Raises
    `ProviderError` for a path with no chart.
    """
    path = Path(chart)
    if repository or "://" in chart:
        return None
    if path.is_file() or (path / "Chart.yaml").is_file():
        return path.resolve()
    if path.is_absolute() or chart.startswith("."):
        raise ProviderError(f"no chart at {chart!r} (directory {Path.cwd()})")
    return None


def version(path: Path) -> str:
    """Return the version of a chart, a directory or an archive. Raises `ProviderError` if it is
    none.
    """
    try:
        if path.is_file():
            with tarfile.open(path) as archive:
                member = min((name for name in archive.getnames() if name.endswith("/Chart.yaml")), key=len)
                file = archive.extractfile(member)
                text = file.read() if file else b""
        else:
            text = (path / "Chart.yaml").read_bytes()
        return str(yaml.load(text, Loader=_LOADER)["version"])  # noqa: S506
    except (OSError, ValueError, TypeError, KeyError, tarfile.TarError, yaml.YAMLError) as error:
        raise ProviderError(f"{path} is no Helm chart: {error}") from None


@dataclass(frozen=True)
class Revision:
    """One revision of a release as Helm stored it."""

    number: int
    status: str
    """deployed, superseded, failed, uninstalling, uninstalled, pending-install, pending-upgrade
    or pending-rollback.
    """
    labels: dict[str, str]
    _secret: Object

    def release(self) -> Object:
        """Return the whole release: `info`, `chart`, `config` (the values given), `manifest`.

        May hold secrets.
        """
        stored = base64.b64decode(base64.b64decode(self._secret["data"]["release"]))
        return json.loads(gzip.decompress(stored))


def revisions(cluster: Cluster, namespace: str, name: str) -> list[Revision]:
    """Return what Helm stored of a release, oldest first; empty when there is no such release."""
    revisions = []
    for secret in cluster.list("v1", "Secret", namespace, f"owner=helm,name={name}"):
        labels = secret["metadata"]["labels"]
        revisions.append(Revision(int(labels["version"]), labels["status"], labels, secret))
    return sorted(revisions, key=lambda revision: revision.number)


def manifest(release: Object) -> list[Object]:
    """Return the objects of a release."""
    return [each for each in yaml.load_all(release.get("manifest") or "", Loader=_LOADER) if isinstance(each, dict) and "kind" in each]


def resource_names(manifest: list[Object]) -> dict[str, list[str]]:
    """Their names by kind, in the official plugin's notation: `{"Deployment.apps/apps/v1":
    ["namespace/name"]}`.
    """
    names: dict[str, set[str]] = {}
    for each in manifest:
        api_version, kind, metadata = each["apiVersion"], each["kind"], each.get("metadata") or {}
        group, _, _ = api_version.rpartition("/")
        namespace = metadata.get("namespace")
        key = f"{kind}.{group}/{api_version}" if group else f"{kind}/{api_version}"
        names.setdefault(key, set()).add(f"{namespace}/{metadata.get('name')}" if namespace else str(metadata.get("name")))
    return {key: sorted(value) for key, value in sorted(names.items())}
