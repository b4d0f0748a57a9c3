"""Rules for names and labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ...grammar import is_label_value, is_service_name
from ...names import gateway_workload_name
from ..problems import Problem

_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)


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


def check_labels(path: str, labels: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a problem for each Kubernetes label with an invalid key or value."""
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


def check_annotations(path: str, annotations: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a problem for each annotation with an invalid key, or with one that Pulumi reads."""
    for key in annotations:
        if not _LABEL_KEY.fullmatch(key):
            yield Problem(
                f"{path}.{key}",
                "is not an annotation's key: up to 63 letters, digits, '-', '_' and '.', "
                "optionally after a domain and '/'",
            )
        elif key.startswith("pulumi.com/"):
            yield Problem(f"{path}.{key}", "is an instruction to Pulumi: leave it out")


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
