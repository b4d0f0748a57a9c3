"""Requests and limits of the pods that call, as the LimitRanges of their namespace admit them.

Pure, and of the standard library alone: scripts that run beside Pulumi import it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

from ..manifest import Manifest

_QUANTITY = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)")
_BINARY, _DECIMAL = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_FACTORS = {
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(_BINARY)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(_DECIMAL, start=-3)},
}
"""Factors of the suffixes of quantities (Kubernetes: apimachinery, pkg/api/resource/suffix.go)."""


def fitted(resources: Manifest, ranges: Iterable[Manifest]) -> Manifest:
    """Return the requests and limits of a container, changed as little as LimitRanges admit.

    resources: its `requests` and `limits`, with the same keys in both.
    ranges: the LimitRanges of its namespace, as the API server returns them.

    Limits of whole pods are not looked at: a sidecar has its share of them.
    Source: Kubernetes, plugin/pkg/admission/limitranger, PodValidateLimitFunc.
    """
    admitted = [each for item in ranges for each in item["spec"]["limits"] if each["type"] == "Container"]
    fit: Manifest = {"requests": {}, "limits": {}}
    for key in resources["limits"]:
        stated = {kind: str(resources[kind][key]) for kind in fit}
        least, most, ratio = ([*_of(admitted, rule, key)] for rule in ("min", "max", "maxLimitRequestRatio"))
        limit = min([_number(stated["limits"]), *most])
        request = max([min(_number(stated["requests"]), limit), *least])
        limit = max(limit, request)
        request = max([request, *(limit / each for each in ratio)])
        for kind, number in (("requests", request), ("limits", limit)):
            fit[kind][key] = stated[kind] if number == _number(stated[kind]) else _text(number, key)
    return fit


def _of(admitted: Iterable[Manifest], rule: str, key: str) -> Iterable[Decimal]:
    rules: Iterable[Mapping[str, str]] = (each.get(rule) or {} for each in admitted)
    return (_number(str(each[key])) for each in rules if key in each)


def _number(quantity: str) -> Decimal:
    match = _QUANTITY.fullmatch(quantity)
    assert match, quantity
    return Decimal(match[1]) * _FACTORS[match[2]]


def _text(number: Decimal, key: str) -> str:
    """Return a quantity: thousandths of a processor, bytes of memory."""
    return f"{math.ceil(number * 1000)}m" if key == "cpu" else str(math.ceil(number))
