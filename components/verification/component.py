"""The proof that machines and pods answer.

Each proof is a resource whose inputs are everything that could change the answer, so it runs again
when something changed. Per workload one command runs beside Pulumi, then one on each machine over
SSH. Gateways that are machines report last what passed through them. The pods that call are started
beside the joins, by one command per service account.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import pulumi
from pulumi.runtime.stack import ResourceRegistrationFailed
from pulumi_command import local

from .. import commands, names, shell
from ..config.workload import WorkloadSettings
from ..dependencies import without_dependencies
from ..istio.control_plane import Mesh
from ..istio.workload import Workload
from ..machines.machine import Machine
from ..mesh_facts import MeshFacts
from ..names import CROSS_NETWORK_PORT, EASTWEST_GATEWAY, LISTENER_PORT, VERIFICATION, part_name, verification_job_name
from ..platforms.gateway import Gateway
from . import jobs
from .evidence import Entry, Evidence, merge, with_paths
from .scripts import calling_pods, prove_machine, verify_workload
from .scripts.prove_machine import CalledPods, Proof
from .target import CALL_SCRIPT, PLAINTEXT_SCRIPT, Caller, call_variables

TIMEOUT_S = verify_workload.LIMIT_S + 100
"""Seconds for one verification beside Pulumi."""
ENTRIES_TIMEOUT_S = 60
"""Seconds to wait for the health of entries, and for a pod."""
CALL_TIMEOUT_S = 30
"""Seconds until endpoints must have answered."""


@dataclass(frozen=True, kw_only=True)
class VerifiedGroup:
    """An instance group of a workload, whose machines come and go without this program.

    network: its network. size: how many machines it has at least.
    revision: changes whenever all its machines are others, and is there once they have joined.
    changes: changes whenever they will be others, and is there before them.
    """

    network: str
    size: int
    revision: pulumi.Output[str]
    changes: pulumi.Output[str]


@dataclass(frozen=True, kw_only=True)
class VerifiedWorkload:
    """A workload as it is verified.

    workload: its objects in the cluster. machines: its machines.
    reachable_from_pods: whether pods can call it.
    strict: whether an answer to plaintext fails the verification. Else it is only reported.
    mode: `fail` or `warn`, what a failed verification does to the update.
    groups: its instance groups by name.
    """

    workload: Workload
    machines: Sequence[Machine]
    reachable_from_pods: bool = True
    strict: bool = True
    mode: Literal["fail", "warn"] = "fail"
    groups: Mapping[str, VerifiedGroup] = field(default_factory=dict)

    @property
    def has_service(self) -> bool:
        """Whether clients reach its machines by a Service: by one with a cluster IP."""
        return any(not service.headless for service in self.workload.settings.services.values())

    @property
    def is_called(self) -> bool:
        """Whether pods call it to verify it."""
        return self.reachable_from_pods and self.has_service

    @property
    def runs_pods(self) -> bool:
        """Whether the program runs pods of it."""
        pods = self.workload.settings.pods
        return pods is not None and pods.replicas > 0

    @property
    def account(self) -> tuple[str, str]:
        """The namespace and the name of its service account."""
        return self.workload.settings.namespace, self.workload.settings.service_account_name


@dataclass(frozen=True, kw_only=True)
class VerificationArgs:
    """What is verified, and how.

    mesh: the mesh.
    workloads: what is verified. gateways: the gateways of networks other than the cluster's.
    published: by network, what must exist before requests reach its gateway.
    """

    mesh: Mesh
    workloads: Sequence[VerifiedWorkload]
    gateways: Mapping[str, Gateway] = field(default_factory=dict)
    published: Mapping[str, pulumi.Resource] = field(default_factory=dict)


def verify_workloads(args: VerificationArgs) -> dict[str, pulumi.Output[Evidence]]:
    """Verify workloads with their machines and return the evidence by workload.

    What failed is a warning of the update, unless it fails the update.
    """
    verifications = _Verifications(args)
    evidence: dict[str, list[pulumi.Output[Evidence]]] = {}
    from_cluster: dict[str, local.Command] = {}
    for verified in args.workloads:
        name = verified.workload.settings.name
        from_cluster[name] = verifications.from_cluster(verified)
        evidence[name] = [pulumi.Output.unsecret(commands.result(from_cluster[name], Evidence))]
        if verified.has_service:
            evidence[name] += [verifications.from_machine(machine, verified, from_cluster[name]) for machine in verified.machines]
    for verified in args.workloads:
        settings = verified.workload.settings
        if settings.role == "router":
            evidence[settings.name] += [_on_gateway(machine, verified, list(from_cluster.values())) for machine in verified.machines]
    workloads = {verified.workload.settings.name: verified.workload for verified in args.workloads}
    return {
        name: pulumi.Output.all(parts=pulumi.Output.all(*parts), names=verifications.gateway_names).apply(
            partial(_evidence, workloads[name])
        )
        for name, parts in evidence.items()
    }


def _evidence(workload: Workload, values: Mapping[str, Any]) -> Evidence:
    """Return the evidence of a workload, and warn of what failed."""
    evidence = with_paths(merge(values["parts"]), dict(filter(None, values["names"])), CROSS_NETWORK_PORT)
    if not pulumi.runtime.is_dry_run():
        failed = [call for call in evidence.calls if call.verdict == "failed"]
        for text in dict.fromkeys(call.problem for call in failed):
            pulumi.log.warn(f"workload {workload.settings.name}: {text}", workload)
    return evidence


def _on_gateway(machine: Machine, verified: VerifiedWorkload, depends_on: Sequence[pulumi.Resource]) -> pulumi.Output[Evidence]:
    """Have a gateway's machine report what it passed on."""
    variables = shell.assignments({"GATEWAY_NAME": machine.pulumi_resource_name})
    further = {"proof": Proof(warn_only=verified.mode == "warn")}
    return _shown(machine, machine.verify("verification/gateway-stats", variables, depends_on, module=prove_machine, further=further))


