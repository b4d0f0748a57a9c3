"""The proof that machines and pods answer.

Each proof is a resource whose inputs are everything that could change the answer, so it runs again
when something changed. Per workload one command runs beside Pulumi, then one on each machine over
SSH. Gateways that are machines report last what passed through them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pulumi
from pulumi_command import local

from .. import commands, shell
from ..config.workload import WorkloadSettings
from ..istio import manifests
from ..istio.control_plane import Mesh
from ..istio.workload import Workload
from ..machines.machine import Machine
from ..names import CROSS_NETWORK_PORT, EASTWEST_GATEWAY, VERIFICATION, part_name, verification_job_name
from ..platforms.gateway import Gateway
from . import jobs, targets
from .evidence import Entry, Evidence, merge, parse, with_paths
from .scripts import verify_workload

GatewayAddresses = pulumi.Output[dict[str, list[str]]]
"""The addresses of each network's gateway, by network."""


TIMEOUT_S = 1800
"""Seconds for one verification beside Pulumi: more than the sum of the script's own limits."""


@dataclass(frozen=True, kw_only=True)
class VerifiedWorkload:
    """A workload as it is verified.

    workload: its objects in the cluster. machines: its machines.
    reachable_from_pods: whether pods can call it.
    strict: whether an answer to plaintext fails the verification. Else it is only reported.
    mode: `fail` or `warn`, what a failed verification does to the update.
    min_group_size: how many machines its instance groups have at least.
    """

    workload: Workload
    machines: Sequence[Machine]
    reachable_from_pods: bool = True
    strict: bool = True
    mode: Literal["fail", "warn"] = "fail"
    min_group_size: int = 0


@dataclass(frozen=True, kw_only=True)
class VerificationArgs:
    """What is verified, and how.

    mesh: the mesh.
    workloads: what is verified. gateways: the gateways of networks other than the cluster's.
    depends_on: what must exist before.
    """

    mesh: Mesh
    workloads: Sequence[VerifiedWorkload]
    gateways: Mapping[str, Gateway] = field(default_factory=dict)
    depends_on: Sequence[pulumi.Resource] = ()


def verify_workloads(args: VerificationArgs) -> dict[str, pulumi.Output[Evidence]]:
    """Verify workloads with their machines and return the evidence by workload."""
    mesh = args.mesh
    by_network = {
        mesh.network: {EASTWEST_GATEWAY: mesh.gateway_ip},
        **{network: gateway.addresses for network, gateway in args.gateways.items()},
    }
    addresses: GatewayAddresses = pulumi.Output.all(
        **{network: pulumi.Output.all(*gateways.values()) for network, gateways in by_network.items()}
    )
    gateway_names = pulumi.Output.all(
        *(address.apply(partial(_pair, name)) for gateways in by_network.values() for name, address in gateways.items())
    )
    evidence: dict[str, list[pulumi.Output[Evidence]]] = {}
    from_cluster: dict[str, local.Command] = {}
    for verified in args.workloads:
        settings = verified.workload.settings
        name = settings.name
        from_cluster[name] = _from_cluster(verified, args, addresses)
        result = commands.result(from_cluster[name], Evidence)
        evidence[name] = [pulumi.Output.unsecret(result)]
        if targets.is_called(settings):
            caller = _Caller(verified, args, addresses, from_cluster[name])
            evidence[name] += [_from_machine(machine, caller) for machine in verified.machines]
    for verified in args.workloads:
        settings = verified.workload.settings
        if settings.role == "router":
            evidence[settings.name] += [_on_gateway(machine, list(from_cluster.values())) for machine in verified.machines]
    return {
        name: pulumi.Output.all(parts=pulumi.Output.all(*parts), names=gateway_names).apply(_evidence) for name, parts in evidence.items()
    }


def _evidence(values: Mapping[str, Any]) -> Evidence:
    return with_paths(merge(values["parts"]), dict(values["names"]), CROSS_NETWORK_PORT)


def _on_gateway(machine: Machine, depends_on: Sequence[pulumi.Resource]) -> pulumi.Output[Evidence]:
    """Have a gateway's machine report what it passed on."""
    variables = shell.assignments({"GATEWAY_NAME": machine.pulumi_resource_name})
    return machine.verify("verification/gateway-stats", variables, depends_on).apply(parse)


def _pair(name: str, address: str) -> tuple[str, str]:
    return address, name


