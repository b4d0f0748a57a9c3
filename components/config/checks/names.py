"""Rules for names and labels."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from ...grammar import is_label_value, is_service_name
from ...names import (
    AMBIENT_LABEL,
    CANONICAL_NAME_LABEL,
    CANONICAL_REVISION_LABEL,
    INJECT_LABEL,
    LOCALITY_LABEL,
    NETWORK_LABEL,
    PROJECT,
    REVISION_LABEL,
    WORKLOAD_NAME_LABEL,
    gateway_workload_name,
)
from ..problems import Problem

_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)

_RESERVED_DOMAINS = ("istio.io", "gateway.networking.k8s.io", PROJECT)
"""Istio and this program read keys of these domains, and of those below them."""
# Istio's keys that a stack may state, by the objects that have them (istio/api:
# label/labels.gen.go and annotation/annotations.gen.go). The others are of other objects, of
# ambient mode, or set by Istio itself.
LABELS_OF_WORKLOADS = frozenset(
    {CANONICAL_NAME_LABEL, CANONICAL_REVISION_LABEL, WORKLOAD_NAME_LABEL}
)
ANNOTATIONS_OF_NAMESPACES = frozenset(
    {"galley.istio.io/analyze-suppress", "networking.istio.io/traffic-distribution"}
)
ANNOTATIONS_OF_SERVICES = ANNOTATIONS_OF_NAMESPACES | {
    "alpha.istio.io/canonical-serviceaccounts",
    "alpha.istio.io/kubernetes-serviceaccounts",
    "networking.istio.io/exportTo",
}
_AMBIENT = "is of ambient mode, and machines are sidecars: leave it out"
_LOCALITY_ELSEWHERE = "follows from the stack: set `locality` instead"
# istiod leaves out a WorkloadEntry with the label of another revision (istio/istio:
# pkg/config/model.go, ObjectInRevision). Its controllers place a machine by the other labels.
_REASONS = {
    REVISION_LABEL: "follows from the mesh: leave it out",
    INJECT_LABEL: "pods of this program always have a sidecar, and machines are one: leave it out",
    AMBIENT_LABEL: _AMBIENT,
    "istio.io/use-waypoint": _AMBIENT,
    "istio.io/ingress-use-waypoint": _AMBIENT,
    NETWORK_LABEL: "follows from the stack: leave it out",
    LOCALITY_LABEL: _LOCALITY_ELSEWHERE,
    "topology.istio.io/locality": _LOCALITY_ELSEWHERE,
}

_PLACE = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LOCALITY = re.compile(rf"{_PLACE}(/{_PLACE}){{1,2}}")


def check_locality(path: str, locality: str | None) -> Iterator[Problem]:
    """Yield a problem for a locality that is not a region with a zone, as Istio has them."""
    if locality is not None and not _LOCALITY.fullmatch(locality):
        yield Problem(
            f"{path}.locality",
            f"expected `region/zone` or `region/zone/subzone`; got {locality!r}",
        )


def check_names(path: str, names: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for each name of a map that is not a DNS label beginning with a letter."""
    for name in names:
        if not is_service_name(name):
            yield Problem(
                f"{path}.{name}",
                "is not a DNS label: use up to 63 lower-case letters, digits and '-', "
                "a letter first",
            )


def check_labels(
    path: str, labels: Mapping[str, str], of_istio: Collection[str] = ()
) -> Iterator[Problem]:
    """Yield a problem for each Kubernetes label with an invalid key or value, or a reserved key.

    of_istio: Istio's keys that the object may have.
    """
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            yield Problem(
                f"{path}.{key}",
                "is not a label key: up to 63 letters, digits, '-', '_' and '.', "
                "optionally after a domain and '/'",
            )
        if not is_label_value(value):
            yield Problem(
                f"{path}.{key}",
                f"{value!r} is not a label value: up to 63 letters, digits, '-', '_' and '.'",
            )
        if key in _REASONS:
            yield Problem(f"{path}.{key}", _REASONS[key])
        else:
            yield from _check_domain(f"{path}.{key}", key, of_istio)


def check_annotations(
    path: str, annotations: Mapping[str, str], of_istio: Collection[str]
) -> Iterator[Problem]:
    """Yield a problem for each annotation with an invalid key, or with a reserved one.

    of_istio: Istio's keys that the object may have.
    """
    for key in annotations:
        if not _LABEL_KEY.fullmatch(key):
            yield Problem(
                f"{path}.{key}",
                "is not an annotation's key: up to 63 letters, digits, '-', '_' and '.', "
                "optionally after a domain and '/'",
            )
        elif key.startswith("pulumi.com/"):
            yield Problem(f"{path}.{key}", "is an instruction to Pulumi: leave it out")
        else:
            yield from _check_domain(f"{path}.{key}", key, of_istio)


def _check_domain(path: str, key: str, of_istio: Collection[str]) -> Iterator[Problem]:
    domain = key.rpartition("/")[0]
    is_reserved = any(f".{domain}".endswith(f".{each}") for each in _RESERVED_DOMAINS)
    if not is_reserved or key in of_istio:
        return
    if f".{domain}".endswith(f".{PROJECT}"):
        yield Problem(path, "follows from the stack: leave it out")
        return
    allowed = ", ".join(sorted(of_istio))
    others = f"; of Istio's keys, only {allowed} can be stated here" if allowed else ""
    yield Problem(path, f"is set by Istio, or read of other objects: leave it out{others}")


_GOOGLE_LIMIT, _GOOGLE_SUFFIX = 63, 8
"""Characters of a name on Google Cloud, and those that Pulumi appends to a resource's own name."""


def longest_of_workload(vpc: str, workload: str) -> str:
    """Return the longest name of a resource that has the names of a VPC and a workload.

    This and the next two follow `components/platforms/google/names.py`, which this layer cannot
    import; tests/preview/test_google_names.py compares them.
    """
    return f"firewall-{vpc}-{workload}-health"


def longest_of_gateway(network: str) -> str:
    """Return the longest name of a resource that has the name of a network with a gateway."""
    return f"{gateway_workload_name(network)}-balancer-instances-a"


def longest_of_group(group: str) -> str:
    """Return the longest name of a resource that has the name of an instance group."""
    return f"{group}-autoscaler"


def check_google_name(path: str, name: str) -> Iterator[Problem]:
    """Yield a problem for a resource whose name is too long for Google Cloud."""
    if (excess := len(name) + _GOOGLE_SUFFIX - _GOOGLE_LIMIT) > 0:
        yield Problem(
            path,
            f"a resource on Google Cloud would be {name!r} and {_GOOGLE_SUFFIX} characters that "
            f"Pulumi appends; the limit is {_GOOGLE_LIMIT}: shorten a name in it by {excess}",
        )
