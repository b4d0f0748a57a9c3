"""A whole stack, and the unions of clusters and machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import Field

from ..mesh_facts import from_values
from ..names import POD_SECURITY_LABEL
from .docker import DockerMachine, KindCluster
from .existing import ExistingCluster, SshMachine
from .google import GceInstanceGroup, GceMachine, GkeCluster, Google, GoogleMachine, Subnet
from .mesh import MeshSettings, Network
from .record import MAP_KEY, Named, Record
from .rules import Rules
from .workload import VerificationMode, WorkloadSettings

# A platform is added here: one record per kind of cluster and of machine.
Cluster = KindCluster | GkeCluster | ExistingCluster
SingleMachine = DockerMachine | GceMachine | SshMachine
Machine = SingleMachine | GceInstanceGroup

_M = TypeVar("_M", DockerMachine, GceMachine, SshMachine, GceInstanceGroup)


class Verification(Record):
    """Declare what follows from a failed verification, unless a workload states it."""

    mode: VerificationMode = Field(
        default="fail",
        description="`fail`: a failed verification fails the update. `warn`: it is a warning. "
        "`none`: verification does not run. `verify` of a workload overrides it. Default: `fail`.",
    )


class NamespaceSettings(Record):
    """Declare what a namespace that this program creates carries, for policies of the cluster."""

    name: str = Field(alias=MAP_KEY, description="Name of the namespace, as in `namespaces`.")
    labels: Mapping[str, str] = Field(
        default={},
        description=f"Labels of the namespace, such as `{POD_SECURITY_LABEL}` or "
        "those that an admission policy demands. Default: the program's own alone.",
    )
    annotations: Mapping[str, str] = Field(
        default={},
        description="Annotations of the namespace, such as an owner or a cost centre. "
        "Default: none.",
    )


class Settings(Record):
    """Declare a whole stack: networks, a cluster, a mesh, its workloads and their machines."""

    networks: Named[Network] = Field(
        description="Networks of the stack, by name. Addresses of one network reach each other "
        "without a gateway."
    )
    cluster: Annotated[Cluster, Field(discriminator="platform")] = Field(
        description="Kubernetes cluster of the mesh, created or existing, chosen by `platform`."
    )
    mesh: MeshSettings = Field(description="Istio mesh of the cluster, installed or adopted.")
    workloads: Named[WorkloadSettings] = Field(
        default={},
        description="Applications with an identity in the mesh, by name. Default: none.",
    )
    namespaces: Named[NamespaceSettings] = Field(
        default={},
        description="Labels and annotations of the namespaces that this program creates, by name: "
        "those of workloads, and Istio's unless the mesh is adopted. Default: each has the "
        "program's own labels.",
    )
    machines: Named[Annotated[Machine, Field(discriminator="platform")]] = Field(
        default={},
        description="Machines and instance groups of the mesh, by name, each chosen by `platform`. "
        "Default: none.",
    )
    google: Google | None = Field(
        default=None,
        description="Project, region and subnets on Google Cloud. Required by the platforms `gke`, "
        "`gce` and `gce-instance-group`; else leave it out.",
    )
    verify: Verification = Field(
        default_factory=Verification,
        description="Verification of requests between pods and machines after every update. "
        "Default: a failure fails the update.",
    )
    rules: Rules = Field(
        default_factory=Rules,
        description="Rules that `./scripts/plan` holds changes of this stack to. "
        "Default: all of them.",
    )

    @property
    def istio_namespaces(self) -> set[str]:
        """Istio's own namespace, and the root namespace of a mesh that this program installs."""
        mesh = self.mesh
        if mesh.adopt:
            return {mesh.namespace}
        facts = from_values(dict(mesh.values.istiod), mesh.namespace)
        return {facts.namespace, facts.root_namespace}

    @property
    def workload_namespaces(self) -> set[str]:
        """The namespaces of workloads. Network gateways are in Istio's own."""
        used = {workload.namespace for workload in self.workloads.values()}
        return used - self.istio_namespaces

    @property
    def created_namespaces(self) -> dict[str, NamespaceSettings]:
        """What the stack states of the namespaces that this program creates, by name.

        They are those of workloads, and Istio's in a mesh that it installs.
        """
        wanted = self.workload_namespaces
        if isinstance(self.cluster, ExistingCluster):
            wanted -= set(self.cluster.namespaces)
        if not self.mesh.adopt:
            wanted |= self.istio_namespaces
        stated = self.namespaces
        return {name: stated.get(name) or NamespaceSettings(name=name) for name in sorted(wanted)}

    @property
    def pods_with_sidecars(self) -> dict[str, list[str]]:
        """The workloads of which this program runs pods with sidecars, by namespace.

        They are pods of the workload, or Jobs that call its machines to verify them.
        """
        by_namespace: dict[str, list[str]] = {}
        for name, workload in sorted(self.workloads.items()):
            is_called = any(not service.headless for service in workload.services.values())
            is_verified = self.verification_mode(name) != "none" and is_called
            if (workload.pods and workload.pods.replicas) or (
                is_verified and self.is_reachable_from_pods(name)
            ):
                by_namespace.setdefault(workload.namespace, []).append(name)
        return by_namespace

    @property
    def unrestricted_pods(self) -> dict[str, list[str]]:
        """The workloads whose pods Pod Security's level `restricted` refuses, by namespace."""
        by_namespace: dict[str, list[str]] = {}
        for name, workload in sorted(self.workloads.items()):
            if workload.pods and not workload.pods.restricted:
                by_namespace.setdefault(workload.namespace, []).append(name)
        return by_namespace

    def verification_mode(self, workload: str) -> VerificationMode:
        """Return what a failed verification of a workload does to the update."""
        return self.workloads[workload].verify.mode or self.verify.mode

    def is_reachable_from_pods(self, workload: str) -> bool:
        """Return whether pods can call a workload.

        They cannot where it has no pods of this program's, and all its machines are in networks
        without a gateway.
        """
        used = {each.network for each in self.machines.values() if each.workload == workload}
        networks = [self.networks[name] for name in used if name in self.networks]
        is_open = any(each.name == self.cluster.network or each.gateway for each in networks)
        return bool(self.workloads[workload].pods) or is_open or not used

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """The CIDRs of the cluster's pods."""
        cluster = self.cluster
        more = cluster.additional_pod_cidrs if isinstance(cluster, ExistingCluster) else ()
        return (cluster.pod_cidr, *more)

    def cidrs(self, network: str) -> tuple[str, ...]:
        """Return all CIDRs of a network: subnets, the cluster's pods if they are in it, `cidrs`."""
        pods = self.pod_cidrs if self.cluster.network == network else ()
        return (*self._subnet_cidrs(network), *pods, *self.networks[network].cidrs)

    def machine_cidrs(self, network: str) -> tuple[str, ...]:
        """Return the CIDRs of a network that nodes and machines can be in: all but the pods'."""
        return (*self._subnet_cidrs(network), *self.networks[network].cidrs)

    def has_subnets(self, network: str) -> bool:
        """Return whether a network is on Google Cloud, so that its gateway machines are there."""
        return bool(self._subnet_cidrs(network))

    def _subnet_cidrs(self, network: str) -> tuple[str, ...]:
        subnets = self.google.subnets.values() if self.google else ()
        return tuple(subnet.cidr for subnet in subnets if subnet.network == network)

    def machines_of_type(self, record: type[_M]) -> dict[str, _M]:
        """Return the machines of one platform, by name."""
        return {
            name: machine for name, machine in self.machines.items() if isinstance(machine, record)
        }

    @property
    def single_machines(self) -> dict[str, SingleMachine]:
        """The machines that are joined one by one, by name: all but instance groups."""
        return {
            name: machine
            for name, machine in self.machines.items()
            if not isinstance(machine, GceInstanceGroup)
        }

    def single_machines_of(self, workload: str) -> dict[str, SingleMachine]:
        """Return the single machines that run `workload`, by name."""
        return {
            name: machine
            for name, machine in self.single_machines.items()
            if machine.workload == workload
        }

    @property
    def instance_groups(self) -> dict[str, GceInstanceGroup]:
        """The instance groups, by name."""
        return self.machines_of_type(GceInstanceGroup)

    def locality_of(self, machine: str) -> str:
        """Return where a single machine is, as `region/zone`; "" where none is stated."""
        declared = self.single_machines[machine]
        if isinstance(declared, GceMachine):
            return f"{declared.zone.rpartition('-')[0]}/{declared.zone}"
        stated = declared.locality if isinstance(declared, SshMachine) else None
        return stated or self.workloads[declared.workload].locality or ""

    def min_group_sizes(self, workload: str) -> dict[str, int]:
        """Return the lowest number of machines of groups that run `workload`, by network."""
        sizes = Counter[str]()
        for group in self.instance_groups.values():
            if group.workload == workload:
                sizes[group.network] += group.min_replicas
        return sizes

    @property
    def docker_networks(self) -> set[str]:
        """The networks that need a Docker network: the kind cluster's and its machines'."""
        names = {machine.network for machine in self.machines_of_type(DockerMachine).values()}
        return names | {self.cluster.network} if isinstance(self.cluster, KindCluster) else names

    @property
    def google_machines(self) -> dict[str, GoogleMachine]:
        """The machines and the instance groups on Google Cloud, by name."""
        return {**self.machines_of_type(GceMachine), **self.instance_groups}

    def machine_subnets(self, network: str) -> dict[str, Subnet]:
        """Return the subnets of a network for machines, by name: all but the cluster's.

        GKE opens node ports to all addresses of its own subnet, so machines there would bypass the
        firewall.
        """
        of_cluster = self.cluster.subnet if isinstance(self.cluster, GkeCluster) else None
        subnets = self.google.subnets if self.google else {}
        return {
            name: subnet
            for name, subnet in subnets.items()
            if subnet.network == network and name != of_cluster
        }

    def subnet_of(self, machine: GoogleMachine) -> str:
        """Return the name of the subnet that a machine on Google Cloud is in."""
        return machine.subnet or next(iter(self.machine_subnets(machine.network)))
