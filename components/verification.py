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

from components.clusters import Cluster
from components.gateway import Gateway
from components.machine import Machine
from components.mesh import Mesh
from components.plan import mesh as mesh_plan
from components.plan import router, script
from components.plan import verification as plan
from components.plan import workload as workload_plan
from components.settings import Settings
from components.workload import Workload


def verify(
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
        settings.cluster.network: {mesh_plan.GATEWAY: mesh.gateway_ip},
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
        if plan.called(settings.workloads[name]):
            found[name] += [_from_machine(machine, settings, members[machine], known_gateways, [commands[name]]) for machine in members]
    for name, spec in settings.workloads.items():
        if spec.role == "router":
            found[name] += [
                machines[machine].prove(script.local("carried", {"GATEWAY_NAME": machine}), list(commands.values()))
                for machine in settings.machines_of(name)
            ]
    return {
        name: pulumi.Output.all(texts=pulumi.Output.all(*texts), names=pulumi.Output.all(*names)).apply(
            lambda all_: plan.evidence("\n".join(all_["texts"]), {key: value for each in all_["names"] for key, value in each.items()})
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
    port = (plan.called(spec) or ("", 0, 0))[2]

    def text(found: dict[str, Any]) -> str:
        seen = [
            plan.seen_at(settings.cluster.network, settings.machines[machine].network, address, port, found["gateways"])
            for machine, address in found["addresses"].items()
        ]
        return plan.verify(
            name,
            spec,
            settings.mesh,
            settings.verify,
            kubeconfig=found["kubeconfig"],
            entries=found["entries"],
            addresses=found["addresses"],
            wanted=[endpoint for endpoints in seen for endpoint in endpoints],
            from_pods=not router.cut_off(settings, name),
            strict=workload_plan.strict(settings, spec),
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
        workload_plan.deployment(name, spec),
        workload_plan.services(spec),
        workload_plan.workload_group(name, spec, ""),
        settings.mesh.version,
    )
    changes = {"joined": {machine: made.joined for machine, made in machines.items()}, "gateways": gateways, "plan": json.dumps(described)}
    return local.Command(
        f"{name}-verification",
        create=script.LOCAL,
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
        return plan.calls(
            group,
            spec,
            caller=f"machine {name}",
            mode=settings.verify,
            wanted=plan.seen_at(network, near, "", 0, found) if with_pods and network != near else [],
            ranges=[settings.cluster.pod_range] if with_pods and network == near else [],
            answered=network in found,
        )

    return machine.prove(gateways.apply(text), after)
