"""The proof that machines and pods answer.

Each proof is a resource whose inputs are everything that could change the answer, so it runs again
when something changed. Per workload one command runs beside Pulumi, then one on each machine over
SSH. Gateways that are machines report last what passed through them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pulumi
from pulumi_command import local

from .. import shell
from ..istio import manifests
from ..istio.control_plane import Mesh
from ..istio.workload import Workload
from ..machines.machine import Machine
from ..names import EASTWEST_GATEWAY
from ..platforms.gateway import Gateway
from . import evidence, jobs, targets

GatewayAddresses = pulumi.Output[dict[str, list[str]]]
"""The addresses of each network's gateway, by network."""


@dataclass(frozen=True, kw_only=True)
class VerifiedWorkload:
    """A workload as it is verified.

    workload: its objects in the cluster. machines: its machines, by name.
    reachable_from_pods: whether pods can call it.
    strict: whether an answer to plaintext fails the verification. Else it is only reported.
    min_group_size: how many machines its instance groups have at least.
    """

    workload: Workload
    machines: Mapping[str, Machine]
    reachable_from_pods: bool = True
    strict: bool = True
    min_group_size: int = 0


@dataclass(frozen=True, kw_only=True)
class VerificationArgs:
    """What is verified, and how.

    mesh: the mesh. mode: `fail` or `warn`, what a failed verification does to the update.
    pod_cidr: the CIDR of the cluster's pods.
    workloads: what is verified. gateways: the gateways of networks other than the cluster's.
    depends_on: what must exist before.
    """

    mesh: Mesh
    mode: str
    pod_cidr: str
    workloads: Mapping[str, VerifiedWorkload]
    gateways: Mapping[str, Gateway]
    depends_on: Sequence[pulumi.Resource] = ()


def verify_workloads(args: VerificationArgs) -> dict[str, pulumi.Output[dict[str, Any]]]:
    """Verify workloads with their machines and return the evidence by workload (see `evidence.py`)."""
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
    outputs: dict[str, list[pulumi.Output[str]]] = {}
    commands: dict[str, local.Command] = {}
    for name, verified in args.workloads.items():
        commands[name] = _from_cluster(name, verified, args, addresses)
        outputs[name] = [pulumi.Output.unsecret(commands[name].stdout)]
        if targets.probe_target(verified.workload.settings):
            outputs[name] += [_from_machine(name, machine, args, addresses, [commands[name]]) for machine in verified.machines]
    for name, verified in args.workloads.items():
        if verified.workload.settings.role == "router":
            outputs[name] += [
                machine.verify(shell.remote_script("verification/gateway-stats", {"GATEWAY_NAME": gateway}), list(commands.values()))
                for gateway, machine in verified.machines.items()
            ]
    return {
        name: pulumi.Output.all(texts=pulumi.Output.all(*texts), names=gateway_names).apply(
            lambda parts: evidence.parse_evidence("\n".join(parts["texts"]), dict(parts["names"]))
        )
        for name, texts in outputs.items()
    }


def _pair(name: str, address: str) -> tuple[str, str]:
    return address, name


def _from_cluster(name: str, verified: VerifiedWorkload, args: VerificationArgs, gateways: GatewayAddresses) -> local.Command:
    """Wait until the entries are healthy, then have a pod call every machine that pods can call."""
    mesh, settings, machines = args.mesh, verified.workload.settings, verified.machines
    port = (targets.probe_target(settings) or ("", 0, 0))[2]

    def script(inputs: Mapping[str, Any]) -> str:
        expected = [
            targets.expected_endpoints(mesh.network, machines[machine].network, address, port, inputs["gateways"])
            for machine, address in inputs["addresses"].items()
        ]
        return jobs.verification_script(
            name,
            settings,
            mesh.settings,
            args.mode,
            kubeconfig=inputs["kubeconfig"],
            entries=inputs["entries"],
            addresses=inputs["addresses"],
            wanted=[endpoint for endpoints in expected for endpoint in endpoints],
            from_pods=verified.reachable_from_pods,
            strict=verified.strict,
            fleet=verified.min_group_size,
        )

    inputs = {
        "kubeconfig": mesh.cluster.kubeconfig,
        "entries": {machine_name: machine.entry for machine_name, machine in machines.items()},
        "addresses": {machine_name: machine.address for machine_name, machine in machines.items()},
        "gateways": gateways,
    }
    # What could change the answer and is not in the script itself.
    objects = (
        manifests.deployment(name, settings),
        manifests.services(settings),
        manifests.workload_group(name, settings, ""),
        mesh.settings.version,
    )
    changes = {
        "joined": {machine_name: machine.revision for machine_name, machine in machines.items()},
        "gateways": gateways,
        "plan": json.dumps(objects),
    }
    return local.Command(
        f"{name}-verification",
        create=shell.LOCAL,
        stdin=pulumi.Output.all(**inputs).apply(script),
        environment={"CHANGES": pulumi.Output.json_dumps(changes)},
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(
            parent=verified.workload,
            depends_on=[*verified.workload.all_resources, *args.depends_on],
            custom_timeouts=pulumi.CustomTimeouts(create="10m", update="10m"),
        ),
    )


def _from_machine(
    name: str,
    machine_name: str,
    args: VerificationArgs,
    gateways: GatewayAddresses,
    depends_on: Sequence[pulumi.Resource],
) -> pulumi.Output[str]:
    """Have a machine call a pod, and prove that the machine itself was called.

    The first is left out where the program runs no pods of the workload, the second where pods
    cannot call the machine.
    """
    verified, pods_network = args.workloads[name], args.mesh.network
    machine, settings = verified.machines[machine_name], verified.workload.settings
    with_pods = bool(settings.pods and settings.pods.replicas)
    in_pods_network = machine.network == pods_network

    def script(addresses: dict[str, list[str]]) -> str:
        through_gateway = with_pods and not in_pods_network
        return jobs.call_script(
            name,
            settings,
            caller=f"machine {machine_name}",
            mode=args.mode,
            wanted=targets.expected_endpoints(machine.network, pods_network, "", 0, addresses) if through_gateway else [],
            ranges=[args.pod_cidr] if with_pods and in_pods_network else [],
            answered=machine.network in addresses,
        )

    return machine.verify(gateways.apply(script), depends_on)
