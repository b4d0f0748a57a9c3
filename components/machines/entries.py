"""WorkloadEntries of machines: whose they are, how they are, and those that keep a machine out.

istiod makes a machine's entry when its agent connects, with the labels by which a registration of
this program is recognised. An entry is deleted only by that label.

A machine that did not leave could come back by itself: its agent registers whenever its stream to
istiod is renewed. So an entry of this program takes the place of the machine's own, under its name
and with a service account that none can have. istiod compares accounts before it accepts a stream
and refuses the agent then (istio/istio: pilot/pkg/autoregistration/controller.go,
`ensureProxyCanControlEntry`). No Service selects the entry, because its only label is this
program's. It belongs to the WorkloadGroup: Kubernetes deletes it with that object, without which
istiod refuses the agent too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import names
from ..local import scripting
from ..local.cluster_access import FROM_STDIN, Kubectl
from ..manifest import Manifest
from .bundle import Owner

KIND = "workloadentries.v1.networking.istio.io"
"""With its version: without one, kubectl reads the list of all API groups again at each call."""
REQUEST_TIMEOUT = "--request-timeout=20s"
TIMEOUT_S = 30
"""Seconds for one call of kubectl."""
ATTEMPTS = 5
"""How often an entry is replaced that its machine's agent creates again."""


@dataclass(frozen=True)
class Entry:
    """A WorkloadEntry.

    name: its name.
    registration: the registration that its label names; "".
    connected: whether an agent is connected by it.
    healthy: whether its probe succeeds; None before the first result.
    quarantine: the machine that it keeps out; "".
    message: why its probe fails.
    """

    name: str
    registration: str = ""
    connected: bool = False
    healthy: bool | None = None
    quarantine: str = ""
    message: str = ""

    def is_joined(self, registration: str) -> bool:
        """Return whether the machine of a registration is connected by this entry."""
        return self.connected and self.registration == registration


