"""VPCs on Google Cloud: subnets, NAT, peering, service accounts, and firewall rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import Provider, compute, dns, serviceaccount

from ...config.google import GkeCluster, Google
from ...names import part_name
from . import names
from .firewall import FirewallRule


@dataclass(frozen=True, kw_only=True)
class GoogleNetworks:
    """What clusters and machines on Google Cloud need.

    name: the name of the component that made them.
    stack: the stack's name; names on Google Cloud begin with it.
    settings: project, region, subnets and SSH.
    provider: the provider of everything on Google Cloud.
    vpcs, subnets: their IDs, by the stack's names.
    accounts: the service account of each workload's machines, and of the cluster's nodes.
    gateway: the address or DNS name at which machines reach the east-west gateway.
    gateway_address: the address of its load balancer. Both are None without a GKE cluster.
    connected: NAT, peering and the gateway's DNS record exist.
    rules: the firewall rules, by what they target.
    """

    name: str
    stack: str
    settings: Google
    provider: Provider
    vpcs: Mapping[str, pulumi.Output[str]]
    subnets: Mapping[str, pulumi.Output[str]]
    accounts: Mapping[str, serviceaccount.Account]
    gateway: pulumi.Output[str] | None
    gateway_address: pulumi.Output[str] | None
    connected: Sequence[pulumi.Resource]
    rules: Mapping[str, Sequence[pulumi.Resource]]

    def ready_for(self, target: str) -> list[pulumi.Resource]:
        """Return what must exist before machines of a workload, or the cluster's nodes, do.

        Each machine names it in its state. So it is the last of its firewall rules alone, which
        waits for the rest. A VPC whose rules others manage has none.
        """
        return list(self.rules.get(target, ())[-1:] or [*self.connected, self.accounts[target]])


@dataclass(frozen=True, kw_only=True)
class GoogleNetworkArgs:
    """What the networks of a stack are made from.

    stack: the stack's name. settings: project, region and subnets.
    vpcs: the names of the VPCs, the cluster's first.
    workloads: the workloads that have machines; each gets a service account.
    firewall_rules: what the firewall lets in. peerings: the pairs of VPCs that it passes between.
    cluster: the GKE cluster, if there is one.
    """

    stack: str
    settings: Google
    vpcs: Sequence[str]
    workloads: Sequence[str]
    firewall_rules: Sequence[FirewallRule]
    peerings: Sequence[tuple[str, str]] = ()
    cluster: GkeCluster | None = None


class GoogleNetwork(pulumi.ComponentResource):
    """Everything of a stack that lies below its cluster and machines."""

    networks: GoogleNetworks

    def __init__(self, name: str, args: GoogleNetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.NETWORK_TYPE, name, {}, opts)
        self._args, google, cluster = args, args.settings, args.cluster
        labels = {names.STACK_LABEL: names.stack_label_value(args.stack), **google.labels}
        provider = Provider(part_name(name, names.PROVIDER), project=google.project, region=google.region, default_labels=labels)
        self._child = pulumi.ResourceOptions(parent=self, provider=provider)
        created = {
            vpc: compute.Network(
                self._child_name(names.vpc_name(vpc)), auto_create_subnetworks=False, routing_mode="REGIONAL", opts=self._child
            )
            for vpc in args.vpcs
            if vpc not in google.vpcs
        }
        existing = {vpc: pulumi.Output.from_input(google.vpcs[vpc].existing) for vpc in args.vpcs if vpc in google.vpcs}
        vpcs = {vpc: created[vpc].id if vpc in created else existing[vpc] for vpc in args.vpcs}
        subnets = {
            subnet: pulumi.Output.from_input(settings.existing) if settings.existing else self._subnet(subnet, vpcs[settings.vpc])
            for subnet, settings in google.subnets.items()
        }
        nats = [self._nat(vpc, network) for vpc, network in created.items()]
        links = {vpc: created[vpc].self_link if vpc in created else existing[vpc].apply(names.link) for vpc in args.vpcs}
        peerings = self._peer(links)
        accounts = {workload: self._account(workload, f"machines of the workload {workload}") for workload in args.workloads}
        if cluster:
            accounts[names.NODES] = self._account(names.NODES, "nodes of the cluster")
        self._records: list[pulumi.Resource] = []
        gateway, address = self._gateway(cluster, vpcs, subnets) if cluster else (None, None)
        self._connected = [*nats, *peerings, *self._records]
        rules: dict[str, list[pulumi.Resource]] = {}
        for rule in args.firewall_rules:
            if self._is_managed(rule.vpc):
                before = rules.setdefault(rule.target, [])
                before.append(self._rule(rule, vpcs, accounts, before[-1:]))
        self.networks = GoogleNetworks(
            name=name,
            stack=args.stack,
            settings=google,
            provider=provider,
            vpcs=vpcs,
            subnets=subnets,
            accounts=accounts,
            gateway=gateway,
            gateway_address=address,
            connected=self._connected,
            rules=rules,
        )
        self.register_outputs({})

    def _child_name(self, child: str) -> str:
        return names.networks_child_name(self._name, child)

    def _is_managed(self, vpc: str) -> bool:
        """Return whether the program creates firewall rules and peerings in a VPC."""
        existing = self._args.settings.vpcs.get(vpc)
        return existing is None or existing.managed

    def _project(self, vpc: str) -> str | None:
        """Return the project of an existing VPC; None for that of the stack."""
        existing = self._args.settings.vpcs.get(vpc)
        return names.project_of(existing.existing) if existing else None

    def _subnet(self, name: str, network: pulumi.Output[str]) -> pulumi.Output[str]:
        """Create a subnet. The cluster's has the CIDRs of pods and Services, in a fixed order."""
        cluster = self._args.cluster
        second = None
        if cluster and cluster.subnet == name:
            second = [
                compute.SubnetworkSecondaryIpRangeArgs(range_name=cluster.pod_range_name, ip_cidr_range=cluster.pod_cidr),
                compute.SubnetworkSecondaryIpRangeArgs(range_name=cluster.service_range_name, ip_cidr_range=cluster.service_cidr),
            ]
        subnet = compute.Subnetwork(
            self._child_name(names.subnet_name(name)),
            network=network,
            region=self._args.settings.region,
            ip_cidr_range=self._args.settings.subnets[name].cidr,
            secondary_ip_ranges=second,
            private_ip_google_access=True,
            # CIDRs in a VPC do not overlap. All that is in the subnet is deleted before it.
            opts=pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(delete_before_replace=True)),
        )
        return subnet.id

    def _nat(self, vpc: str, network: compute.Network) -> compute.RouterNat:
        """Nothing has a public address, so packages and images come through NAT; a VPC needs its own."""
        router = compute.Router(
            self._child_name(names.router_name(vpc)), network=network.id, region=self._args.settings.region, opts=self._child
        )
        return compute.RouterNat(
            self._child_name(names.nat_name(vpc)),
            router=router.name,
            region=self._args.settings.region,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
            # All pods of a node share its ports. Without this a node has 64, and connections of
            # busy pods to one server fail. Google refuses it together with fixed mappings.
            enable_dynamic_port_allocation=True,
            enable_endpoint_independent_mapping=False,
            log_config=compute.RouterNatLogConfigArgs(enable=True, filter="ERRORS_ONLY"),
            opts=self._child,
        )

    def _peer(self, links: Mapping[str, pulumi.Output[str]]) -> list[compute.NetworkPeering]:
        """Peer VPCs, one half after the other. Owners of a VPC that is not managed add its half.

        Google refuses two operations on a VPC's peerings at once.
        """
        peerings: list[compute.NetworkPeering] = []
        halves = [half for first, second in self._args.peerings for half in ((first, second), (second, first))]
        for one, other in [half for half in halves if self._is_managed(half[0])]:
            half = compute.NetworkPeering(
                self._child_name(names.peering_name(one, other)),
                network=links[one],
                peer_network=links[other],
                opts=pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=peerings[-1:])),
            )
            peerings.append(half)
        return peerings

    def _account(self, name: str, purpose: str) -> serviceaccount.Account:
        """Create a service account without a role. Its users add the roles that they need."""
        return serviceaccount.Account(
            self._child_name(names.account_resource_name(name)),
            account_id=names.account_id(self._args.stack, self._child_name(name)),
            display_name=names.title(self._args.stack, purpose),
            opts=self._child,
        )

    def _rule(
        self,
        rule: FirewallRule,
        vpcs: Mapping[str, pulumi.Output[str]],
        accounts: Mapping[str, serviceaccount.Account],
        before: Sequence[pulumi.Resource],
    ) -> compute.Firewall:
        """Create a firewall rule. before: the rule of its target that it waits for; empty: what connects the VPCs."""
        return compute.Firewall(
            self._child_name(names.rule_resource_name(rule.name)),
            network=vpcs[rule.vpc],
            project=self._project(rule.vpc),
            description=rule.description,
            direction="INGRESS",
            priority=1000,
            source_ranges=list(rule.sources),
            target_service_accounts=[accounts[rule.target].email],
            allows=[compute.FirewallAllowArgs(protocol="tcp", ports=[str(port) for port in rule.ports])],
            opts=pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=[*(before or self._connected)])),
        )

    def _gateway(
        self, cluster: GkeCluster, vpcs: Mapping[str, pulumi.Output[str]], subnets: Mapping[str, pulumi.Output[str]]
    ) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """Reserve the east-west gateway's address, with a DNS record if the stack names one."""
        reserved = compute.Address(
            self._child_name("gateway-address"),
            region=self._args.settings.region,
            address_type="INTERNAL",
            purpose="SHARED_LOADBALANCER_VIP",
            subnetwork=subnets[cluster.subnet],
            address=cluster.gateway.address,
            opts=self._child,
        )
        name = cluster.gateway.dns_name
        if name is None:
            return reserved.address, reserved.address
        zone = dns.ManagedZone(
            self._child_name("gateway-zone"),
            # A zone of its domain would hide every other name of that domain from the VPCs.
            dns_name=f"{name}.",
            description=f"istio-vm-mesh {self._args.stack}",
            visibility="private",
            private_visibility_config=dns.ManagedZonePrivateVisibilityConfigArgs(
                networks=[dns.ManagedZonePrivateVisibilityConfigNetworkArgs(network_url=network) for network in vpcs.values()]
            ),
            opts=self._child,
        )
        record = dns.RecordSet(
            self._child_name("gateway-record"),
            managed_zone=zone.name,
            name=f"{name}.",
            type="A",
            ttl=60,
            rrdatas=[reserved.address],
            opts=self._child,
        )
        self._records.append(record)
        # The name, but only once the record exists.
        return record.id.apply(lambda _: name), reserved.address
