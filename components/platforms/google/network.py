"""VPCs on Google Cloud: subnets, NAT, peering, service accounts, and a firewall that lets in what the stack declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import Provider, compute, dns, serviceaccount

from ...config.google import GkeCluster, Google
from ...config.stack import Settings
from . import firewall, names


@dataclass(frozen=True, kw_only=True)
class GoogleNetworks:
    """What clusters and machines on Google Cloud need. All by the stack's names: `vpcs` and `subnets` IDs, `accounts` (by workload, and "nodes").

    `gateway` is where machines find the east-west gateway, `gateway_address` the address that its balancer takes; None without a cluster here.
    `connected`: whoever is in a VPC reaches the internet, and other VPCs; `ready`: the firewall, too, lets in what it shall.
    """

    provider: Provider
    vpcs: Mapping[str, pulumi.Output[str]]
    subnets: Mapping[str, pulumi.Output[str]]
    accounts: Mapping[str, serviceaccount.Account]
    gateway: pulumi.Output[str] | None
    gateway_address: pulumi.Output[str] | None
    connected: Sequence[pulumi.Resource]
    ready: Sequence[pulumi.Resource]


class Vpcs(pulumi.ComponentResource):
    """Everything of a stack that lies below its cluster and machines."""

    networks: GoogleNetworks

    def __init__(self, stack: str, settings: Settings, google: Google) -> None:
        super().__init__("istio-vm-mesh:networks:Google", "google", {})
        labels = {"istio-vm-mesh-stack": names.slug(stack), **google.labels}
        provider = Provider("google-provider", project=google.project, region=google.region, default_labels=labels)
        self._stack, self._settings, self._google = stack, settings, google
        self._child = pulumi.ResourceOptions(parent=self, provider=provider)
        vpcs = {
            vpc: compute.Network(f"vpc-{vpc}", auto_create_subnetworks=False, routing_mode="REGIONAL", opts=self._child)
            for vpc in names.vpcs(settings)
        }
        subnets = {name: self._subnet(name, vpcs[subnet.vpc]) for name, subnet in google.subnets.items()}
        nats = [self._nat(vpc, network) for vpc, network in vpcs.items()]
        peerings = self._peer(vpcs)
        accounts = {name: self._account(name, f"machines of the workload {name}") for name in names.workloads_with_machines(settings)}
        if isinstance(settings.cluster, GkeCluster):
            accounts[names.NODES] = self._account(names.NODES, "nodes of the cluster")
        rules = [self._rule(flow, vpcs, accounts) for flow in firewall.firewall_rules(settings)]
        gateway, address = self._gateway(settings.cluster, vpcs, subnets) if isinstance(settings.cluster, GkeCluster) else (None, None)
        self.networks = GoogleNetworks(
            provider=provider,
            vpcs={name: network.id for name, network in vpcs.items()},
            subnets={name: subnet.id for name, subnet in subnets.items()},
            accounts=accounts,
            gateway=gateway,
            gateway_address=address,
            connected=[*nats, *peerings],
            ready=[*nats, *peerings, *rules],
        )
        self.register_outputs({})

    def _subnet(self, name: str, network: compute.Network) -> compute.Subnetwork:
        """One subnet; the cluster's has the ranges of pods and Services, in an order that must stay."""
        cluster = self._settings.cluster
        second = None
        if isinstance(cluster, GkeCluster) and cluster.subnet == name:
            second = [
                compute.SubnetworkSecondaryIpRangeArgs(range_name="pods", ip_cidr_range=cluster.pod_range),
                compute.SubnetworkSecondaryIpRangeArgs(range_name="services", ip_cidr_range=cluster.service_range),
            ]
        return compute.Subnetwork(
            f"subnet-{name}",
            network=network.id,
            region=self._google.region,
            ip_cidr_range=self._google.subnets[name].range,
            secondary_ip_ranges=second,
            private_ip_google_access=True,
            opts=self._child,
        )

    def _nat(self, vpc: str, network: compute.Network) -> compute.RouterNat:
        """Nothing has a public address, so packages and images come through NAT; a VPC needs its own."""
        router = compute.Router(f"router-{vpc}", network=network.id, region=self._google.region, opts=self._child)
        return compute.RouterNat(
            f"nat-{vpc}",
            router=router.name,
            region=self._google.region,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
            opts=self._child,
        )

    def _peer(self, vpcs: Mapping[str, compute.Network]) -> list[compute.NetworkPeering]:
        """Peer every VPC with the first, one half after the other: Google refuses two operations on a VPC's peerings at once."""
        first, *others = vpcs
        made: list[compute.NetworkPeering] = []
        for one, other in [pair for vpc in others for pair in ((first, vpc), (vpc, first))]:
            half = compute.NetworkPeering(
                f"peering-{one}-{other}",
                network=vpcs[one].self_link,
                peer_network=vpcs[other].self_link,
                opts=pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=made[-1:])),
            )
            made.append(half)
        return made

    def _account(self, name: str, purpose: str) -> serviceaccount.Account:
        """A service account without any role; whoever uses it adds what it needs."""
        return serviceaccount.Account(
            f"{name}-google-account",
            account_id=names.account_id(self._stack, name),
            display_name=f"istio-vm-mesh {self._stack}: {purpose}",
            opts=self._child,
        )

    def _rule(
        self, flow: firewall.FirewallRule, vpcs: Mapping[str, compute.Network], accounts: Mapping[str, serviceaccount.Account]
    ) -> compute.Firewall:
        return compute.Firewall(
            f"firewall-{flow.name}",
            network=vpcs[flow.vpc].id,
            description=flow.why,
            direction="INGRESS",
            priority=1000,
            source_ranges=list(flow.sources),
            target_service_accounts=[accounts[flow.target].email],
            allows=[compute.FirewallAllowArgs(protocol="tcp", ports=[str(port) for port in flow.ports])],
            opts=self._child,
        )

    def _gateway(
        self, cluster: GkeCluster, vpcs: Mapping[str, compute.Network], subnets: Mapping[str, compute.Subnetwork]
    ) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """Reserve the address of the east-west gateway, and give it a name where the stack has one."""
        reserved = compute.Address(
            "gateway-address",
            region=self._google.region,
            address_type="INTERNAL",
            purpose="SHARED_LOADBALANCER_VIP",
            subnetwork=subnets[cluster.subnet].id,
            address=cluster.gateway.address,
            opts=self._child,
        )
        name = cluster.gateway.dns_name
        if name is None:
            return reserved.address, reserved.address
        zone = dns.ManagedZone(
            "gateway-zone",
            # The name alone: a zone of its domain would hide every other name of that domain from the VPCs.
            dns_name=f"{name}.",
            description=f"istio-vm-mesh {self._stack}",
            visibility="private",
            private_visibility_config=dns.ManagedZonePrivateVisibilityConfigArgs(
                networks=[dns.ManagedZonePrivateVisibilityConfigNetworkArgs(network_url=network.id) for network in vpcs.values()]
            ),
            opts=self._child,
        )
        record = dns.RecordSet(
            "gateway-record",
            managed_zone=zone.name,
            name=f"{name}.",
            type="A",
            ttl=60,
            rrdatas=[reserved.address],
            opts=self._child,
        )
        # Known from the start, and not before the record is there.
        return record.id.apply(lambda _: name), reserved.address
