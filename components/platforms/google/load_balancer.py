"""The internal passthrough load balancer before a network's gateway, where its machines are on Compute Engine."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from pulumi_gcp import compute

from ...config import gateway_machines
from ...config.existing import ExistingCluster
from ...config.google import GceMachine, Google, subnet_of
from ...config.stack import Settings
from ...machines.machine import Machine
from ...names import CROSS_NETWORK_PORT, STATUS_PORT, gateway_workload_name
from .network import GoogleNetworks


class LoadBalancer(pulumi.ComponentResource):
    """Calls into a network go to one reserved address, and from there to those of its gateway's machines whose agent is ready.

    It passes packets through: callers' addresses stay, and so do TLS and the firewall's rules of the machines. `address` is the network's
    gateway as others know it. It stays when machines go, so nothing in the mesh changes with them. `ready`: it takes calls.
    """

    address: pulumi.Output[str]
    ready: Sequence[pulumi.Resource]

    def __init__(self, network: str, settings: Settings, google: Google, networks: GoogleNetworks, machines: Sequence[Machine]) -> None:
        """`machines` are the network's gateway."""
        name = f"{gateway_workload_name(network)}-balancer"
        super().__init__("istio-vm-mesh:machines:Balancer", name, {})
        names = gateway_machines.gateway_machine_names(settings, network)
        declared = {each: made for each in names if isinstance(made := settings.machines[each], GceMachine)}
        first = next(iter(declared.values()))
        subnet = subnet_of(settings, first)
        vpc = networks.vpcs[google.subnets[subnet].vpc]
        child = pulumi.ResourceOptions(parent=self, provider=networks.provider)
        reserved = compute.Address(
            f"{name}-address",
            region=google.region,
            address_type="INTERNAL",
            purpose="GCE_ENDPOINT",
            subnetwork=networks.subnets[subnet],
            opts=child,
        )
        zones = {machine: declared[machine.pulumi_resource_name].zone for machine in machines}
        groups = {
            zone: compute.InstanceGroup(
                f"{name}-instances{'' if zone == first.zone else f'-{zone}'}",
                zone=zone,
                network=vpc,
                # Its members are resources of their own, below.
                opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(ignore_changes=["instances"])),
            )
            for zone in sorted(set(zones.values()))
        }
        members = [self._member(name, machine, zone, groups[zone], child) for machine, zone in zones.items()]
        # The agent's own readiness, in plain text; it fails as soon as a gateway is told to stop, while its connections go on.
        health = compute.RegionHealthCheck(
            f"{name}-health",
            region=google.region,
            http_health_check=compute.RegionHealthCheckHttpHealthCheckArgs(port=STATUS_PORT, request_path="/healthz/ready"),
            check_interval_sec=2,
            timeout_sec=2,
            healthy_threshold=1,
            unhealthy_threshold=2,
            opts=child,
        )
        backends = compute.RegionBackendService(
            f"{name}-backends",
            region=google.region,
            load_balancing_scheme="INTERNAL",
            protocol="TCP",
            health_checks=health.id,
            backends=[
                compute.RegionBackendServiceBackendArgs(group=group.self_link, balancing_mode="CONNECTION") for group in groups.values()
            ],
            connection_draining_timeout_sec=10,
            opts=child,
        )
        rule = compute.ForwardingRule(
            f"{name}-rule",
            region=google.region,
            load_balancing_scheme="INTERNAL",
            backend_service=backends.id,
            ip_protocol="TCP",
            ip_address=reserved.address,
            ports=[str(CROSS_NETWORK_PORT)],
            network=vpc,
            subnetwork=networks.subnets[subnet],
            # Whoever calls is in this region, unless the cluster is one that this stack did not make.
            allow_global_access=isinstance(settings.cluster, ExistingCluster),
            opts=child,
        )
        self.address, self.ready = reserved.address, [rule, *members]
        self.register_outputs({"address": self.address})

    def _member(
        self, name: str, machine: Machine, zone: str, group: compute.InstanceGroup, child: pulumi.ResourceOptions
    ) -> compute.InstanceGroupMembership:
        """Put a machine into the group once it has joined. A machine that is made again has the same name but is no member any more, which no
        input shows: so it is put in again with it.
        """
        instance = machine.host.resource
        assert isinstance(instance, compute.Instance)
        return compute.InstanceGroupMembership(
            f"{name}-{machine.pulumi_resource_name}",
            zone=zone,
            instance_group=group.name,
            instance=instance.self_link,
            opts=pulumi.ResourceOptions.merge(
                child, pulumi.ResourceOptions(depends_on=[machine.join], replace_with=[instance], delete_before_replace=True)
            ),
        )
