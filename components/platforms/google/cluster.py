"""A GKE cluster: private nodes, and a control plane with a DNS name and Google identities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import container, projects

from ...config.google import ZONES, GkeCluster
from ...config.google_machine_types import default_disk_type, is_arm64
from ...kubernetes import Cluster
from ...local.cluster_access import ClusterAccess
from ...names import child_name, part_name
from .. import kubeconfig
from . import names
from .network import GoogleNetworks

# The roles of the nodes' own account decide what they may do; the scope only permits them.
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_ROLE = "roles/container.defaultNodeServiceAccount"  # logs, metrics and metadata of nodes


@dataclass(frozen=True, kw_only=True)
class GoogleClusterArgs:
    """What a GKE cluster is made from.

    settings: the cluster. networks: the VPCs that it is in.
    gateway_clients: the CIDRs that reach the east-west gateway's load balancer.
    """

    settings: GkeCluster
    networks: GoogleNetworks
    gateway_clients: Sequence[str]


class GoogleCluster(pulumi.ComponentResource):
    """A GKE cluster. Gateways take a reserved address behind an internal load balancer."""

    cluster: Cluster

    def __init__(self, name: str, args: GoogleClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.GKE_TYPE, name, {}, opts)
        settings, networks, google = args.settings, args.networks, args.networks.settings
        self._settings, self._networks, self._google = settings, networks, google
        self._child = pulumi.ResourceOptions(parent=self, provider=networks.provider)
        location = settings.zone or google.region
        google_name = names.cluster_name(networks.stack, name)
        role = projects.IAMMember(
            child_name(name, "cluster", "nodes-role"),
            project=google.project,
            role=_ROLE,
            member=networks.accounts[names.NODES].member,
            opts=self._child,
        )
        cluster = self._cluster(google_name, location, role)
        ready: list[pulumi.Resource] = [cluster] if settings.autopilot else [self._nodes(cluster, location)]
        endpoint = cluster.control_plane_endpoints_config.apply(lambda config: config.dns_endpoint_config.endpoint)
        text = endpoint.apply(lambda host: kubeconfig.gke_kubeconfig(google_name, host))
        assert networks.gateway is not None
        self.cluster = Cluster(
            network=settings.network,
            pod_cidr=settings.pod_cidr,
            access=text.apply(lambda text: ClusterAccess(text=text)),
            kubeconfig=text,
            created_by=endpoint,
            gateway_service={
                "type": "LoadBalancer",
                "loadBalancerIP": networks.gateway_address,
                "loadBalancerSourceRanges": list(args.gateway_clients),
                "annotations": {
                    "networking.gke.io/load-balancer-type": "Internal",
                    "networking.gke.io/internal-load-balancer-allow-global-access": "true",
                },
            },
            gateway_address=networks.gateway,
            gateway_ip=networks.gateway_address,
            # Services are deleted while the cluster lives: it removes their load balancers and
            # firewall rules, which would keep the VPC from being deleted.
            ready=[*ready, *networks.ready_for(names.NODES)],
            api_server=endpoint.apply(lambda host: f"https://{host}"),
        )
        self.register_outputs({"endpoint": endpoint})

    def _cluster(self, name: str, location: str, role: pulumi.Resource) -> container.Cluster:
        settings, networks = self._settings, self._networks
        account = networks.accounts[names.NODES].email
        autopilot = {
            "enable_autopilot": True,
            # Sidecars set up their redirection with NET_ADMIN, which Autopilot refuses otherwise.
            "allow_net_admin": True,
            "cluster_autoscaling": container.ClusterClusterAutoscalingArgs(
                auto_provisioning_defaults=container.ClusterClusterAutoscalingAutoProvisioningDefaultsArgs(
                    service_account=account, oauth_scopes=_SCOPES
                )
            ),
        }
        standard = {
            # Separate node pools can change without replacing the cluster. GKE always creates a
            # first pool, which is removed.
            "remove_default_node_pool": True,
            "initial_node_count": 1,
            "node_config": _first_node(account),
            "datapath_provider": "ADVANCED_DATAPATH",
            "enable_shielded_nodes": True,
        }
        return container.Cluster(
            part_name(self._name, names.GKE),
            name=name,
            location=location,
            network=networks.vpcs[self._google.subnets[settings.subnet].vpc],
            subnetwork=networks.subnets[settings.subnet],
            ip_allocation_policy=container.ClusterIpAllocationPolicyArgs(
                cluster_secondary_range_name=settings.pod_range_name, services_secondary_range_name=settings.service_range_name
            ),
            private_cluster_config=container.ClusterPrivateClusterConfigArgs(enable_private_nodes=True),
            control_plane_endpoints_config=container.ClusterControlPlaneEndpointsConfigArgs(
                dns_endpoint_config=container.ClusterControlPlaneEndpointsConfigDnsEndpointConfigArgs(allow_external_traffic=True),
                ip_endpoints_config=container.ClusterControlPlaneEndpointsConfigIpEndpointsConfigArgs(enabled=False),
            ),
            release_channel=container.ClusterReleaseChannelArgs(channel=settings.channel),
            maintenance_policy=container.ClusterMaintenancePolicyArgs(
                recurring_window=container.ClusterMaintenancePolicyRecurringWindowArgs(
                    start_time="2026-01-03T00:00:00Z", end_time="2026-01-03T12:00:00Z", recurrence="FREQ=WEEKLY;BYDAY=SA,SU"
                )
            ),
            workload_identity_config=container.ClusterWorkloadIdentityConfigArgs(workload_pool=f"{self._google.project}.svc.id.goog"),
            master_auth=container.ClusterMasterAuthArgs(
                client_certificate_config=container.ClusterMasterAuthClientCertificateConfigArgs(issue_client_certificate=False)
            ),
            rbac_binding_config=container.ClusterRbacBindingConfigArgs(
                enable_insecure_binding_system_authenticated=False, enable_insecure_binding_system_unauthenticated=False
            ),
            anonymous_authentication_config=container.ClusterAnonymousAuthenticationConfigArgs(mode="LIMITED"),
            security_posture_config=container.ClusterSecurityPostureConfigArgs(mode="BASIC"),
            cost_management_config=container.ClusterCostManagementConfigArgs(enabled=True),
            enable_l4_ilb_subsetting=True,
            deletion_protection=settings.deletion_protection,
            **(autopilot if settings.autopilot else standard),
            opts=pulumi.ResourceOptions.merge(
                self._child,
                pulumi.ResourceOptions(
                    # A destroy without the two steps is refused before anything is deleted. The
                    # provider refuses only when it comes to the cluster, once it is empty.
                    protect=settings.deletion_protection,
                    # A difference in any of these would replace the cluster.
                    ignore_changes=[] if settings.autopilot else ["initialNodeCount", "nodeConfig"],
                    delete_before_replace=True,
                    depends_on=[role, *self._networks.connected],
                ),
            ),
        )

    def _nodes(self, cluster: container.Cluster, location: str) -> container.NodePool:
        nodes = self._settings.nodes
        return container.NodePool(
            part_name(self._name, names.NODE_POOL),
            cluster=cluster.id,
            location=location,
            # Of each zone. The autoscaler keeps the minimum, but does not add nodes to reach it.
            initial_node_count=nodes.min_nodes if self._settings.zone else math.ceil(nodes.min_nodes / ZONES),
            autoscaling=container.NodePoolAutoscalingArgs(
                total_min_node_count=nodes.min_nodes, total_max_node_count=nodes.max_nodes, location_policy="BALANCED"
            ),
            management=container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            upgrade_settings=container.NodePoolUpgradeSettingsArgs(max_surge=1, max_unavailable=0),
            node_config=container.NodePoolNodeConfigArgs(
                machine_type=nodes.machine_type,
                disk_size_gb=nodes.disk_size,
                disk_type=nodes.disk_type or default_disk_type(nodes.machine_type),
                image_type="COS_CONTAINERD",
                spot=nodes.spot,
                # GKE keeps pods off ARM nodes unless it is told otherwise. The cluster has no others.
                taint_config=container.NodePoolNodeConfigTaintConfigArgs(architecture_taint_behavior="NONE")
                if is_arm64(nodes.machine_type)
                else None,
                service_account=self._networks.accounts[names.NODES].email,
                oauth_scopes=_SCOPES,
                metadata={"disable-legacy-endpoints": "true"},
                workload_metadata_config=container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
                shielded_instance_config=container.NodePoolNodeConfigShieldedInstanceConfigArgs(
                    enable_secure_boot=True, enable_integrity_monitoring=True
                ),
                kubelet_config=container.NodePoolNodeConfigKubeletConfigArgs(insecure_kubelet_readonly_port_enabled="FALSE"),
            ),
            opts=pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(ignore_changes=["initialNodeCount"])),
        )


def _first_node(account: pulumi.Output[str]) -> container.ClusterNodeConfigArgs:
    """Return the node of the pool that GKE creates first, one in each zone.

    It is small, because quotas of new projects have no room for three disks of 100 GB. Organisation
    policies hold for it as for all nodes (`compute.requireShieldedVm`).
    """
    return container.ClusterNodeConfigArgs(
        machine_type="e2-medium",
        disk_size_gb=20,
        disk_type="pd-standard",
        image_type="COS_CONTAINERD",
        service_account=account,
        oauth_scopes=_SCOPES,
        metadata={"disable-legacy-endpoints": "true"},
        workload_metadata_config=container.ClusterNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
        shielded_instance_config=container.ClusterNodeConfigShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_integrity_monitoring=True
        ),
    )
