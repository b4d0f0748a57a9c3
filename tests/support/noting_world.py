"""Providers that note what an update does, and what becomes of machines by it.

A machine compares itself with what a join delivers as join.sh does. It compares the digest, the
registered part and the identity of its last join. Nothing of `tools.plan` is used here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import components.platforms.google.names
from components import names
from components.local import scripting
from components.machines.bundle import Bundle, join_variables, with_root_certificate
from components.machines.files import configuration_files
from components.machines.registration import RegistrationProvider
from components.platforms.docker.names import CONTAINER
from tests.support import fake_providers, harness
from tools.standins.provider import Created, Difference, Properties, Request, differences

CLUSTER = "gcp:container/cluster:Cluster"
INSTANCE = "gcp:compute/instance:Instance"
TEMPLATE = "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate"
MANAGER = "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager"
RECREATED_BY = {
    INSTANCE: ("bootDisk.initializeParams.image", "bootDisk.initializeParams.type", "zone", "name"),
    TEMPLATE: ("",),
    "gcp:dns/managedZone:ManagedZone": ("name", "dnsName", "visibility"),
    "gcp:dns/recordSet:RecordSet": ("name", "managedZone"),
}
"""Inputs of which a change replaces a resource on Google Cloud (provider schema: forceNew)."""
STOPPED_BY = ("machineType", "serviceAccount", "shieldedInstanceConfig")
"""Inputs of an instance of which a change stops it (`allowStoppingForUpdate`)."""
STOPPED = "stopped"
"""What is noted of a machine that its cloud stops and starts."""


@dataclass(frozen=True)
class Joined:
    """What the last join left on a machine."""

    machine: str
    registration: str
    digest: str
    registered: str
    identity: str
    workload: str
    network: str
    labels: Mapping[str, str]
    package: str


@dataclass(frozen=True)
class Thing:
    """What a provider created, by its last inputs."""

    type: str
    name: str
    inputs: Mapping[str, Any]


@dataclass
class World:
    """What was done, in order, and what is there.

    hosts: what is on machines, by what SSH connects to. entries: those of them that are in the mesh.
    moved: machines that came to another workload. things: what was created, by type and ID.
    instances: names of instances by their addresses; SSH connects to either.
    """

    log: list[tuple[str, str, str]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    hosts: dict[str, Joined] = field(default_factory=dict)
    entries: dict[str, Joined] = field(default_factory=dict)
    things: dict[str, Thing] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def forget(self) -> None:
        """Begin a new update."""
        self.log.clear()
        self.events.clear()
        self.moved.clear()

    def keep(self, id: str, request: Request) -> None:
        """Note that a thing is there."""
        with self.lock:
            self.things[f"{request.type} {id}"] = Thing(request.type, request.name, dict(request.inputs))

    def note(self, op: str, request: Request) -> None:
        """Note an operation, and what it does to a machine."""
        with self.lock:
            self.log.append((op, request.type, request.name))
            if op == "delete":
                self.things.pop(f"{request.type} {request.id}", None)
            if request.type == MANAGER and op == "update":
                if request.inputs.get("versions") != request.old_inputs.get("versions"):
                    self.events.append((owner_of(request.name, components.platforms.google.names.MANAGER), "replaced"))
            elif request.type == INSTANCE:
                self._instance(op, request)
            elif op == "delete" and (request.type == CLUSTER or _runs(request, "create", "create_cluster.py")):
                self._cluster_deleted()
            elif op == "delete" and _runs(request, "create", "create_machine.py"):
                self._host_deleted(owner_of(request.name, CONTAINER), json.loads(request.state["stdout"])["address"])
            elif op == "delete" and _runs(request, "create", "join_machine.py"):
                self.events.append((owner_of(request.name, names.JOIN), "join deleted"))
            elif op == "delete" and _runs(request, "delete", "drain.py"):
                self._leave(_payload(request.state, "delete"))

    def _instance(self, op: str, request: Request) -> None:
        machine = owner_of(request.name, components.platforms.google.names.INSTANCE)
        if op == "delete":
            self._host_deleted(machine, str(request.state["name"]))
        elif op == "update" and any(request.inputs.get(key) != request.old_inputs.get(key) for key in STOPPED_BY):
            self.events.append((machine, STOPPED))

    def _cluster_deleted(self) -> None:
        """Note that all objects of the cluster are gone, entries too."""
        self.entries.clear()
        self.things = {id: thing for id, thing in self.things.items() if not thing.type.startswith("kubernetes:")}

    def _host_deleted(self, machine: str, host: str) -> None:
        self.hosts.pop(host, None)
        self.entries.pop(host, None)
        self.events.append((machine, "host deleted"))

    def _leave(self, payload: Mapping[str, Any]) -> None:
        owner, leave = payload["owner"], payload.get("leave")
        for host, joined in list(self.hosts.items()):
            if joined.registration != owner["registration"]:
                continue
            drained = not (leave and leave.get("forget"))
            self.events.append((owner["machine"], "leaves" if drained else "leaves without a drain"))
            self.entries.pop(host, None)
            if leave and drained:
                del self.hosts[host]

    def join(self, payload: Mapping[str, Any]) -> str:
        """Join a machine as join.sh does; return the digest."""
        bundle = scripting.decode(Bundle, payload["bundle"])
        root = harness.ANSWERS["root-certificate"]["data"]["root-cert.pem"]
        assert hashlib.sha256(root.encode()).hexdigest() == payload["root_sha256"]
        complete = with_root_certificate(replace(bundle, files=configuration_files(bundle)), root)
        variables = join_variables(complete)
        metadata = bundle.proxy["proxyMetadata"]
        now = Joined(
            machine=bundle.owner.machine,
            registration=bundle.owner.registration,
            digest=variables["DIGEST"],
            registered=variables["REGISTERED"],
            identity=f"{bundle.owner.namespace}/{metadata['SERVICE_ACCOUNT']}",
            workload=f"{bundle.owner.namespace}/{bundle.owner.workload}",
            network=metadata["ISTIO_META_NETWORK"],
            labels=json.loads(metadata["ISTIO_METAJSON_LABELS"]),
            package=bundle.package_url,
        )
        host = payload["target"]["hop"]["host"]
        with self.lock:
            host = self.instances.get(host, host)
            before = self.hosts.get(host)
            self.hosts[host] = self.entries[host] = now
            self.events.append((now.machine, _event(before, now)))
            if before and before.workload != now.workload:
                self.moved.append(now.machine)
        return now.digest

    def effects(self) -> dict[str, str]:
        """Return what became of machines in this update, in the words of plans."""
        by_machine: dict[str, list[str]] = {}
        gone = {name for op, type_, name in self.log if op == "delete" and type_ == fake_providers.REGISTRATION}
        for machine, event in self.events:
            if event != "join deleted" or names.part_name(machine, names.REGISTRATION) not in gone:
                by_machine.setdefault(machine, []).append(event)
        return {machine: effect for machine, events in sorted(by_machine.items()) if (effect := _effect(events))}


def owner_of(resource: str, part: str) -> str:
    """Return what a resource belongs to, by its name and the part of it."""
    return resource.removesuffix(names.part_name("", part))


def _event(before: Joined | None, now: Joined) -> str:
    if before is None:
        return "joins"
    if before.registered != now.registered:
        return "registers"
    return "rejoins" if (before.digest, before.identity) == (now.digest, now.identity) else "restarts"


def _effect(events: list[str]) -> str:
    """Return one word for what happened to a machine, and check the order of it."""
    gone = [event for event in events if event.startswith("leaves")]
    if "joins" in events and "host deleted" in events:
        order = [event for event in events if event in ("leaves", "host deleted", "joins")]
        assert order == ["leaves", "host deleted", "joins"], f"{order}: drained, deleted, then another one joins"
        return "replaced"
    if "joins" in events and gone:
        assert events.index("joins") < events.index(gone[0]), "what was at the old address leaves last"
        return "replaced"
    if gone or "host deleted" in events:
        return "leaves"
    if events == ["join deleted"]:
        return "forgotten"
    acts = {event for event in events if event != "join deleted"}
    if STOPPED in acts:
        acts = acts - {STOPPED, "rejoins"} or {"restarts"}
    return "+".join(sorted(acts))


def _object_id(request: Request) -> str:
    """Return the ID of an object in Kubernetes, by which others read it; "" for what is none."""
    metadata = request.inputs.get("metadata")
    if not request.type.startswith("kubernetes:") or not isinstance(metadata, Mapping):
        return ""
    return "/".join(metadata[key] for key in ("namespace", "name") if key in metadata)


def _runs(request: Request, operation: str, script: str) -> bool:
    """Return whether a command runs a script in an operation: "create" or "delete"."""
    lines = [source.get(operation) for source in (request.inputs, request.state, request.old_inputs)]
    return any(isinstance(line, str) and script in line for line in lines)


def _payload(values: Mapping[str, Any], operation: str) -> Mapping[str, Any]:
    payload: Mapping[str, Any] = json.loads(values["stdin"])[operation]
    return payload


class NotingProvider(fake_providers.FakeProvider):
    """A provider that creates nothing and notes everything. What it creates anew is another thing."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name)
        self._world = world

    def diff(self, request: Request) -> Difference:
        if request.type == fake_providers.REGISTRATION:
            result = RegistrationProvider().diff(request.id, dict(request.state), dict(request.inputs))
            return Difference({"identity": "update"} if result.changes else {}, frozenset(result.replaces or ()))
        if request.type in RECREATED_BY:
            changes = differences(request.old_inputs, request.inputs)
            return Difference(changes, frozenset(path for path in changes if path.startswith(RECREATED_BY[request.type])))
        return super().diff(request)

    def create(self, request: Request) -> Created:
        if request.preview:
            return super().create(request)
        created = super().create(request)
        state = self._done("create", request, dict(created.state))
        number = next(self._world.numbers)
        id = _object_id(request) or f"{created.id}-{number}"
        self._world.keep(id, request)
        if _runs(request, "create", "create_machine.py"):
            state["stdout"] = json.dumps({**json.loads(state["stdout"]), "id": f"{request.name}-{number}"})
        if request.type == INSTANCE:
            state["instanceId"] = str(number)
            self._world.instances[state["networkInterfaces"][0]["networkIp"]] = str(state["name"])
        if request.type == TEMPLATE:
            state["selfLink"] = f"{state['selfLink']}-{number}"
        return Created(id, state)

    def update(self, request: Request) -> Properties:
        state = super().update(request)
        if request.type == fake_providers.REGISTRATION and not request.preview:
            state = {**state, **(RegistrationProvider().update(request.id, {}, dict(request.inputs)).outs or {})}
        if request.preview:
            # An update of a thing on Google Cloud leaves its ID and its addresses as they are.
            return {**state, **self._answer_of(request)} if request.type.startswith("gcp:") else state
        # What exists keeps its ID and its link.
        kept: dict[str, Any] = {key: request.state[key] for key in ("instanceId", "selfLink") if key in request.state}
        if _runs(request, "create", "create_machine.py"):
            kept["stdout"] = request.state["stdout"]
        return self._done("update", request, {**state, **kept})

    def _answer_of(self, request: Request) -> dict[str, Any]:
        return {key: request.state[key] for key in self._answer(request) if key in request.state}

    def delete(self, request: Request) -> None:
        self._world.note("delete", request)

    def _done(self, op: str, request: Request, state: dict[str, Any]) -> dict[str, Any]:
        self._world.note(op, request)
        if op == "update":
            self._world.keep(request.id, request)
        if _runs(request, "create", "join_machine.py"):
            payload = _payload(request.inputs, "create")
            digest = self._world.join(payload)
            state["stdout"] = json.dumps({"digest": digest, "changes": payload.get("changes", "")})
        return state
