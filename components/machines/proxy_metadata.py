"""A machine's ProxyConfig in short: a state holds what its metadata follows from.

Pure, and of the standard library alone: scripts that run beside Pulumi import it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..manifest import Manifest
from ..names import (
    CANONICAL_NAME_LABEL,
    CANONICAL_REVISION_LABEL,
    DEFAULT_CLUSTER_ID,
    DEFAULT_DOMAIN,
    ISTIO_NAMESPACE,
    XDS_PORT,
)

CANONICAL_LABELS = (CANONICAL_NAME_LABEL, CANONICAL_REVISION_LABEL)
"""What istioctl adds to the labels of a workload."""
_METADATA, _PROBE = "proxyMetadata", "readinessProbe"
POD_PORTS = "ISTIO_META_POD_PORTS"
"""The variable of the ports of a workload, by name."""
_LABELS, _WORKLOAD = "ISTIO_METAJSON_LABELS", "ISTIO_META_WORKLOAD_NAME"
_USUAL = {"discoveryAddress": f"istiod.{ISTIO_NAMESPACE}.svc:{XDS_PORT}"}
_USUAL_PROBE = {"failureThreshold": 3, "periodSeconds": 2, "timeoutSeconds": 1}
"""What is left out where a proxy has it. A state that was written with other values would be read wrongly."""


DRAIN_S, MAX_DRAIN_S = 5, 60
"""Seconds that an agent drains before it ends: Istio's default, and the longest of this program."""
MAX_GROUP_DRAIN_S = 14
"""The longest in an instance group: a machine that shuts down has 27 s (istio-vm-mesh-drain.service)."""


def drain_s(proxy: Manifest) -> int:
    """Return the seconds that an agent of this ProxyConfig drains when it stops.

    Longer ones than MAX_DRAIN_S are shortened. Istio takes seconds alone (the JSON of protobuf).
    """
    stated = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(proxy.get("terminationDrainDuration", "")))
    return min(math.ceil(float(stated[1])), MAX_DRAIN_S) if stated else DRAIN_S


def canonical(labels: Mapping[str, str], workload_group: str) -> tuple[str, str]:
    """Return the canonical service and revision of a workload.

    labels: the workload's labels.
    workload_group: the name of the WorkloadGroup, the service where no label names one.

    Source: istio/istio, pkg/model/labels, CanonicalService.
    """
    services = (CANONICAL_NAME_LABEL, "app.kubernetes.io/name", "app")
    revisions = (CANONICAL_REVISION_LABEL, "app.kubernetes.io/version", "version")
    return (
        next((labels[key] for key in services if key in labels), workload_group),
        next((labels[key] for key in revisions if key in labels), "latest"),
    )


def with_canonical(labels: Mapping[str, str], workload_group: str) -> dict[str, str]:
    """Return labels with those of the canonical service and its revision, sorted."""
    service, revision = canonical(labels, workload_group)
    return dict(sorted({**labels, CANONICAL_NAME_LABEL: service, CANONICAL_REVISION_LABEL: revision}.items()))


def compact_json(value: object) -> str:
    """Return a value as istioctl writes it into a variable."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def pod_ports(ports: Mapping[str, int]) -> str:
    """Return the ports of a workload, by name, as a variable of the agent has them."""
    return compact_json([{"name": name, "containerPort": port, "protocol": ""} for name, port in sorted(ports.items())])


def shortened(proxy: Manifest) -> Manifest:
    """Return a ProxyConfig with `labels` and `ports` in place of the metadata that follow from them.

    It is returned as it is where `complete` would not give it back.
    """
    metadata = dict(proxy.get(_METADATA, {}))
    labels = json.loads(metadata.pop(_LABELS, "{}"))
    ports = {port["name"]: port["containerPort"] for port in json.loads(metadata.pop(POD_PORTS, "[]"))}
    given = {key: value for key, value in labels.items() if key not in CANONICAL_LABELS}
    kept = _without(metadata, _usual_metadata(proxy, given))
    probe = _without(proxy.get(_PROBE, {}), _USUAL_PROBE)
    short = {**_without(proxy, _USUAL), _METADATA: kept, _PROBE: probe, "labels": given, **({"ports": ports} if ports else {})}
    return short if complete(short) == proxy else proxy


def complete(short: Manifest) -> Manifest:
    """Return the ProxyConfig that `shortened` made short."""
    if "labels" not in short:
        return short
    metadata = {**_usual_metadata(short, short["labels"]), **short[_METADATA]}
    metadata[_LABELS] = compact_json(with_canonical(short["labels"], metadata.get(_WORKLOAD, "")))
    if "ports" in short:
        metadata[POD_PORTS] = pod_ports(short["ports"])
    proxy = {key: value for key, value in short.items() if key not in ("labels", "ports")}
    return {**_USUAL, **proxy, _METADATA: metadata, _PROBE: {**_USUAL_PROBE, **short[_PROBE]}}


def _without(values: Manifest, usual: Mapping[str, Any]) -> Manifest:
    return {key: value for key, value in values.items() if key not in usual or usual[key] != value}


def _usual_metadata(proxy: Manifest, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata that most machines have, by their labels and the name of their workload."""
    workload = proxy.get(_METADATA, {}).get(_WORKLOAD, "")
    service, revision = canonical(labels, workload)
    return {
        "CANONICAL_SERVICE": service,
        "CANONICAL_REVISION": revision,
        "SERVICE_ACCOUNT": workload,
        "TRUST_DOMAIN": DEFAULT_DOMAIN,
        "ISTIO_META_CLUSTER_ID": DEFAULT_CLUSTER_ID,
        "ISTIO_META_MESH_ID": proxy.get("meshId", ""),
        "ISTIO_META_DNS_CAPTURE": "true",
        "ISTIO_META_AUTO_REGISTER_GROUP": workload,
    }
