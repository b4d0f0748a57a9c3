"""Names as they arrive at Google Cloud, and its limits for them. Pure.

Sources: Google's discovery documents (`pattern`), and the API references where these give limits
in prose. pulumi-gcp appends `-` and seven hexadecimal digits to the name of a resource without an
explicit one. It permits 255 characters itself, so a longer name fails at the API only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tools.google_model import cloud
from tools.google_model.cloud import Cloud, has_unique_id
from tools.mock_engine import Node
from tools.plan import resources

SUFFIX = "-0123456"
"""What stands for the characters that pulumi-gcp appends."""
RFC_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
LABEL_KEY, LABEL_VALUE = r"[a-z][a-z0-9_-]*", r"[a-z0-9_-]*"


class Limit(NamedTuple):
    """What Google permits: a pattern of the complete text, and the shortest and longest length."""

    pattern: str
    longest: int
    shortest: int = 1


NAME = Limit(RFC_1035, 63)
TEXT = Limit(r"(?s).*", 2048, 0)

NAMES: Mapping[str, Limit] = {
    cloud.ADDRESS: NAME,
    cloud.BACKENDS: NAME,
    resources.CLUSTER: Limit(RFC_1035, 40),
    resources.FIREWALL: NAME,
    resources.FORWARDING_RULE: NAME,
    cloud.HEALTH_CHECK: NAME,
    resources.INSTANCE: NAME,
    cloud.INSTANCE_GROUP: NAME,
    cloud.MANAGER: NAME,
    cloud.NAT: NAME,
    cloud.NETWORK: NAME,
    cloud.PEERING: NAME,
    resources.NODE_POOL: Limit(RFC_1035, 40),
    resources.AUTOSCALER: NAME,
    cloud.REGION_HEALTH_CHECK: NAME,
    resources.TEMPLATE: NAME,
    cloud.ROUTER: NAME,
    cloud.SUBNETWORK: NAME,
    cloud.ZONE: NAME,
}
"""By type, the limit of the name that a resource has, given or generated."""

FIELDS: Mapping[str, Mapping[str, Limit]] = {
    cloud.ACCOUNT: {
        "accountId": Limit(RFC_1035, 30, 6),
        "displayName": Limit(TEXT.pattern, 100, 0),
        "description": Limit(TEXT.pattern, 256, 0),
    },
    # The rest of 63 characters is for `-` and the four that the group appends.
    cloud.MANAGER: {"baseInstanceName": Limit(RFC_1035, 58)},
    cloud.ROLE: {
        "roleId": Limit(r"[a-zA-Z0-9_.]*", 64, 3),
        "title": Limit(TEXT.pattern, 100, 0),
        "description": Limit(TEXT.pattern, 256, 0),
    },
    cloud.RECORD: {"name": Limit(r"(\*\.)?([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.)+", 254)},
    cloud.ZONE: {
        "dnsName": Limit(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+", 254),
        "description": Limit(TEXT.pattern, 1024, 0),
    },
    resources.FIREWALL: {"description": TEXT},
}
"""By type, the limits of other inputs."""

NAMELESS = frozenset({cloud.ACCOUNT, cloud.MEMBERSHIP, cloud.RECORD, cloud.ROLE, cloud.ROLE_MEMBER})
"""Types whose names are no names of Google's own grammar."""


def final_name(node: Node) -> str:
    """Return the name of a resource on Google Cloud: the given one, or the longest generated."""
    return str(node.inputs.get("name") or f"{node.name}{SUFFIX}")


def problems(stack: Cloud) -> list[str]:
    """Return what Google refuses of the names of a stack, one line each, sorted.

    Raises ValueError for a type whose limits this module does not have.
    """
    listed: list[str] = []
    for node in stack.on_google():
        if node.type not in NAMES and node.type not in NAMELESS:
            raise ValueError(f"the limits of names of {node.type} are missing: add them to NAMES")
        if node.type in NAMES:
            listed += _wrong(f"{node.name}: name", final_name(node), NAMES[node.type])
        for key, limit in FIELDS.get(node.type, {}).items():
            if key in node.inputs:
                listed += _wrong(f"{node.name}: {key}", str(node.inputs[key]), limit)
        for path, labels in _labels(node):
            for key, value in labels.items():
                listed += _wrong(f"{path}: key {key}", key, Limit(LABEL_KEY, 63))
                listed += _wrong(f"{path}: {key}", value, Limit(LABEL_VALUE, 63, 0))
    for node in stack.nodes.values():
        if node.type == "pulumi:providers:gcp":
            given = node.inputs.get("defaultLabels", {})
            for key, value in (json.loads(given) if isinstance(given, str) else given).items():
                listed += _wrong(f"{node.name}: label key {key}", key, Limit(LABEL_KEY, 63))
                listed += _wrong(f"{node.name}: label {key}", value, Limit(LABEL_VALUE, 63, 0))
    return sorted(listed)


def _labels(node: Node) -> Iterator[tuple[str, Mapping[str, str]]]:
    for key in ("labels", "resourceLabels", "userLabels"):
        if key in node.inputs:
            yield f"{node.name}: {key}", node.inputs[key]


def _wrong(what: str, text: str, limit: Limit) -> Iterator[str]:
    if not limit.shortest <= len(text) <= limit.longest:
        yield (f"{what} {text!r} has {len(text)} characters; Google takes {limit.shortest} to {limit.longest}")
    elif not re.fullmatch(limit.pattern, text):
        yield f"{what} {text!r} does not match {limit.pattern}"


def identities(stack: Cloud) -> dict[tuple[str, str], str]:
    """Return what only one stack of a project can have: type and given name, with the resource.

    Two stacks that share an identity cannot exist beside each other.
    """
    given = {cloud.ACCOUNT: "accountId", cloud.ROLE: "roleId"}
    listed: dict[tuple[str, str], str] = {}
    for node in stack.on_google():
        key = given.get(node.type, "name")
        if node.type == cloud.ROLE and has_unique_id(stack, node):
            continue
        if node.type != cloud.RECORD and key in node.inputs:
            listed[node.type, str(node.inputs[key])] = node.name
    return listed
