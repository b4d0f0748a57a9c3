"""The stack as Pulumi has it: read by its CLI, taken apart here. Holds secrets (SSH keys) in memory and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from components import mesh_facts, names
from components.config import load
from components.config.problems import SettingsError
from components.config.stack import Settings
from components.local import openssh, scripting
from components.local.cluster_access import ClusterAccess, cluster_name
from components.mesh_facts import MeshFacts
from components.names import config_key, is_part, part_name
from components.verification.evidence import Call, Evidence, GatewayTraffic, by_workload, merge

from . import pulumi
from .pulumi import StackError

T = TypeVar("T")

# How Pulumi marks a secret in exported state (sdk/go/common/resource: SigKey, SecretSig).
_SIGNATURE, _SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"


@dataclass(frozen=True)
class Machine:
    """A machine as the last updates left it. `joined` is when the join last ran, `proven` when its proof did; None where they never succeeded.

    `target` is how to log in. `revision` changes whenever the join ran again. `forgotten`: the
    stack file gives it up, so it is not joined.
    """

    name: str
    workload: str
    entry: str = ""
    address: str = ""
    target: openssh.Target | None = None
    joined: datetime | None = None
    proven: datetime | None = None
    revision: str = ""
    forgotten: bool = False


@dataclass(frozen=True)
class Workload:
    """A workload as the last updates left it. `services`: their ports by name.

    `labels`: of its pods. A stack may give pods another value of a label than machines have.
    `verified`: when pods last proved to reach it, with the machines' revisions of then.
    """

    name: str
    namespace: str
    labels: Mapping[str, str]
    service_account: str
    services: Mapping[str, tuple[int, ...]]
    replicas: int
    verified: datetime | None = None
    revisions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stack:
    """What the state holds. `cluster` is its name, `access` how it is reached. `facts` are the mesh's.

    `own_gateway`: the stack installed the east-west gateway. `calls` and `gateway_traffic` are the evidence of the last whole verification
    (`components.verification.evidence`), `proofs` the URNs of the commands that verify. `pending`: an update was killed, or is running.
    `unproven`: what that verification did not prove, where it could only warn. `left_out`: why it left something out.
    """

    name: str
    cluster: str
    facts: MeshFacts
    gateway: str
    own_gateway: bool
    workloads: Mapping[str, Workload]
    machines: Mapping[str, Machine]
    calls: tuple[Call, ...] = ()
    gateway_traffic: tuple[GatewayTraffic, ...] = ()
    proofs: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    updated: datetime | None = None
    pending: bool = False
    access: ClusterAccess | None = None
    gateway_port: int = names.XDS_PORT


def read(variables: Mapping[str, str], stack: str | None) -> Stack:
    """Return the stack's state, with its secrets decrypted by Pulumi. Nothing of it is written anywhere. Raises StackError."""
    exported = pulumi.call(variables, "stack", "export", "--show-secrets", *_of(stack))
    return parse(json.loads(exported))


def settings(variables: Mapping[str, str], stack: str | None) -> Settings | StackError:
    """Return the settings in the stack file, or why they cannot be read; the mesh can be shown without them."""
    try:
        values = json.loads(pulumi.call(variables, "config", "--json", *_of(stack)))
        prefix = config_key("")
        named = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        if not named:
            return StackError("this checkout has no stack file for it: the CIDRs of its networks are not known")
        return load({key: value.get("objectValue", value.get("value")) for key, value in named.items()})
    except SettingsError as error:
        return StackError(str(error))
    except StackError as error:
        return error


def _of(stack: str | None) -> list[str]:
    return ["--stack", stack] if stack else []


