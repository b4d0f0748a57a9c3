"""Whose an object in a cluster is. Every object of this program names its stack in a label."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from .local import scripting
from .local.cluster_access import Kubectl
from .manifest import Manifest
from .names import MANAGED_BY_LABEL, PROJECT, STACK_LABEL

RELEASE = ("helm.sh", "Release")
"""Group and kind by which an `ObjectName` names a release of Helm, which is no object itself."""
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

    @property
    def is_release(self) -> bool:
        """Whether it names a release of Helm."""
        return (self.group, self.kind) == RELEASE

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


def refuse_releases(program: Kubectl, releases: Iterable[ObjectName]) -> None:
    """Look whether the cluster has releases of Helm that a stack is about to install.

    releases: those that the stack has not declared before; their group and kind are not read.
    Helm itself installs no release whose name is in use. It refuses in the middle of an update.
    It keeps each revision of a release as a Secret or a ConfigMap with the labels `owner` and
    `name` (helm/helm: pkg/storage/driver). One request lists those of a namespace.
    Raises scripting.Failed, which names the releases and the ways out, and where the cluster
    refuses to list them.
    """
    wanted: dict[str, set[str]] = {}
    for release in releases:
        wanted.setdefault(release.namespace, set()).add(release.name)
    present = []
    for namespace, names in sorted(wanted.items()):
        selector = f"owner=helm,name in ({','.join(sorted(names))})"
        items = list_objects(program, ["secrets", "configmaps"], namespace, selector)
        present += [(namespace, name) for name in sorted({labels_of(item)["name"] for item in items})]
    if not present:
        return
    commands = [shlex.join(["helm", "uninstall", name, "--namespace", namespace]) for namespace, name in present]
    raise scripting.Failed(
        "the cluster has Helm releases that this stack would install, and has not installed: "
        + ", ".join(f"{namespace}/{name}" for namespace, name in present)
        + ". Nothing was changed. Leave them to their owner: set `mesh.adopt: true` for a mesh that "
        "exists, and `cluster.gateway.install: false` for its gateway. Or remove them, which also "
        "removes what they installed:\n  " + "\n  ".join(commands)
    )


def served_kinds(program: Kubectl, *options: str, groups: Collection[str] | None = None) -> dict[tuple[str, str], str]:
    """Return what kubectl calls each kind that the cluster has, by API group and kind.

    options: of `kubectl api-resources`.
    groups: the API groups that must be complete; None: all.

    Raises scripting.Failed where the cluster does not answer, or does not list one of the groups.
    """
    kinds = _listed_kinds(program, options, groups)
    listed = {group for group, _ in kinds}
    if groups is None or not listed.issuperset(groups):
        _require_answers(program, groups)
    return kinds


def _listed_kinds(program: Kubectl, options: Sequence[str], groups: Collection[str] | None) -> dict[tuple[str, str], str]:
    done = program.call("--request-timeout=30s", "api-resources", "--no-headers", *options, timeout_s=90)
    if done.status:
        _require_others_alone(done, groups)
    kinds: dict[tuple[str, str], str] = {}
    for line in done.text.splitlines():
        # The second of five columns, short names, may be empty.
        words = line.split()
        version, kind, group = words[-3], words[-1], words[-3].rpartition("/")[0]
        kinds[group, kind] = f"{words[0]}.{version.rpartition('/')[2]}.{group}" if group else words[0]
    return kinds


# "unable to retrieve the complete list of server APIs: metrics.k8s.io/v1beta1: <reason>, ..."
# (kubernetes/client-go: discovery, ErrGroupDiscoveryFailed). Kinds of other groups are printed.
_INCOMPLETE = re.compile(r"complete list of server APIs: (?P<groups>.+)")
_GROUP = re.compile(r"(?:^|, )(?:(?P<group>[a-z0-9.-]+)/)?v[0-9][a-z0-9]*: ")


def _require_others_alone(failed: scripting.Done, groups: Collection[str] | None) -> None:
    """Raise scripting.Failed unless only other API groups did not answer kubectl."""
    match = _INCOMPLETE.search(failed.error)
    silent = {each["group"] or "" for each in _GROUP.finditer(match["groups"])} if match else set()
    if not silent or groups is None or silent & {*groups}:
        raise _unlisted(scripting.last_words(failed.error))


def _require_answers(program: Kubectl, groups: Collection[str] | None) -> None:
    """Raise scripting.Failed where an API group of the cluster lists no kind and does not answer.

    kubectl leaves an aggregated API out without a word whose server never answered.
    """
    purpose = "the API groups of the cluster cannot be listed"
    there = json.loads(program.check("--request-timeout=30s", "get", "--raw", "/apis", purpose=purpose, timeout_s=90).text)
    answering = {group for group, _ in _listed_kinds(program, (), groups)}
    for group in there["groups"]:
        if group["name"] in answering or not (groups is None or group["name"] in groups):
            continue
        version = group["preferredVersion"]["groupVersion"]
        asked = program.call("--request-timeout=30s", "get", "--raw", f"/apis/{version}", timeout_s=90)
        if asked.status:
            raise _unlisted(f"{version}: {scripting.last_words(asked.error)}")


def _unlisted(reason: str) -> scripting.Failed:
    return scripting.Failed(
        f"the cluster does not list all kinds that it has: {reason}. An API that does not answer is in "
        "`kubectl get apiservices`: repair or remove it"
    )


def list_objects(program: Kubectl, kinds: Sequence[str], namespace: str, selector: str = "") -> list[Manifest]:
    """Return all objects of some kinds in a namespace, or in none ("").

    selector: of their labels; "": all objects. Raises scripting.Failed where the cluster refuses.
    """
    place = ["--namespace", namespace] if namespace else []
    place += ["--selector", selector] if selector else []
    words = ["--request-timeout=60s", "get", ",".join(kinds), *place, "--output", "json"]
    where = f"in the namespace {namespace}" if namespace else "of the cluster"
    purpose = f"the objects {where} cannot be listed, so it is not certain whose they are"
    items: list[Manifest] = json.loads(program.check(*words, purpose=purpose, timeout_s=180).text)["items"]
    return items


def _others(program: Kubectl, objects: set[ObjectName], stack: str) -> Iterator[tuple[ObjectName, Mapping[str, str]]]:
    kinds = served_kinds(program, groups={name.group for name in objects})
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
