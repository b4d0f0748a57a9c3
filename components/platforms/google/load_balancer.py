"""The internal passthrough load balancer of a network's gateway on Compute Engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import compute

from ...names import CROSS_NETWORK_PORT, STATUS_PORT, part_name
from .instance_group import InstanceGroup
from .names import ADDRESS, BACKENDS, HEALTH, LOAD_BALANCER_TYPE, RULE, instances_name
from .network import GoogleNetworks


@dataclass(frozen=True, kw_only=True)
class GatewayMember:
    """A gateway machine behind the load balancer.

    name: the machine's name. instance: the machine. zone: its zone.
    joined: exists once the machine has joined the mesh.
    """

    name: str
    instance: compute.Instance
    zone: str
    joined: pulumi.Resource


@dataclass(frozen=True, kw_only=True)
class LoadBalancerArgs:
    """What a network gateway's load balancer is made from.

    networks: the VPCs. subnet: the name of the subnet of its address.
    members: the gateway's machines, the first one's zone first; none of an instance group.
    group: the instance group that is the gateway; None for single machines.
    global_access: whether clients may be in another region.
    """

    networks: GoogleNetworks
    subnet: str
    members: Sequence[GatewayMember]
    global_access: bool
    group: InstanceGroup | None = None


class LoadBalancer(pulumi.ComponentResource):
    """A reserved address for requests into a network, in front of gateway machines that are ready.

    It passes packets through: client addresses, TLS and the machines' firewall rules stay.
    address: the network's gateway as clients see it. It stays when machines go.
    ready: the resources that must exist before it forwards requests.
    """

    address: pulumi.Output[str]
    ready: Sequence[pulumi.Resource]

    def __init__(self, name: str, args: LoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(LOAD_BALANCER_TYPE, name, {}, opts)
        networks, google, subnet = args.networks, args.networks.settings, args.subnet
        vpc = networks.vpcs[google.subnets[subnet].vpc]
        child = pulumi.ResourceOptions(parent=self, provider=networks.provider)
        reserved = compute.Address(
            part_name(name, ADDRESS),
            region=google.region,
            address_type="INTERNAL",
            purpose="GCE_ENDPOINT",
            subnetwork=networks.subnets[subnet],
            opts=child,
        )
        groups = self._instance_groups(args.members, vpc, child)
        members = [self._member(member, groups[member.zone], child) for member in args.members]
        links = [group.self_link for group in groups.values()]
        region: pulumi.Input[str] = google.region
        if args.group:
            manager = args.group.manager
            links.append(manager.instance_group)
            # A group that goes with its subnet is deleted before the new one is there. Google
            # refuses that while a backend service has it. So this one goes before the group.
            region = manager.base_instance_name.apply(lambda _: google.region)
        # The agent's readiness, in plain text. It fails as soon as a gateway stops, while its
        # connections drain.
        health = compute.RegionHealthCheck(
            part_name(name, HEALTH),
            region=google.region,
            http_health_check=compute.RegionHealthCheckHttpHealthCheckArgs(port=STATUS_PORT, request_path="/healthz/ready"),
            check_interval_sec=2,
            timeout_sec=2,
            healthy_threshold=1,
            unhealthy_threshold=2,
            opts=child,
        )
        backends = compute.RegionBackendService(
            part_name(name, BACKENDS),
            region=region,
            load_balancing_scheme="INTERNAL",
            protocol="TCP",
            health_checks=health.id,
            backends=[compute.RegionBackendServiceBackendArgs(group=link, balancing_mode="CONNECTION") for link in links],
            connection_draining_timeout_sec=10,
            opts=child,
        )
        rule = compute.ForwardingRule(
            part_name(name, RULE),
            region=google.region,
            load_balancing_scheme="INTERNAL",
            backend_service=backends.id,
            ip_protocol="TCP",
            ip_address=reserved.address,
            ports=[str(CROSS_NETWORK_PORT)],
            network=vpc,
            subnetwork=networks.subnets[subnet],
            allow_global_access=args.global_access,
            opts=child,
        )
        self.address = reserved.address
        self.ready = [rule, *members, *(args.group.ready if args.group else ())]
        self.register_outputs({"address": self.address})

    def _instance_groups(
        self, members: Sequence[GatewayMember], vpc: pulumi.Output[str], child: pulumi.ResourceOptions
    ) -> Mapping[str, compute.InstanceGroup]:
        """Create the instance groups of single machines, one a zone; their members are resources of their own."""
        zones = sorted({member.zone for member in members})
        return {
            zone: compute.InstanceGroup(
                instances_name(self._name, "" if zone == members[0].zone else zone),
                zone=zone,
                network=vpc,
                opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(ignore_changes=["instances"])),
            )
            for zone in zones
        }

    def _member(
        self, member: GatewayMember, group: compute.InstanceGroup, child: pulumi.ResourceOptions
    ) -> compute.InstanceGroupMembership:
        """Add a machine to its instance group once it has joined.

        A recreated instance keeps its name but leaves the instance group, and no input of the
        membership changes. `replace_with` recreates the membership with the instance.
        """
        return compute.InstanceGroupMembership(
            part_name(self._name, member.name),
            zone=member.zone,
            instance_group=group.name,
            instance=member.instance.self_link,
            opts=pulumi.ResourceOptions.merge(
                child,
                pulumi.ResourceOptions(depends_on=[member.joined], replace_with=[member.instance], delete_before_replace=True),
            ),
        )
