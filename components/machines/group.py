"""Regional managed instance groups, with autoscaling and healing. Their machines run what their boot script says, and nobody reaches them."""

from __future__ import annotations

import pulumi
from pulumi_gcp import compute

from components.networks.google import GoogleNetworks
from components.plan import fleet as plan
from components.plan import google as google_plan
from components.plan import mesh as mesh_plan
from components.settings import Google, GroupMachine, Settings, subnet_of

ZONES = 3  # of a region, over which a group without `zones` spreads


def group(
    stack: str,
    name: str,
    machine: GroupMachine,
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
            email=networks.accounts[machine.workload].email, scopes=list(plan.SCOPES)
        ),
        metadata=boot.apply(plan.metadata),
        shielded_instance_config=compute.RegionInstanceTemplateShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_vtpm=True, enable_integrity_monitoring=True
        ),
        scheduling=spot,
        opts=child,
    )
    # The agent's own readiness: it answers in plain text whatever the mesh demands of the application.
    health = compute.HealthCheck(
        f"{name}-health",
        http_health_check=compute.HealthCheckHttpHealthCheckArgs(port=mesh_plan.STATUS_PORT, request_path="/healthz/ready"),
        check_interval_sec=10,
        timeout_sec=5,
        healthy_threshold=1,
        unhealthy_threshold=6,
        opts=child,
    )
    manager = compute.RegionInstanceGroupManager(
        f"{name}-manager",
        region=google.region,
        base_instance_name=google_plan.resource_name(stack, name)[:54].rstrip("-"),
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
