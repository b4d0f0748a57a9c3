"""Regional managed instance groups whose machines join without SSH."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi_gcp import compute, projects
from pulumi_kubernetes.rbac.v1 import Role, RoleBinding

from ... import names
from ...config.google import GceInstanceGroup, Google, machines_of_type, subnet_of
from ...config.stack import Settings
from ...istio.control_plane import Mesh
from ...istio.workload import Workload
from ...kubernetes import Cluster
from . import startup
from .names import resource_name
from .network import GoogleNetworks


def instance_groups(
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
    groups = machines_of_type(settings, GceInstanceGroup)
    connect = projects.IAMCustomRole(
        "fleet-role",
        role_id=f"istioVmMesh_{''.join(letter if letter.isalnum() else '_' for letter in stack)}"[:64],
        title=f"istio-vm-mesh {stack}: machines that join by themselves",
        permissions=list(startup.PERMISSIONS),
        opts=pulumi.ResourceOptions(provider=networks.provider),
    )
    rights = {
        name: _rights(name, settings, google, networks, workloads[name], connect, opts)
        for name in sorted({machine.workload for machine in groups.values()})
    }
    made = [
        InstanceGroup(stack, name, settings, google, networks, cluster, mesh, workloads[machine.workload], rights[machine.workload])
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
    role = startup.token_role(name, spec)
    binding = pulumi.Output.all(account.email, account.unique_id).apply(
        lambda known: startup.token_role_binding(name, spec, known[0], known[1])
    )
    return [
        member,
        Role(f"{name}-machines-role", metadata=role["metadata"], rules=role["rules"], opts=inside),
        RoleBinding(
            f"{name}-machines-binding",
            metadata=role["metadata"],
            role_ref=startup.token_role_binding(name, spec, "", "")["roleRef"],
            subjects=binding.apply(lambda manifest: manifest["subjects"]),
            opts=inside,
        ),
    ]


class InstanceGroup(pulumi.ComponentResource):
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
        assert isinstance(machine, GceInstanceGroup) and cluster.api_server is not None

        def boot(found: dict[str, Any]) -> str:
            return startup.startup_script(
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
        self.ready = instance_group(stack, name, machine, settings, google, networks, text, opts)
        self.register_outputs({})


ZONES = 3  # of a region, over which a group without `zones` spreads


def instance_group(
    stack: str,
    name: str,
    machine: GceInstanceGroup,
    settings: Settings,
    google: Google,
    networks: GoogleNetworks,
    boot: pulumi.Output[str],
    opts: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """Make the group `name` with the boot script `boot`; returns what exists once `minimum` machines run and are healthy."""
    child = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(provider=networks.provider))
    spot = None
    if machine.spot:
        spot = compute.RegionInstanceTemplateSchedulingArgs(
            provisioning_model="SPOT", preemptible=True, automatic_restart=False, instance_termination_action="STOP"
        )
    # No name of ours: another template must exist before the one in use can go.
    template = compute.RegionInstanceTemplate(
        f"{name}-template",
        region=google.region,
        machine_type=machine.machine_type,
        disks=[
            compute.RegionInstanceTemplateDiskArgs(
                source_image=machine.image, disk_size_gb=machine.disk_size, disk_type="pd-balanced", boot=True, auto_delete=True
            )
        ],
        # No access configuration: no public address.
        network_interfaces=[compute.RegionInstanceTemplateNetworkInterfaceArgs(subnetwork=networks.subnets[subnet_of(settings, machine)])],
        service_account=compute.RegionInstanceTemplateServiceAccountArgs(
            email=networks.accounts[machine.workload].email, scopes=list(startup.SCOPES)
        ),
        metadata=boot.apply(startup.group_metadata),
        shielded_instance_config=compute.RegionInstanceTemplateShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_vtpm=True, enable_integrity_monitoring=True
        ),
        scheduling=spot,
        opts=child,
    )
    # The agent's own readiness: it answers in plain text whatever the mesh demands of the application.
    health = compute.HealthCheck(
        f"{name}-health",
        http_health_check=compute.HealthCheckHttpHealthCheckArgs(port=names.STATUS_PORT, request_path="/healthz/ready"),
        check_interval_sec=10,
        timeout_sec=5,
        healthy_threshold=1,
        unhealthy_threshold=6,
        opts=child,
    )
    manager = compute.RegionInstanceGroupManager(
        f"{name}-manager",
        region=google.region,
        base_instance_name=resource_name(stack, name)[:54].rstrip("-"),
        versions=[compute.RegionInstanceGroupManagerVersionArgs(instance_template=template.self_link)],
        distribution_policy_zones=list(machine.zones) or None,
        auto_healing_policies=compute.RegionInstanceGroupManagerAutoHealingPoliciesArgs(
            health_check=health.id,
            # Longer than a first start takes, setup and package included; else machines are made again for ever.
            initial_delay_sec=300,
        ),
        update_policy=compute.RegionInstanceGroupManagerUpdatePolicyArgs(
            type="PROACTIVE",
            minimal_action="REPLACE",
            replacement_method="SUBSTITUTE",
            # A fixed number must be 0 or at least one a zone.
            max_surge_fixed=len(machine.zones) or ZONES,
            max_unavailable_fixed=0,
        ),
        wait_for_instances=True,
        wait_for_instances_status="STABLE",
        opts=pulumi.ResourceOptions.merge(
            child,
            pulumi.ResourceOptions(
                depends_on=list(networks.ready), custom_timeouts=pulumi.CustomTimeouts(create="20m", update="40m", delete="20m")
            ),
        ),
    )
    autoscaler = compute.RegionAutoscaler(
        f"{name}-autoscaler",
        region=google.region,
        target=manager.id,
        autoscaling_policy=compute.RegionAutoscalerAutoscalingPolicyArgs(
            min_replicas=machine.minimum,
            max_replicas=machine.maximum,
            cooldown_period=180,
            cpu_utilization=compute.RegionAutoscalerAutoscalingPolicyCpuUtilizationArgs(target=machine.target_cpu),
            scale_in_control=compute.RegionAutoscalerAutoscalingPolicyScaleInControlArgs(
                max_scaled_in_replicas=compute.RegionAutoscalerAutoscalingPolicyScaleInControlMaxScaledInReplicasArgs(fixed=1),
                time_window_sec=600,
            ),
        ),
        opts=child,
    )
    return [manager, autoscaler]
