"""Whose an object in a cluster is. Every object of this program names its stack in a label."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from .local import scripting
from .local.cluster_access import Kubectl
from .manifest import Manifest
from .names import MANAGED_BY_LABEL, PROJECT, STACK_LABEL

_SHOWN = 20
"""How many objects a message names."""


@dataclasses.dataclass(frozen=True, order=True)
class ObjectName:
    """What one object of a cluster is called.

    group: the API group; "" for Kubernetes' first one. kind: the kind.
    namespace: "" for what is in none. name: the name.
    """

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"{self.kind} {self.place}"

    @property
    def place(self) -> str:
        """Its namespace and name."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def name_of(item: Manifest) -> ObjectName:
    """Return the name of an object as kubectl prints it."""
    metadata = item["metadata"]
    group = item["apiVersion"].rpartition("/")[0]
    return ObjectName(group, item["kind"], metadata.get("namespace", ""), metadata["name"])


def labels_of(item: Manifest) -> Mapping[str, str]:
    """Return an object's labels."""
    labels: Mapping[str, str] = item["metadata"].get("labels") or {}
    return labels


def is_of(item: Manifest, stack: str) -> bool:
    """Return whether an object is of a stack, given as the label has it."""
    labels = labels_of(item)
    return labels.get(MANAGED_BY_LABEL) == PROJECT and labels.get(STACK_LABEL) == stack


def refuse_others(program: Kubectl, objects: Iterable[ObjectName], stack: str) -> None:
    """Look whether the cluster has objects of these names that are not of this stack.

    objects: what the stack creates. stack: the stack as the label has it.
    One request lists the objects of a namespace. Raises scripting.Failed, which names the objects
    and the ways out, and where the cluster refuses to list them.
    """
    others = sorted(_others(program, set(objects), stack), key=lambda pair: pair[0])
    if not others:
        return
    lines = [f"{name} ({_owner(labels)})" for name, labels in others[:_SHOWN]]
    lines += [f"and {len(others) - _SHOWN} more"] if len(others) > _SHOWN else []
    commands = [_label_command(name, stack) for name, _ in others[:_SHOWN]]
    raise scripting.Failed(
        "the cluster has objects that this stack would create, and they are not of this stack: "
        + ", ".join(lines)
        + ". Nothing was changed. Choose other names in the stack file (a namespace that exists "
        "belongs in `cluster.namespaces`), or remove the objects. Or hand them over: this stack "
        "then changes them, and deletes them when it no longer declares them:\n  " + "\n  ".join(commands)
    )


def served_kinds(program: Kubectl, *options: str) -> dict[tuple[str, str], str]:
    """Return what kubectl calls each kind that the cluster has, by API group and kind.

    options: of `kubectl api-resources`. Raises scripting.Failed where the cluster does not answer.
    """
    done = program.call("--request-timeout=30s", "api-resources", "--no-headers", *options, timeout_s=90)
    kinds: dict[tuple[str, str], str] = {}
    for line in done.text.splitlines():
        # The second of five columns, short names, may be empty.
        words = line.split()
        version, kind, group = words[-3], words[-1], words[-3].rpartition("/")[0]
        kinds[group, kind] = f"{words[0]}.{version.rpartition('/')[2]}.{group}" if group else words[0]
    # An aggregated API that does not answer makes kubectl fail after the others are printed.
    if not kinds and done.status:
        raise scripting.Failed(f"the cluster does not tell its kinds: {scripting.last_words(done.error)}")
    return kinds


def list_objects(program: Kubectl, kinds: Sequence[str], namespace: str) -> list[Manifest]:
    """Return all objects of some kinds in a namespace, or in none ("").

    Raises scripting.Failed where the cluster refuses.
    """
    place = ["--namespace", namespace] if namespace else []
    words = ["--request-timeout=60s", "get", ",".join(kinds), *place, "--output", "json"]
    where = f"in the namespace {namespace}" if namespace else "of the cluster"
    purpose = f"the objects {where} cannot be listed, so it is not certain whose they are"
    items: list[Manifest] = json.loads(program.check(*words, purpose=purpose, timeout_s=180).text)["items"]
    return items


def _others(program: Kubectl, objects: set[ObjectName], stack: str) -> Iterator[tuple[ObjectName, Mapping[str, str]]]:
    kinds = served_kinds(program)
    wanted: dict[str, set[str]] = {}
    for name in objects:
        # There is no object of a kind that the cluster does not have yet.
        if (name.group, name.kind) in kinds:
            wanted.setdefault(name.namespace, set()).add(kinds[name.group, name.kind])
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(list_objects, program, sorted(words), namespace) for namespace, words in sorted(wanted.items())]
        for item in (item for answer in answers for item in answer.result()):
            if name_of(item) in objects and not is_of(item, stack):
                yield name_of(item), labels_of(item)


def _owner(labels: Mapping[str, str]) -> str:
    if labels.get(STACK_LABEL):
        return f"of the stack {labels[STACK_LABEL]}"
    if labels.get(MANAGED_BY_LABEL):
        return f"managed by {labels[MANAGED_BY_LABEL]}"
    return "without a label of this program"


def _label_command(name: ObjectName, stack: str) -> str:
    resource = f"{name.kind}.{name.group}".rstrip(".").lower()
    place = ["--namespace", name.namespace] if name.namespace else []
    labels = [f"{MANAGED_BY_LABEL}={PROJECT}", f"{STACK_LABEL}={stack}"]
    return shlex.join(["kubectl", *place, "label", "--overwrite", resource, name.name, *labels])