def _shown(machine: Machine, command: local.Command) -> pulumi.Output[Evidence]:
    """Return what a script on a machine shows; nothing where the join failed in this update."""
    shown = commands.result(command, Evidence)
    joined = machine.revision.apply(lambda _: True).recover(partial(_left_out, False))
    return joined.apply(lambda is_joined: shown if is_joined else Evidence())


def _left_out(value: Any, error: Exception) -> Any:
    """Stand in for the outputs of a resource that failed, in an update that goes on without it.

    Raises everything else.
    """
    if not isinstance(error, ResourceRegistrationFailed):
        raise error
    return value


def _digest(text: str) -> str:
    """Return what text is compared by: a state holds each input twice."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pair(name: str, address: str) -> tuple[str, str]:
    return address, name


class _Verifications:
    """The verifications of a program, with what all of them share."""

    def __init__(self, args: VerificationArgs) -> None:
        self._args, self._mesh = args, args.mesh
        self._stack = names.stack_label(pulumi.get_project(), pulumi.get_stack())
        addresses = {network: gateway.addresses for network, gateway in args.gateways.items()}
        self._gateways: Mapping[str, Mapping[str, pulumi.Output[str]]] = {
            args.mesh.network: {EASTWEST_GATEWAY: args.mesh.gateway_ip},
            **addresses,
        }
        self.gateway_names = pulumi.Output.all(
            *(
                address.apply(partial(_pair, name)).recover(partial(_left_out, None))
                for gateways in self._gateways.values()
                for name, address in gateways.items()
            )
        )
        # Each of a workload's machines has them, too.
        self._objects = {verified.workload.settings.name: self._objects_of(verified) for verified in args.workloads}
        accounts: dict[tuple[str, str], list[VerifiedWorkload]] = {}
        for verified in args.workloads:
            if verified.is_called:
                accounts.setdefault(verified.account, []).append(verified)
        self._callers = {account: self._start_callers(account, together) for account, together in accounts.items()}

    def _start_callers(self, account: tuple[str, str], verified_together: Sequence[VerifiedWorkload]) -> pulumi.Resource:
        """Start the pods that call as a service account, beside the joins.

        verified_together: the workloads with that account. The inputs change whenever those of a
        verification will, and none of them is known by a join alone.
        """
        mesh = self._mesh
        settings = pulumi.Output.all(*(verified.workload.effective_settings for verified in verified_together))

        def payload(values: Mapping[str, Any]) -> calling_pods.Payload:
            called = [jobs.Called(each, values["facts"]) for each in values["settings"]]
            return calling_pods.Payload(values["access"], jobs.pair(verification_job_name(account[1]), called, self._stack))

        inputs = pulumi.Output.all(access=mesh.cluster.access, settings=settings, facts=mesh.facts)
        changes = {
            verified.workload.settings.name: self._changes(
                verified, self._joins(verified), (each.changes for each in verified.groups.values())
            )
            for verified in verified_together
        }
        resources = [resource for verified in verified_together for resource in verified.workload.identity_resources]
        return commands.local_command(
            mesh.child_name(names.callers_resource_name(*account)),
            commands.Script(calling_pods, inputs.apply(payload)),
            pulumi.ResourceOptions(parent=mesh, depends_on=resources),
            options=commands.CommandOptions(
                converges=True,
                changes=pulumi.Output.json_dumps(changes).apply(_digest),
                timeout_s=TIMEOUT_S,
            ),
        )

    @staticmethod
    def _joins(verified: VerifiedWorkload) -> Mapping[str, Any]:
        """Return what changes when a machine's join will run."""
        return {
            machine.pulumi_resource_name: without_dependencies(
                pulumi.Output.all(machine.changes, machine.target_digest).apply(" ".join).recover(partial(_left_out, ""))
            )
            for machine in verified.machines
        }

    def _networks(self, verified: VerifiedWorkload) -> list[str]:
        """Return the other networks that calls of a workload lead to."""
        used = {*(machine.network for machine in verified.machines), *(group.network for group in verified.groups.values())}
        return sorted(used - {self._mesh.network})

    def _gateway(self, network: str) -> pulumi.Output[list[str]]:
        """Return the addresses of a network's gateway; none where it failed in this update."""
        published = self._args.published.get(network)
        ready = [published.urn] if published else []
        addresses = pulumi.Output.all(*self._gateways[network].values())
        reached = pulumi.Output.all(addresses, *ready).apply(lambda values: values[0])
        return reached.recover(partial(_left_out, []))

    def _paths(self, verified: VerifiedWorkload) -> Mapping[str, pulumi.Output[list[str]]]:
        """Return the addresses of the gateways on the paths of calls, by network."""
        others = self._networks(verified)
        networks = [*([self._mesh.network] if others else ()), *others]
        return {network: self._gateway(network) for network in networks if network in self._gateways}

    def _revisions(self, verified: VerifiedWorkload, groups: Iterable[pulumi.Output[str]]) -> pulumi.Output[str]:
        """Return what changes when machines of gateways on its paths, or of its groups, are others or joined again."""
        gateways = [self._args.gateways[network] for network in self._networks(verified) if network in self._args.gateways]
        revisions = [*(each.revision for each in gateways), *groups]
        return pulumi.Output.json_dumps([without_dependencies(each.recover(partial(_left_out, ""))) for each in revisions]).apply(_digest)

    def _objects_of(self, verified: VerifiedWorkload) -> pulumi.Output[str]:
        """Return a digest of what decides in the cluster what answers calls of a workload."""
        workload, mesh = verified.workload, self._mesh
        callees = mesh.facts.apply(lambda facts: [*workload.callees(facts), mesh.settings.version])
        # Machines of other networks call by the gateway.
        gateway = mesh.gateway_values if self._networks(verified) else None
        return pulumi.Output.json_dumps([callees, workload.existing_services, mesh.istiod_values, gateway]).apply(_digest)

    def _changes(self, verified: VerifiedWorkload, joined: Mapping[str, Any], groups: Iterable[pulumi.Output[str]]) -> Mapping[str, Any]:
        """Return what could change the answer and is in no payload.

        joined, groups: what changes with its machines, and with those of its groups.

        A machine's proof counts the calls of this verification: those of an earlier one are gone where
        the agent has restarted. So what has a proof run again is here, too.
        """
        scripts = [*map(commands.body_digest, (CALL_SCRIPT, PLAINTEXT_SCRIPT)), commands.digest(prove_machine)]
        proofs = [self._mesh.cluster.pod_cidrs, [machine.host.patience_s for machine in verified.machines]]
        return {
            "joined": joined,
            "gateways": self._paths(verified),
            "revisions": self._revisions(verified, groups),
            "objects": self._objects[verified.workload.settings.name],
            "scripts": _digest(json.dumps([*scripts, *proofs])),
        }

    def from_cluster(self, verified: VerifiedWorkload) -> local.Command:
        """Wait until the entries are healthy, then have a pod call every endpoint that pods can call."""
        workload, mesh = verified.workload, self._mesh
        machines = {
            # The join follows from the machine, which needs no name in the state beside it.
            machine.pulumi_resource_name: pulumi.Output.all(
                entry=without_dependencies(machine.entry),
                address=without_dependencies(machine.address),
                joined=machine.revision,
                target=without_dependencies(machine.target_digest),
            ).recover(partial(_left_out, None))
            for machine in verified.machines
        }
        others = {network: mesh.network_name(network) for network in self._networks(verified) if network in self._gateways}
        inputs = {
            "access": mesh.cluster.access,
            "workload": workload.effective_settings,
            "machines": machines,
            "groups": {
                name: pulumi.Output.all(network=mesh.network_name(group.network), joined=group.revision).recover(partial(_left_out, None))
                for name, group in verified.groups.items()
            },
            "gateways": self._paths(verified),
            "network_names": others,
            "existing": workload.existing_services,
            "facts": mesh.facts,
        }
        joins = {name: values.apply(lambda each: each["joined"] if each else "") for name, values in machines.items()}
        # A machine's proof runs again where SSH reaches the machine otherwise (`_changes`).
        digests = {name: values.apply(lambda each: each["target"] if each else "") for name, values in machines.items()}
        of_groups = [group.revision for group in verified.groups.values()]
        changes = {**self._changes(verified, joins, of_groups), "targets": pulumi.Output.json_dumps(digests).apply(_digest)}
        callers = self._callers.get(verified.account) if verified.is_called else None
        return commands.local_command(
            part_name(workload.pulumi_resource_name, VERIFICATION),
            commands.Script(verify_workload, pulumi.Output.all(**inputs).apply(partial(self._payload, verified))),
            pulumi.ResourceOptions(
                parent=workload,
                depends_on=[*workload.all_resources, *([callers] if callers else [])],
            ),
            options=commands.CommandOptions(
                converges=True,
                # The payload names the joins in the state already.
                changes=without_dependencies(pulumi.Output.json_dumps(changes)),
                timeout_s=TIMEOUT_S,
            ),
        )

    def _payload(self, verified: VerifiedWorkload, values: Mapping[str, Any]) -> verify_workload.Payload:
        settings: WorkloadSettings = values["workload"]
        facts: MeshFacts = values["facts"]
        called = jobs.Called(settings, facts)
        port, machines = settings.verified_port, values["machines"]
        number = called.port
        joined = {name: each for name, each in machines.items() if each}
        shared = verification_job_name(settings.service_account_name)
        gateways = {mesh_name: values["gateways"][network] for network, mesh_name in values["network_names"].items()}
        group_sizes = Counter[str]()
        for name, group in values["groups"].items():
            if group:
                group_sizes[group["network"]] += verified.groups[name].size
        return verify_workload.Payload(
            access=values["access"],
            workload=settings.name,
            entries=tuple(Entry(name, each["entry"], f"{each['address']}:{number}") for name, each in joined.items()),
            missing=tuple(name for name, each in machines.items() if not each),
            closed=tuple(network for network, addresses in gateways.items() if not addresses),
            failed_groups=tuple(name for name, group in values["groups"].items() if not group),
            group_sizes=group_sizes,
            pods=called.pods(values["existing"]),
            port=number,
            target=jobs.target(called, verified.mode) if verified.is_called else None,
            runs_pods=verified.runs_pods,
            not_offered=(settings.verify.port or number) if verified.is_called and port is None else 0,
            caller=Caller(f"Job {shared}", self._mesh.network, CALL_TIMEOUT_S, LISTENER_PORT),
            network=facts.network,
            gateways={name: tuple(f"{address}:{CROSS_NETWORK_PORT}" for address in each) for name, each in gateways.items()},
            pair=jobs.pair(names.lone_verification_job_name(settings.name), [called], self._stack),
            shared=shared,
            strict=verified.strict,
            warn_only=verified.mode == "warn",
            timeout_s=ENTRIES_TIMEOUT_S,
        )

    def from_machine(self, machine: Machine, verified: VerifiedWorkload, after: pulumi.Resource) -> pulumi.Output[Evidence]:
        """Have a machine call a pod, and prove that the machine itself was called.

        The first is left out where the program runs no pods of the workload, the second where pods
        cannot call the machine. after: what calls the machine.
        """
        workload, mesh = verified.workload, self._mesh
        is_near = machine.network == mesh.network

        def variables(values: Mapping[str, Any]) -> str:
            called = jobs.Called(values["workload"], values["facts"])
            target, port = jobs.target(called, verified.mode), called.workload.verified_port
            if target is None or port is None:
                return shell.assignments(call_variables(caller, None))
            if verified.runs_pods and is_near:
                target = replace(target, ranges=mesh.cluster.pod_cidrs)
            elif verified.runs_pods:
                gateways = tuple(f"{address}:{CROSS_NETWORK_PORT}" for address in values["gateway"])
                target = replace(target, gateways=gateways)
            is_called = verified.is_called and machine.network in self._gateways
            inbound = {port.target: port.protocol} if is_called else {}
            return shell.assignments(call_variables(caller, target, inbound))

        def proof(values: Mapping[str, Any]) -> Proof:
            settings = values["workload"]
            port = jobs.Called(settings, values["facts"]).pods(values["existing"]).port
            pods = CalledPods(values["access"], settings.namespace, settings.name, port, values["address"])
            return Proof(pods if verified.runs_pods else None, warn_only=verified.mode == "warn")

        caller = Caller(f"machine {machine.pulumi_resource_name}", machine.network, CALL_TIMEOUT_S)
        inputs = pulumi.Output.all(
            workload=workload.effective_settings,
            facts=mesh.facts,
            gateway=[] if is_near else self._gateway(mesh.network),
            access=mesh.cluster.access,
            existing=workload.existing_services,
            address=machine.address if is_near else "",
        )
        proven = machine.verify(
            CALL_SCRIPT,
            inputs.apply(variables),
            [after],
            module=prove_machine,
            further={"proof": inputs.apply(proof)},
            # Other pods or routes may be out of its reach, although the calls from the cluster succeed.
            changes=self._objects[verified.workload.settings.name],
        )
        return _shown(machine, proven)
