"""The provider: its settings, and which resources there are."""

from __future__ import annotations

import json
from typing import Any

from ..provider import (
    Checked,
    Created,
    Difference,
    Failure,
    Found,
    Properties,
    Provider,
    ProviderError,
    Request,
    differences,
    has_unknown,
    plain,
)
from . import objects, wait
from .client import Cluster
from .kubeconfig import Kubeconfig, parse
from .release import Releases
from .resources import Options, Resources

RELEASE = "kubernetes:helm.sh/v3:Release"
_SETTINGS = frozenset(
    {
        *("kubeconfig", "context", "cluster", "namespace", "clusterIdentifier"),
        *("enableConfigMapMutable", "enableSecretMutable", "enablePatchForce", "upsertExistingObjects"),
    }
)
# Settings whose given value is what is done anyway.
_HARMLESS = {"enableServerSideApply": "true", "deleteUnreachable": "false", "skipUpdateUnreachable": "false"}
_NOT_OBJECTS = ("helm.sh/", "kustomize/", "yaml", "index")
# Kinds for which the official plugin waits, or replaces, by rules that are not implemented here.
_OTHER_KINDS = frozenset(
    {
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "StatefulSet"),
        ("networking.k8s.io/v1", "Ingress"),
        ("storage.k8s.io/v1", "StorageClass"),
        *(("v1", kind) for kind in ("PersistentVolume", "PersistentVolumeClaim", "Pod", "ReplicationController", "ResourceQuota")),
    }
)


class Kubernetes(Provider):
    """pulumi-kubernetes, for the resources that `supports` admits. `settle`: see `wait.SETTLE`."""

    name, version = "kubernetes", "4.32.0"

    def __init__(self, settle: float = wait.SETTLE) -> None:
        self._settle = settle
        self._resources: Resources
        self._releases: Releases

    def supports(self, type: str) -> bool:
        if type == RELEASE:
            return True
        api_version, kind = objects.type_of(type)
        return not (api_version.startswith(_NOT_OBJECTS) or kind.endswith(("List", "Patch")) or (api_version, kind) in _OTHER_KINDS)

    def check_config(self, request: Request) -> Checked:
        unused = {key for key, value in request.inputs.items() if value not in (None, "", _HARMLESS.get(key))}
        others = sorted(unused - _SETTINGS - {"version"})
        failures = [Failure(key, str(self.refusal(f"the provider setting {key!r}"))) for key in others]
        if not request.inputs.get("kubeconfig"):
            failures.append(Failure("kubeconfig", str(self.refusal("a provider without `kubeconfig`"))))
        return Checked(request.inputs, failures)

    def diff_config(self, request: Request) -> Difference:
        """Return the difference. A changed identifier is another cluster. While it is the same
        nothing is replaced; without it, another server is another cluster.
        """
        old, new = request.old_inputs, request.inputs
        changes = differences(old, new)
        before, after = (plain(each.get("clusterIdentifier")) for each in (old, new))
        replaces = {"clusterIdentifier"} if before and after and before != after else set()
        if not (before and after):
            where = {key: kind for key, kind in changes.items() if key in ("kubeconfig", "context", "cluster")}
            if where and (has_unknown([new.get(key) for key in where]) or _server(old) != _server(new)):
                replaces |= set(where)
        return Difference(changes, frozenset(replaces))

    def configure(self, settings: Properties) -> None:
        settings = plain(settings)
        config = _kubeconfig(settings)
        cluster, namespace = Cluster(config), settings.get("namespace") or config.namespace or "default"
        options = Options(
            mutable=frozenset(kind for kind in ("ConfigMap", "Secret") if _truth(settings.get(f"enable{kind}Mutable"))),
            upsert=_truth(settings.get("upsertExistingObjects")),
            force=_truth(settings.get("enablePatchForce")),
            settle=self._settle,
        )
        self._resources = Resources(cluster, namespace, self.refusal, options)
        self._releases = Releases(cluster, config, namespace, self.refusal)

    def check(self, request: Request) -> Checked:
        return self._of(request).check(request)

    def diff(self, request: Request) -> Difference:
        return self._of(request).diff(request)

    def create(self, request: Request) -> Created:
        return self._of(request).create(request)

    def update(self, request: Request) -> Properties:
        return self._of(request).update(request)

    def read(self, request: Request) -> Found | None:
        return self._of(request).read(request)

    def delete(self, request: Request) -> None:
        self._of(request).delete(request)

    def _of(self, request: Request) -> Releases | Resources:
        return self._releases if request.type == RELEASE else self._resources


def _truth(value: Any) -> bool:
    return value is True or value == "true"


def _kubeconfig(settings: Properties, *, log_in: bool = True) -> Kubeconfig:
    text = settings.get("kubeconfig") or ""
    if isinstance(text, dict):
        text = json.dumps(text)
    return parse(text, settings.get("context") or "", settings.get("cluster") or "", log_in=log_in)


def _server(settings: Properties) -> tuple[str, str]:
    """The cluster that settings point to, as far as it can be told."""
    try:
        config = _kubeconfig(plain(settings), log_in=False)
    except ProviderError:
        return "", ""
    return config.server, config.certificate_authority
