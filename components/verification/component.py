"""The proof that machines and pods answer: resources that run again whenever something changed that could change the answer.

Per workload one command on the cluster's side, then one per machine over SSH; gateways that are machines say last what they carried.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pulumi
from pulumi_command import local

from .. import shell
from ..config.stack import Settings
from ..istio import manifests, network_gateways
from ..istio.control_plane import Mesh
from ..istio.workload import Workload
from ..kubernetes import Cluster
from ..machines.machine import Machine
from ..names import EASTWEST_GATEWAY
from ..platforms.gateway import Gateway
from . import evidence, jobs, targets


def verify_workloads(
    settings: Settings,
    cluster: Cluster,
    mesh: Mesh,
    workloads: Mapping[str, Workload],
    machines: Mapping[str, Machine],
    gateways: Mapping[str, Gateway],
    after: Sequence[pulumi.Resource],
) -> dict[str, pulumi.Output[dict[str, Any]]]:
    """Verify every workload with its machines, once `after` exists; returns the evidence by workload (`plan.verification.evidence`).

    `gateways` are those of other networks than the cluster's.
    """
    by_name = {
        settings.cluster.network: {EASTWEST_GATEWAY: mesh.gateway_ip},
        **{name: known.addresses for name, known in gateways.items()},
    }
    known_gateways = pulumi.Output.all(**{network: pulumi.Output.all(*addresses.values()) for network, addresses in by_name.items()})
    names = [address.apply(partial(_named, name)) for addresses in by_name.values() for name, address in addresses.items()]
    found: dict[str, list[pulumi.Output[str]]] = {}
    commands: dict[str, local.Command] = {}
    for name, workload in workloads.items():
        members = {machine: machines[machine] for machine in settings.machines_of(name)}
        commands[name] = _from_pods(name, settings, cluster, workload, members, known_gateways, after)
        found[name] = [pulumi.Output.unsecret(commands[name].stdout)]
        if targets.probe_target(settings.workloads[name]):
            found[name] += [_from_machine(machine, settings, members[machine], known_gateways, [commands[name]]) for machine in members]
    for name, spec in settings.workloads.items():
        if spec.role == "router":
            found[name] += [
                machines[machine].prove(shell.local_script("verification/carried", {"GATEWAY_NAME": machine}), list(commands.values()))
                for machine in settings.machines_of(name)
            ]
    return {
        name: pulumi.Output.all(texts=pulumi.Output.all(*texts), names=pulumi.Output.all(*names)).apply(
            lambda all_: evidence.parse_evidence(
                "\n".join(all_["texts"]), {key: value for each in all_["names"] for key, value in each.items()}
            )
        )
        for name, texts in found.items()
    }


def _named(name: str, address: str) -> dict[str, str]:
    return {address: name}


def _from_pods(
    name: str,
    settings: Settings,
    cluster: Cluster,
    workload: Workload,
    machines: Mapping[str, Machine],
    gateways: pulumi.Output[dict[str, list[str]]],
    after: Sequence[pulumi.Resource],
) -> local.Command:
    """Entries are healthy, and a pod's calls reach every machine that pods can call."""
    spec = settings.workloads[name]
    port = (targets.probe_target(spec) or ("", 0, 0))[2]

    def text(found: dict[str, Any]) -> str:
        seen = [
            targets.expected_endpoints(settings.cluster.network, settings.machines[machine].network, address, port, found["gateways"])
            for machine, address in found["addresses"].items()
        ]
        return jobs.verification_script(
            name,
            spec,
            settings.mesh,
            settings.verify,
            kubeconfig=found["kubeconfig"],
            entries=found["entries"],
            addresses=found["addresses"],
            wanted=[endpoint for endpoints in seen for endpoint in endpoints],
            from_pods=not network_gateways.unreachable_from_pods(settings, name),
            strict=manifests.enforces_strict_mtls(settings, spec),
            fleet=settings.fleet_of(name),
        )

    known = {
        "kubeconfig": cluster.kubeconfig,
        "entries": {machine: made.entry for machine, made in machines.items()},
        "addresses": {machine: made.address for machine, made in machines.items()},
        "gateways": gateways,
    }
    # What could change the answer and is not in the script itself.
    described = (
        manifests.deployment(name, spec),
        manifests.services(spec),
        manifests.workload_group(name, spec, ""),
        settings.mesh.version,
    )
    changes = {"joined": {machine: made.joined for machine, made in machines.items()}, "gateways": gateways, "plan": json.dumps(described)}
    return local.Command(
        f"{name}-verification",
        create=shell.LOCAL,
        stdin=pulumi.Output.all(**known).apply(text),
        environment={"CHANGES": pulumi.Output.json_dumps(changes)},
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(
            parent=workload,
            depends_on=[*workload.ready, *after],
            custom_timeouts=pulumi.CustomTimeouts(create="10m", update="10m"),
        ),
    )


def _from_machine(
    name: str, settings: Settings, machine: Machine, gateways: pulumi.Output[dict[str, list[str]]], after: list[pulumi.Resource]
) -> pulumi.Output[str]:
    """The machine's calls reach a pod, where the workload has pods of this program's; and it has been called itself, where pods can call it."""
    group, network = settings.machines[name].workload, settings.machines[name].network
    spec, near = settings.workloads[group], settings.cluster.network
    with_pods = bool(spec.pods and spec.pods.replicas)

    def text(found: dict[str, list[str]]) -> str:
        return jobs.call_script(
            group,
            spec,
            caller=f"machine {name}",
            mode=settings.verify,
            wanted=targets.expected_endpoints(network, near, "", 0, found) if with_pods and network != near else [],
            ranges=[settings.cluster.pod_range] if with_pods and network == near else [],
            answered=network in found,
        )

    return machine.prove(gateways.apply(text), after)