def _from_cluster(verified: VerifiedWorkload, args: VerificationArgs, gateways: GatewayAddresses) -> local.Command:
    """Wait until the entries are healthy, then have a pod call every machine that pods can call."""
    mesh, settings = args.mesh, verified.workload.settings
    machines = {machine.pulumi_resource_name: machine for machine in verified.machines}

    def payload(values: Mapping[str, Any]) -> verify_workload.Payload:
        settings: WorkloadSettings = values["workload"]
        target = settings.verified_port
        port = target.target if target else settings.probe.port
        expected = [
            endpoint
            for machine, address in values["addresses"].items()
            for endpoint in targets.expected_endpoints(mesh.network, machines[machine].network, address, port, values["gateways"])
        ]
        caller, called = f"Job {verification_job_name(settings.name)}", target and verified.reachable_from_pods
        in_mesh = jobs.Called(settings, values["facts"])
        text = jobs.call_script(in_mesh, caller=caller, mode="fail", wanted=expected)
        plaintext = jobs.plaintext_probe_script(in_mesh, expected)
        return verify_workload.Payload(
            access=values["access"],
            workload=settings.name,
            namespace=settings.namespace,
            entries=tuple(
                Entry(machine, values["entries"][machine], f"{address}:{port}") for machine, address in values["addresses"].items()
            ),
            group_size=verified.min_group_size,
            port=port,
            selector=manifests.pod_labels(settings),
            job=jobs.caller_job(in_mesh, text) if called else None,
            plaintext_job=jobs.caller_job(in_mesh, plaintext, inside=False),
            endpoints_mark=targets.POD_ENDPOINTS,
            strict=verified.strict,
            warn_only=verified.mode == "warn",
            timeout_s=targets.TIMEOUT_S,
        )

    inputs = {
        "access": mesh.cluster.access,
        "workload": verified.workload.effective_settings,
        "entries": {machine_name: machine.entry for machine_name, machine in machines.items()},
        "addresses": {machine_name: machine.address for machine_name, machine in machines.items()},
        "gateways": gateways,
        "facts": mesh.facts,
    }
    # What could change the answer and is not in the script itself.
    objects = mesh.facts.apply(
        lambda facts: (
            manifests.deployment(settings, facts),
            manifests.services(settings),
            manifests.workload_group(settings, ""),
            mesh.settings.version,
        )
    )
    changes = {
        "joined": {machine_name: machine.revision for machine_name, machine in machines.items()},
        "gateways": gateways,
        "objects": pulumi.Output.json_dumps(objects),
        **({"existing": verified.workload.existing_services} if settings.existing_services else {}),
    }
    return commands.local_command(
        part_name(verified.workload.pulumi_resource_name, VERIFICATION),
        commands.Script(verify_workload, pulumi.Output.all(**inputs).apply(payload)),
        pulumi.ResourceOptions(
            parent=verified.workload,
            depends_on=[*verified.workload.all_resources, *args.depends_on],
        ),
        options=commands.CommandOptions(converges=True, changes=pulumi.Output.json_dumps(changes), timeout_s=TIMEOUT_S),
    )


@dataclass(frozen=True)
class _Caller:
    """What machines of a workload call, and when.

    verified: the workload. args: all that is verified.
    gateways: the addresses of each network's gateway.
    from_cluster: the command that calls the machines from the cluster; it runs before.
    """

    verified: VerifiedWorkload
    args: VerificationArgs
    gateways: GatewayAddresses
    from_cluster: local.Command


def _from_machine(machine: Machine, caller: _Caller) -> pulumi.Output[Evidence]:
    """Have a machine call a pod, and prove that the machine itself was called.

    The first is left out where the program runs no pods of the workload, the second where pods
    cannot call the machine.
    """
    workload, args = caller.verified.workload, caller.args
    settings = workload.settings
    pods_network = args.mesh.network
    with_pods = bool(settings.pods and settings.pods.replicas)
    in_pods_network = machine.network == pods_network

    def variables(values: Mapping[str, Any]) -> str:
        addresses: dict[str, list[str]] = values["gateways"]
        through_gateway = with_pods and not in_pods_network
        text = jobs.call_variables(
            jobs.Called(values["workload"], values["facts"]),
            caller=f"machine {machine.pulumi_resource_name}",
            mode=caller.verified.mode,
            wanted=targets.expected_endpoints(machine.network, pods_network, "", 0, addresses) if through_gateway else [],
            ranges=[args.mesh.cluster.pod_cidr] if with_pods and in_pods_network else [],
            answered=machine.network in addresses,
        )
        return shell.assignments(text)

    inputs = pulumi.Output.all(gateways=caller.gateways, workload=workload.effective_settings, facts=args.mesh.facts)
    return machine.verify(jobs.CALL_SCRIPT, inputs.apply(variables), [caller.from_cluster]).apply(parse)
