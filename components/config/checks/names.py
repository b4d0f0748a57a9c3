"""Rules for names and labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ...grammar import is_label_value, is_service_name
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
