"""Regional managed instance groups whose machines join without SSH.

Each machine mints its own token with its Google identity, which has one right in the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_gcp import compute, projects

from ...config.google import GceInstanceGroup, surge
from ...config.google_machine_types import default_disk_type
from ...istio.workload import Workload
from ...kubernetes import KubernetesObject
from ...names import STATUS_PORT, part_name
from . import names, startup
from .instance_options import scheduling, shielding
from .names import AUTOSCALER, BINDING, CONNECT_ROLE, CONNECTS, HEALTH, MANAGER, ROLE, TEMPLATE, networks_child_name
from .network import GoogleNetworks


def connect_role(networks: GoogleNetworks) -> projects.IAMCustomRole:
    """Declare the role that lets machines reach the API server, and nothing else."""
    return projects.IAMCustomRole(
        networks_child_name(networks.name, CONNECT_ROLE),
        role_id=networks.accounts[names.NODES].unique_id.apply(lambda unique_id: names.role_id(networks.stack, unique_id)),
        title=names.title(networks.stack, "machines that join by themselves"),
        permissions=list(startup.PERMISSIONS),
        opts=pulumi.ResourceOptions(provider=networks.provider),
    )


def token_rights(
    workload: Workload, role: projects.IAMCustomRole, networks: GoogleNetworks, opts: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Let the workload's Google service account mint tokens of its ServiceAccount.

    role: lets it reach the API server. opts: the options of what is in the cluster.
    """
    name, settings = workload.pulumi_resource_name, workload.settings
    account = networks.accounts[settings.name]
    member = projects.IAMMember(
        part_name(name, CONNECTS),
        project=networks.settings.project,
        role=role.name,
        member=account.member,
        opts=pulumi.ResourceOptions(parent=workload, provider=networks.provider),
    )
    in_cluster = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(parent=workload, depends_on=workload.identity_resources))
    token_role = startup.token_role(settings)
    subjects = pulumi.Output.all(account.email, account.unique_id).apply(
        lambda users: startup.token_role_binding(settings, users[0], users[1])["subjects"]
    )
    binding = {**startup.token_role_binding(settings, "", ""), "subjects": subjects}
    return [
        member,
        KubernetesObject(part_name(name, ROLE), token_role, in_cluster),
        KubernetesObject(part_name(name, BINDING), binding, in_cluster),
    ]


@dataclass(frozen=True, kw_only=True)
class InstanceGroupArgs:
    """What an instance group is made from.

    settings: the group. workload: the workload that its machines run.
    networks: the VPCs. subnet: the name of its subnet.
    rights: what must exist before a machine can mint a token.
    """

    settings: GceInstanceGroup
    workload: Workload
    networks: GoogleNetworks
    subnet: str
    rights: Sequence[pulumi.Resource]