def parse(item: Manifest) -> Entry:
    """Return an entry from its object in Kubernetes."""
    metadata = item["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    conditions = (item.get("status") or {}).get("conditions") or ()
    healthy = next((each for each in conditions if each["type"] == "Healthy"), None)
    return Entry(
        name=metadata["name"],
        registration=labels.get(names.REGISTRATION_LABEL, ""),
        connected=names.CONNECTED_ANNOTATION in annotations and names.DISCONNECTED_ANNOTATION not in annotations,
        healthy=healthy["status"] == "True" if healthy else None,
        quarantine=labels.get(names.QUARANTINE_LABEL, ""),
        message=(healthy or {}).get("message", "").strip(),
    )


def reference(namespace: str, name: str) -> Manifest:
    """Return what an entry is read by (`cluster_access.read_objects`)."""
    return {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": {"namespace": namespace, "name": name}}


def read_all(kubectl: Kubectl, namespace: str) -> dict[str, Entry]:
    """Return the entries of a namespace by name. Raises scripting.Failed."""
    items = _get(kubectl, namespace, KIND)["items"]
    return {item["metadata"]["name"]: parse(item) for item in items}


def read(kubectl: Kubectl, namespace: str, name: str) -> Entry | None:
    """Return one entry, or None. Raises scripting.Failed."""
    item = _get(kubectl, namespace, KIND, name, "--ignore-not-found")
    return parse(item) if item else None


def serving(kubectl: Kubectl, namespace: str, workload: str) -> list[str]:
    """Return the names of a workload's entries that requests go to. Raises scripting.Failed."""
    items = _get(kubectl, namespace, KIND)["items"]
    of_workload = [item for item in items if (item["metadata"].get("annotations") or {}).get(names.GROUP_ANNOTATION) == workload]
    return [entry.name for entry in map(parse, of_workload) if entry.connected and entry.healthy]


def delete_registered(kubectl: Kubectl, namespace: str, registration: str) -> bool:
    """Delete the entries of a registration, and return whether there were any.

    Raises scripting.Failed.
    """
    selector = ("--selector", f"{names.REGISTRATION_LABEL}={registration}")
    return bool(_call(kubectl, "delete", KIND, *selector, "--namespace", namespace, *_NAMES).text)


_NAMES = ("--ignore-not-found", "--output", "name")


@dataclass(frozen=True)
class Quarantine:
    """A machine that is kept out of every Service.

    owner: its registration.
    entry: the name of its WorkloadEntry.
    address: its address.
    reason: why it did not leave, for `status`.
    """

    owner: Owner
    entry: str
    address: str
    reason: str

    def manifest(self, workload_group: Manifest) -> Manifest:
        """Return the entry, which goes with the WorkloadGroup, an object of Kubernetes."""
        owner, metadata = self.owner, workload_group["metadata"]
        label = {names.QUARANTINE_LABEL: owner.machine}
        return {
            "apiVersion": workload_group["apiVersion"],
            "kind": "WorkloadEntry",
            "metadata": {
                "name": self.entry,
                "namespace": owner.namespace,
                "labels": {
                    **label,
                    names.MANAGED_BY_LABEL: names.PROJECT,
                    names.STACK_LABEL: names.stack_label(owner.project, owner.stack),
                },
                "annotations": {
                    names.STACK_ANNOTATION: f"{owner.project}/{owner.stack}",
                    names.REASON_ANNOTATION: self.reason,
                },
                "ownerReferences": [
                    {
                        "apiVersion": workload_group["apiVersion"],
                        "kind": workload_group["kind"],
                        "name": metadata["name"],
                        "uid": metadata["uid"],
                    }
                ],
            },
            "spec": {
                "address": self.address,
                "labels": label,
                "serviceAccount": names.QUARANTINE_ACCOUNT,
            },
        }


def quarantine(kubectl: Kubectl, machine: Quarantine) -> str:
    """Keep a machine out of every Service, and return what does so, as a clause.

    Nothing changes where the entry of its name is of another registration.
    Raises scripting.Failed.
    """
    owner = machine.owner
    workload_group = _get(
        kubectl,
        owner.namespace,
        "workloadgroups.v1.networking.istio.io",
        owner.workload,
        "--ignore-not-found",
    )
    if not workload_group:
        # Kubernetes deletes an entry with its WorkloadGroup, unless that was deleted without it.
        delete_registered(kubectl, owner.namespace, owner.registration)
        return f"istiod refuses its agent, because the WorkloadGroup {owner.workload} is gone"
    text = json.dumps(machine.manifest(workload_group)).encode()
    name = f"WorkloadEntry {owner.namespace}/{machine.entry}"
    for _ in range(ATTEMPTS):
        delete_registered(kubectl, owner.namespace, owner.registration)
        created = kubectl.call(REQUEST_TIMEOUT, "create", *FROM_STDIN, stdin=text, timeout_s=TIMEOUT_S)
        if created.status == 0:
            return f"the {name} keeps its agent out of the mesh"
        present = read(kubectl, owner.namespace, machine.entry)
        if present and present.quarantine:
            return f"the {name} keeps its agent out of the mesh already"
        if present and present.registration != owner.registration:
            return f"the {name} is of another registration, and was not changed"
    raise scripting.Failed(f"{name} was not replaced: {scripting.last_words(created.error)}")


def settle(kubectl: Kubectl, namespace: str, machine: str, address: str) -> None:
    """Delete what keeps out a machine that has joined by another entry, as another workload's.

    namespace, machine, address: those under which it was kept out. Raises scripting.Failed.
    """
    items = _get(kubectl, namespace, KIND, "--selector", f"{names.QUARANTINE_LABEL}={machine}")["items"]
    settled = [item["metadata"]["name"] for item in items if item.get("spec", {}).get("address") == address]
    if settled:
        _call(kubectl, "delete", KIND, *settled, "--namespace", namespace, *_NAMES)


@contextmanager
def lifted(kubectl: Kubectl, owner: Owner, entry: str) -> Iterator[None]:
    """Remove what keeps a machine out, while it joins, and put it back where the join fails.

    owner: the registration that joins. entry: the name of the machine's WorkloadEntry.
    Raises scripting.Failed.
    """
    item = _get(kubectl, owner.namespace, KIND, entry, "--ignore-not-found")
    if not item or not parse(item).quarantine:
        yield
        return
    _call(kubectl, "delete", KIND, entry, "--namespace", owner.namespace, *_NAMES)
    try:
        yield
    except BaseException:
        try:
            _put_back(kubectl, item, owner)
        except scripting.Failed as error:
            print(str(error), file=sys.stderr, flush=True)
        raise


def _put_back(kubectl: Kubectl, item: Manifest, owner: Owner) -> None:
    """Keep a machine out again. Its agent may have registered meanwhile: that entry goes.

    The entry of the registration that joined stays. Raises scripting.Failed.
    """
    name = item["metadata"]["name"]
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    metadata = {key: item["metadata"][key] for key in kept if key in item["metadata"]}
    text = json.dumps({**item, "metadata": metadata}).encode()
    reason = ""
    for _ in range(ATTEMPTS):
        created = kubectl.call(REQUEST_TIMEOUT, "create", *FROM_STDIN, stdin=text, timeout_s=TIMEOUT_S)
        if created.status == 0:
            return
        reason = scripting.last_words(created.error)
        try:
            present = read(kubectl, owner.namespace, name)
            if present and (present.quarantine or present.registration == owner.registration):
                return
            if present and present.registration:
                delete_registered(kubectl, owner.namespace, present.registration)
        except scripting.Failed:
            break
    raise scripting.Failed(
        f"the WorkloadEntry {owner.namespace}/{name} could not be restored ({reason}). The agent that "
        "it kept out of the mesh may get requests: run the update again, or stop the agent"
    )


def _get(kubectl: Kubectl, namespace: str, *words: str) -> Any:
    done = _call(kubectl, "get", *words, "--namespace", namespace, "--output", "json")
    return json.loads(done.text) if done.text else None


def _call(kubectl: Kubectl, *words: str) -> scripting.Done:
    done = kubectl.call(REQUEST_TIMEOUT, *words, timeout_s=TIMEOUT_S)
    if done.status == scripting.TIMED_OUT:
        raise scripting.Failed(f"kubectl {words[0]} {words[1]} did not end within {TIMEOUT_S} s")
    if done.status:
        reason = scripting.last_words(done.error) or f"exit status {done.status}"
        raise scripting.Failed(f"kubectl {words[0]} {words[1]} failed: {reason}")
    return done
