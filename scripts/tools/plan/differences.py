"""What differs between two sides and what an update does to it, where no provider computes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any

from .model import Operation
from .resources import (
    CLUSTER_CHECK,
    COMMAND,
    DEPLOYMENT,
    MESH_READING,
    NAMESPACE,
    OF_PROVIDERS,
    RELEASE,
    SECRET,
    SERVICE,
    UNKNOWN,
    WORKLOAD_GROUP,
    Resource,
    identity_keys,
    mapping,
    runs,
)

LONGEST = 120
"""Characters of a value in a difference."""
MOST_LINES = 60
"""Lines of the difference of one resource."""
_HIDDEN = ("__provider", "__defaults")
"""Inputs of Pulumi itself."""
_LOOKS = {
    CLUSTER_CHECK: ("istio", "objects", "preview"),
    MESH_READING: ("access", "preview", "wanted"),
}
"""Inputs of looks at the cluster that say what is looked for, so a change of them is none.

Source: `diff` in components/cluster_check.py and components/istio/mesh_reading.py.
"""


def operations(before: Sequence[Resource], after: Sequence[Resource]) -> tuple[Operation, ...]:
    """Return what an update does to resources, from what two sides declare.

    A resource that is only read afterwards is no longer Pulumi's, and stays. The engine deletes it
    where the resource that is read has another ID (pulumi/pulumi:
    pkg/resource/deploy/step_generator.go, `generateReadSteps`).
    """
    let_go = {(each.type, each.name, each.inputs.get("id")) for each in after if each.read}
    old = {
        (each.type, each.name): each
        for each in before
        if not each.read and (each.type, each.name, _object_id(each)) not in let_go
    }
    new = {(each.type, each.name): each for each in after if not each.read}
    moved = dict(_moved(old, new))
    changes = [
        _operation(old.get(key), new.get(key), moved.get(key[0].partition(":")[0], ""))
        for key in sorted({*old, *new}, key=lambda key: key[1])
    ]
    return tuple(change for change in changes if change)


def _object_id(resource: Resource) -> str:
    """Return the ID by which an object in Kubernetes is read."""
    metadata = mapping(resource.inputs.get("metadata"))
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


_Side = Mapping[tuple[str, str], Resource]


def _moved(before: _Side, after: _Side) -> Iterator[tuple[str, str]]:
    """Yield packages whose resources are all replaced, and the provider's input that differs."""
    for (type_, name), now in after.items():
        was, key = before.get((type_, name)), OF_PROVIDERS.get(type_, "")
        if was and key and was.inputs.get(key) != now.inputs.get(key):
            yield type_.rpartition(":")[2], key


def _operation(
    before: Resource | None, after: Resource | None, moved: str = ""
) -> Operation | None:
    """Return what an update does to a resource. moved: an input of its provider that differs."""
    resource = after or before
    assert resource is not None
    if resource.is_component:
        return None
    if before is None or after is None:
        op = "create" if before is None else removal(resource)
        return Operation(
            op=op,
            type=resource.type,
            name=resource.name,
            parent=resource.parent,
            destructive=op == "delete" and is_precious(resource),
        )
    ignored = (*after.ignored, *_LOOKS.get(after.type, ()))
    lines = list(differences(before.inputs, after.inputs, ignored))
    if not lines and not moved:
        return None
    keys = identity_keys(after.type)
    changed = tuple(dict.fromkeys(path for path, _, _ in lines))
    why = tuple(
        path
        for path, was, now in lines
        if ("*" in keys or any(_covers(key, path) for key in keys)) and not _grows(path, was, now)
    )
    why = tuple(dict.fromkeys(why))
    why += (f"provider.{moved}",) if moved else ()
    return Operation(
        op="replace" if why else "update",
        type=after.type,
        name=after.name,
        parent=after.parent,
        destructive=bool(why) and is_precious(after),
        keys=changed,
        why=why,
        diff=difference_text(lines),
    )


def _grows(path: str, before: Any, after: Any) -> bool:
    """Return whether a subnet's CIDR contains the one before, which its cloud changes in place."""
    if path != "ipCidrRange":
        return False
    try:
        return IPv4Network(after).supernet_of(IPv4Network(before))
    except (TypeError, ValueError):
        return False


def removal(resource: Resource) -> str:
    """Return the operation by which a resource is removed from its stack."""
    return "retain" if resource.retained else "delete"


def _covers(key: str, path: str) -> bool:
    return path == key or path.startswith((f"{key}.", f"{key}["))


_PRECIOUS_SCRIPTS = frozenset(
    f"platforms/docker/scripts/create_{what}.py" for what in ("cluster", "machine", "network")
)
_PRECIOUS_IN_CLOUD = frozenset(
    {
        "Address",
        "Cluster",
        "ForwardingRule",
        "Instance",
        "Network",
        "NodePool",
        "RegionInstanceGroupManager",
        "Subnetwork",
    }
)
_PRECIOUS_IN_CLUSTER = frozenset(
    {NAMESPACE, SERVICE, DEPLOYMENT, WORKLOAD_GROUP, RELEASE, "kubernetes:core/v1:ServiceAccount"}
)


def is_precious(resource: Resource) -> bool:
    """Return whether the end of a resource is one of a thing that holds state or serves requests.

    Commands that only look or join end without a trace, and so do rights and rules.
    """
    if resource.type == COMMAND:
        return any(runs(resource, script) for script in _PRECIOUS_SCRIPTS)
    of_cloud = (
        resource.type.startswith("gcp:") and resource.type.rpartition(":")[2] in _PRECIOUS_IN_CLOUD
    )
    return of_cloud or resource.type in _PRECIOUS_IN_CLUSTER


Difference = tuple[str, Any, Any]
"""A path, and its values before and after; None where there is none."""


def differences(
    before: Any, after: Any, ignored: Sequence[str] = (), path: str = ""
) -> Iterator[Difference]:
    """Yield the differences of plain values, JSON in texts opened."""
    if before == after or path.partition(".")[0] in (*_HIDDEN, *ignored):
        return
    before, after = _opened(before), _opened(after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            deeper = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key), after.get(key), ignored, deeper)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        for number in range(max(len(before), len(after))):
            was, now = (side[number] if number < len(side) else None for side in (before, after))
            yield from differences(was, now, ignored, f"{path}[{number}]")
    elif before != after:
        yield path, before, after


def _opened(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "[") and value != SECRET:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):  # other text, or nested too deeply
            return value
    return value


def difference_text(lines: Sequence[Difference]) -> str:
    """Return differences as lines `path: before -> after`, cut where they are many or long."""
    shown = [
        f"{path}: {short(before)} -> {short(after)}" for path, before, after in lines[:MOST_LINES]
    ]
    if len(lines) > MOST_LINES:
        shown.append(f"and {len(lines) - MOST_LINES} more")
    return "\n".join(shown)


def short(value: Any) -> str:
    """Return a value as one short line."""
    if value is None:
        return "(none)"
    if value == UNKNOWN:
        return "(not known yet)"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if "\n" in text.strip("\n"):
        count = len(text.strip("\n").splitlines())
        return f"({count} lines, sha256 {hashlib.sha256(text.encode()).hexdigest()[:8]})"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