def revealed(value: Any) -> Any:
    """Return a value of exported state with secrets as plain values."""
    if isinstance(value, Mapping):
        if value.get(_SIGNATURE) == _SECRET:
            return revealed(json.loads(value["plaintext"])) if "plaintext" in value else None
        return {key: revealed(each) for key, each in value.items()}
    return [revealed(each) for each in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class _Resource:
    """One resource. `kind` is the last part of its type, `parent` a URN; secrets in its values are opened."""

    urn: str
    kind: str
    parent: str
    inputs: Mapping[str, Any] = field(repr=False)
    outputs: Mapping[str, Any] = field(repr=False)
    dependencies: tuple[str, ...]
    modified: datetime | None

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[-1]


def _resources(deployment: Mapping[str, Any]) -> Iterator[_Resource]:
    for each in deployment.get("resources") or ():
        if each.get("delete"):  # replaced, and its old self is not deleted yet
            continue
        yield _Resource(
            urn=each["urn"],
            kind=each["type"].rsplit(":", 1)[-1],
            parent=each.get("parent", ""),
            inputs=revealed(each.get("inputs") or {}),
            outputs=revealed(each.get("outputs") or {}),
            dependencies=tuple(each.get("dependencies") or ()),
            modified=_time(each.get("modified")),
        )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def parse(exported: Mapping[str, Any]) -> Stack:
    """Take apart what `pulumi stack export --show-secrets` printed. Raises StackError for a stack with nothing of this program in it."""
    deployment = exported["deployment"]
    resources = {each.urn: each for each in _resources(deployment)}
    kinds: dict[str, list[_Resource]] = {}
    children: dict[str, dict[str, _Resource]] = {}
    for each in resources.values():
        kinds.setdefault(each.kind, []).append(each)
        children.setdefault(each.parent, {})[each.name] = each
    if not kinds.get("Mesh"):
        raise StackError("the stack has no mesh (yet): run `pulumi up` first")
    outputs = kinds["Stack"][0].outputs
    evidence = _evidence(outputs.get("verification"))
    failed = [call for call in evidence.calls if call.verdict == "failed"]
    access = next((ClusterAccess(**each.inputs["recorded"]) for each in kinds.get("ClusterCheck", ())), None)
    workloads = {each.name: _workload(each.name, children.get(each.urn, {})) for each in kinds.get("Workload", ())}
    # A registration waits for objects of its workload. Which ones it names is not decided here.
    workloads_by_object = {part.urn: each.name for each in kinds.get("Workload", ()) for part in children.get(each.urn, {}).values()}
    return Stack(
        name=kinds["Stack"][0].urn.split(":")[2],
        cluster=cluster_name(access) if access else "",
        facts=_facts(kinds),
        gateway=outputs.get("gateway", ""),
        gateway_port=int(outputs.get("gatewayPort", names.XDS_PORT)),
        own_gateway=any(each.name == names.EASTWEST_GATEWAY for each in kinds.get("Release", ())),
        workloads={name: workload for name, workload in workloads.items() if workload},
        machines={
            each.name: _machine(
                each.name, children.get(each.urn, {}), workloads_by_object, (outputs.get("machines") or {}).get(each.name, {})
            )
            for each in kinds.get("Machine", ())
        },
        calls=tuple(call for call in evidence.calls if call.is_path),
        unproven=tuple(dict.fromkeys(call.problem for call in failed if not call.is_of_failed_resource)),
        left_out=tuple(dict.fromkeys(call.cause.removesuffix(" in this update") for call in failed if call.is_of_failed_resource)),
        gateway_traffic=evidence.gateway_traffic,
        proofs=tuple(each.urn for each in kinds.get("Command", ()) if is_part(each.name, names.VERIFICATION, names.PROOF, names.CALLERS)),
        updated=_time(deployment.get("manifest", {}).get("time")),
        pending=bool(deployment.get("pending_operations")),
        access=access,
    )


def _facts(kinds: Mapping[str, Sequence[_Resource]]) -> MeshFacts:
    """What the mesh is: as it was read where it is adopted, else by the values of istiod's release."""
    for reading in kinds.get("MeshReading", ()):
        return mesh_facts.decode(reading.outputs["facts"])
    releases = kinds.get("Release", ())
    release = next((each.inputs for each in releases if each.name == names.ISTIOD_DEPLOYMENT), {})
    return mesh_facts.from_values(release.get("values", {}), release.get("namespace", names.ISTIO_NAMESPACE))


def _workload(name: str, parts: Mapping[str, _Resource]) -> Workload | None:
    """A workload from its resources, or None before its WorkloadGroup was made."""
    if not (workload_group := parts.get(part_name(name, names.WORKLOAD_GROUP))):
        return None
    metadata, spec = workload_group.inputs["metadata"], workload_group.inputs["spec"]
    # A Service of others is only read: it has no inputs of this program.
    services = [each.inputs if "spec" in each.inputs else each.outputs for each in parts.values() if each.kind == "Service"]
    deployments = [each.inputs["spec"] for each in parts.values() if each.kind == "Deployment"]
    templates = [each["template"]["metadata"]["labels"] for each in deployments if "template" in each]
    of_pods = {key: value for each in templates for key, value in each.items()}
    labels = spec.get("metadata", {}).get("labels", {})
    proof = parts.get(part_name(name, names.VERIFICATION))
    return Workload(
        name=name,
        namespace=metadata["namespace"],
        labels={key: of_pods.get(key, value) for key, value in labels.items()},
        service_account=spec["template"].get("serviceAccount", ""),
        services={each["metadata"]["name"]: tuple(port["port"] for port in each["spec"]["ports"]) for each in services},
        replicas=sum(each.get("replicas", 1) for each in deployments),
        verified=proof.modified if proof else None,
        revisions=json.loads(proof.inputs["environment"]["CHANGES"])["joined"] if proof else {},
    )


def _machine(name: str, parts: Mapping[str, _Resource], workloads_by_object: Mapping[str, str], output: Mapping[str, str]) -> Machine:
    """A machine from its resources. `workloads_by_object`: workloads by the URNs of their objects, `output`: its part of the stack's outputs."""
    of_machine = (names.REGISTRATION, names.JOIN, names.PROOF, names.DRAIN)
    registration, join, proof, drain = (parts.get(part_name(name, part)) for part in of_machine)
    target = _decoded(openssh.Target, json.loads(join.inputs["stdin"])["create"]["target"]) if join else None
    leave = json.loads(drain.inputs["stdin"])["delete"].get("leave") if drain else None
    workload = next(
        (workloads_by_object[urn] for part in (registration, join) if part for urn in part.dependencies if urn in workloads_by_object), ""
    )
    return Machine(
        name=name,
        workload=workload,
        entry=(registration.inputs.get("entry") if registration else "") or output.get("entry", ""),
        address=output.get("address") or (target.hop.host if target else ""),
        target=target,
        joined=join.modified if join else None,
        proven=proof.modified if proof else None,
        revision=_revision(join) if join else "",
        forgotten=bool(leave and leave.get("forget")),
    )


def _decoded(record: type[T], values: Mapping[str, Any]) -> T | None:
    """Return a record of a state; None where another version of this program wrote it."""
    try:
        return scripting.decode(record, values)
    except TypeError:
        return None


def _evidence(output: Any) -> Evidence:
    """Return the evidence of all workloads; none of it where another version of this program wrote it."""
    try:
        return merge(by_workload(output).values())
    except TypeError:
        return Evidence()


def _revision(join: _Resource) -> str:
    """What the verification of its workload has as the machine's revision (`Machine.revision`)."""
    return f"{json.loads(join.outputs['stdout'])['digest']} {json.loads(join.inputs['stdin'])['create']['changes']}"