class InstanceGroup(pulumi.ComponentResource):
    """Machines of a workload that grow and shrink in number without this program.

    manager: the managed instance group.
    ready: the resources that exist once the minimum of machines run and have joined.
    revision: changes whenever all its machines are others, and is there once they have joined.
    changes: changes whenever they will be others, and is there before them.
    """

    manager: compute.RegionInstanceGroupManager
    ready: list[pulumi.Resource]
    revision: pulumi.Output[str]
    changes: pulumi.Output[str]

    def __init__(self, name: str, args: InstanceGroupArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.INSTANCE_GROUP_TYPE, name, {}, opts)
        self._args = args
        workload, mesh = args.workload, args.workload.mesh
        assert mesh.cluster.api_server is not None, "the checks of the settings ask for a GKE cluster"
        script = pulumi.Output.all(
            facts=mesh.facts,
            network=mesh.network_name(self._args.settings.network),
            gateway=mesh.gateway,
            root_certificate=mesh.root_certificate,
            api_server=mesh.cluster.api_server,
        ).apply(self._startup_script)
        depends_on = [*args.rights, *workload.identity_resources, *mesh.ready]
        child = pulumi.ResourceOptions(parent=self, depends_on=depends_on, provider=args.networks.provider)
        template = self._template(script, child)
        self.manager = self._manager(template, child)
        autoscaler = self._autoscaler(self.manager, child)
        self.ready = [self.manager, autoscaler]
        self.changes = template.self_link
        self.revision = pulumi.Output.all(template.self_link, self.manager.id, autoscaler.id).apply(" ".join)
        self.register_outputs({})

    def _startup_script(self, inputs: Mapping[str, Any]) -> str:
        settings, workload = self._args.settings, self._args.workload
        return startup.startup_script(
            startup.StartupInputs(
                project=pulumi.get_project(),
                stack=self._args.networks.stack,
                workload=workload.settings,
                mesh=workload.mesh.settings,
                setup=settings.startup_script or "",
                rotation=settings.rotation,
                capture=settings.capture,
                firewall=settings.firewall,
                **inputs,
            )
        )

    def _template(self, script: pulumi.Output[str], child: pulumi.ResourceOptions) -> compute.RegionInstanceTemplate:
        """Declare the template. Google names it, because a new one exists beside the old one."""
        settings, networks = self._args.settings, self._args.networks
        shielded, stops = shielding(settings.machine_type), scheduling(settings)
        return compute.RegionInstanceTemplate(
            part_name(self._name, TEMPLATE),
            region=networks.settings.region,
            machine_type=settings.machine_type,
            disks=[
                compute.RegionInstanceTemplateDiskArgs(
                    source_image=settings.image,
                    disk_size_gb=settings.disk_size,
                    disk_type=settings.disk_type or default_disk_type(settings.machine_type),
                    boot=True,
                    auto_delete=True,
                )
            ],
            # No access configuration: no public address.
            network_interfaces=[compute.RegionInstanceTemplateNetworkInterfaceArgs(subnetwork=networks.subnets[self._args.subnet])],
            service_account=compute.RegionInstanceTemplateServiceAccountArgs(
                email=networks.accounts[settings.workload].email, scopes=list(startup.SCOPES)
            ),
            metadata=script.apply(startup.group_metadata),
            shielded_instance_config=compute.RegionInstanceTemplateShieldedInstanceConfigArgs(**shielded) if shielded else None,
            scheduling=compute.RegionInstanceTemplateSchedulingArgs(**stops) if stops else None,
            opts=child,
        )

    def _manager(self, template: compute.RegionInstanceTemplate, child: pulumi.ResourceOptions) -> compute.RegionInstanceGroupManager:
        settings, networks = self._args.settings, self._args.networks
        # The agent's readiness, served in plain text under any mTLS mode.
        health = compute.HealthCheck(
            part_name(self._name, HEALTH),
            http_health_check=compute.HealthCheckHttpHealthCheckArgs(port=STATUS_PORT, request_path="/healthz/ready"),
            check_interval_sec=10,
            timeout_sec=5,
            healthy_threshold=1,
            unhealthy_threshold=6,
            opts=child,
        )
        base_name = names.base_instance_name(networks.stack, self._name)
        return compute.RegionInstanceGroupManager(
            part_name(self._name, MANAGER),
            region=networks.settings.region,
            # A subnet or a cluster that is replaced is deleted first, and the template with it.
            # Google refuses that while a group uses the template. So the group follows from both.
            base_instance_name=pulumi.Output.all(networks.subnets[self._args.subnet], self._args.workload.mesh.cluster.api_server).apply(
                lambda _: base_name
            ),
            versions=[compute.RegionInstanceGroupManagerVersionArgs(instance_template=template.self_link)],
            distribution_policy_zones=list(settings.zones) or None,
            auto_healing_policies=compute.RegionInstanceGroupManagerAutoHealingPoliciesArgs(
                health_check=health.id,
                # Longer than a first start with setup and package, or machines never get ready.
                initial_delay_sec=300,
            ),
            # Without it the group is complete at once, with no machine. The autoscaler changes it.
            target_size=settings.min_replicas,
            update_policy=compute.RegionInstanceGroupManagerUpdatePolicyArgs(
                type="PROACTIVE",
                minimal_action="REPLACE",
                replacement_method="SUBSTITUTE",
                # Large groups are replaced within the time limit below.
                max_surge_fixed=surge(settings.zones, settings.max_replicas),
                max_unavailable_fixed=0,
            ),
            wait_for_instances=True,
            # Not STABLE, which a group is between the batches of an update, too.
            wait_for_instances_status="UPDATED",
            opts=pulumi.ResourceOptions.merge(
                child,
                pulumi.ResourceOptions(
                    depends_on=networks.ready_for(settings.workload),
                    ignore_changes=["targetSize"],
                    # The provider waits for updates with the time limit of creations, too.
                    custom_timeouts=pulumi.CustomTimeouts(create="60m", update="60m", delete="20m"),
                ),
            ),
        )

    def _autoscaler(self, manager: compute.RegionInstanceGroupManager, child: pulumi.ResourceOptions) -> compute.RegionAutoscaler:
        settings, networks = self._args.settings, self._args.networks
        return compute.RegionAutoscaler(
            part_name(self._name, AUTOSCALER),
            region=networks.settings.region,
            target=manager.id,
            autoscaling_policy=compute.RegionAutoscalerAutoscalingPolicyArgs(
                min_replicas=settings.min_replicas,
                max_replicas=settings.max_replicas,
                cooldown_period=180,
                cpu_utilization=compute.RegionAutoscalerAutoscalingPolicyCpuUtilizationArgs(target=settings.target_cpu),
                scale_in_control=compute.RegionAutoscalerAutoscalingPolicyScaleInControlArgs(
                    max_scaled_in_replicas=compute.RegionAutoscalerAutoscalingPolicyScaleInControlMaxScaledInReplicasArgs(fixed=1),
                    time_window_sec=600,
                ),
            ),
            # Another group has another autoscaler; that of the old one is deleted before it.
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(replace_on_changes=["target"])),
        )
