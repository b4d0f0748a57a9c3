"""Machines that join by themselves: a group's boot script, and the one right that its Google identity has in the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi_gcp import projects
from pulumi_kubernetes.rbac.v1 import Role, RoleBinding

from components.clusters import Cluster
from components.machines import group
from components.mesh import Mesh
from components.networks.google import GoogleNetworks
from components.plan import fleet as plan
from components.settings import Google, GroupMachine, Settings, of_platform
from components.workload import Workload


def fleets(
    stack: str,
    settings: Settings,
    google: Google,
    networks: GoogleNetworks,
    cluster: Cluster,
    mesh: Mesh,
    workloads: Mapping[str, Workload],
    opts: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """Make every group of the stack; returns what exists once their first machines have joined. `opts` are for what is in the cluster."""
    groups = of_platform(settings, GroupMachine)
    connect = projects.IAMCustomRole(
        "fleet-role",
        role_id=f"istioVmMesh_{''.join(letter if letter.isalnum() else '_' for letter in stack)}"[:64],
        title=f"istio-vm-mesh {stack}: machines that join by themselves",
        permissions=list(plan.PERMISSIONS),
        opts=pulumi.ResourceOptions(provider=networks.provider),
    )
    rights = {
        name: _rights(name, settings, google, networks, workloads[name], connect, opts)
        for name in sorted({machine.workload for machine in groups.values()})
    }
    made = [
        Fleet(stack, name, settings, google, networks, cluster, mesh, workloads[machine.workload], rights[machine.workload])
        for name, machine in groups.items()
    ]
    return [resource for fleet in made for resource in fleet.ready]


def _rights(
    name: str,
    settings: Settings,
    google: Google,
    networks: GoogleNetworks,
    workload: Workload,
    connect: projects.IAMCustomRole,
    opts: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """Let the workload's Google service account mint tokens of its ServiceAccount: reach the API server, and this one thing there."""
    account, spec = networks.accounts[name], settings.workloads[name]
    member = projects.IAMMember(
        f"{name}-connects",
        project=google.project,
        role=connect.name,
        member=account.member,
        opts=pulumi.ResourceOptions(parent=workload, provider=networks.provider),
    )
    inside = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(parent=workload, depends_on=workload.registered))
    role = plan.role(name, spec)
    binding = pulumi.Output.all(account.email, account.unique_id).apply(lambda known: plan.binding(name, spec, known[0], known[1]))
    return [
        member,
        Role(f"{name}-machines-role", metadata=role["metadata"], rules=role["rules"], opts=inside),
        RoleBinding(
            f"{name}-machines-binding",
            metadata=role["metadata"],
            role_ref=plan.binding(name, spec, "", "")["roleRef"],
            subjects=binding.apply(lambda manifest: manifest["subjects"]),
            opts=inside,
        ),
    ]


class Fleet(pulumi.ComponentResource):
    """A group of machines of a workload that grows and shrinks without this program. `ready`: its first machines have joined."""

    ready: list[pulumi.Resource]

    def __init__(
        self,
        stack: str,
        name: str,
        settings: Settings,
        google: Google,
        networks: GoogleNetworks,
        cluster: Cluster,
        mesh: Mesh,
        workload: Workload,
        rights: list[pulumi.Resource],
    ) -> None:
        super().__init__("istio-vm-mesh:machines:Fleet", name, {})
        machine = settings.machines[name]
        assert isinstance(machine, GroupMachine) and cluster.api_server is not None

        def boot(found: dict[str, Any]) -> str:
            return plan.boot(
                found["mesh"],
                machine,
                settings.workloads[machine.workload],
                gateway=found["gateway"],
                root_certificate=found["root"],
                api_server=found["api_server"],
            )

        known = {"mesh": mesh.described, "gateway": mesh.gateway, "root": mesh.root_certificate, "api_server": cluster.api_server}
        opts = pulumi.ResourceOptions(parent=self, depends_on=[*rights, *workload.registered, *mesh.ready])
        text = pulumi.Output.all(**known).apply(boot)
        self.ready = group.group(stack, name, machine, settings, google, networks, text, opts)
        self.register_outputs({})
