"""Settings of the platforms `existing` and `ssh`: a cluster and machines that exist already."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..manifest import Manifest
from ..names import CROSS_NETWORK_PORT, XDS_PORT
from .capture import Capture, Firewall
from .record import MAP_KEY, Items, Record


class ExistingGateway(Record):
    """Declare the east-west gateway of an existing cluster."""

    address: str = Field(
        description="IP address or DNS name of the gateway for machines: one that the cluster's "
        "load balancer or a node answers on."
    )
    port: int = Field(
        default=XDS_PORT,
        description="Port of `address` at which machines reach the control plane (1 to 65535), "
        "such as 443 or the port of a node. The gateway's Service has it; of a Service with "
        f"`ports` in `service`, one leads from it to {XDS_PORT}. Default: Istio's own, {XDS_PORT}.",
    )
    behind_nat: bool = Field(
        default=False,
        description="Whether `address` is translated, so that the gateway's Service has another "
        "one. Machines of other networks are then given `address` for their calls, on port "
        f"{CROSS_NETWORK_PORT}, which the translation must keep. Default: it is the Service's.",
    )
    service: Manifest = Field(
        default={},
        description="Values of the Service in the gateway's chart: `type`, `annotations`, "
        "`externalIPs` and others. `ports` have no effect where machines are in other networks, "
        f"`port` is {XDS_PORT} and `behindNat` is false: the chart fixes them. "
        "A LoadBalancer admits the CIDRs of networks with machines, unless "
        "`loadBalancerSourceRanges` lists others; `[]` admits all. On GKE it is public without the "
        "annotation `networking.gke.io/load-balancer-type: Internal`. Default: a LoadBalancer with "
        "`address`.",
    )
    install: bool = Field(
        default=True,
        description="Whether the program installs the gateway. If false, a gateway that exposes "
        "istiod at `address` and `port` must exist. Default: it is installed.",
    )


class ExistingCluster(Record):
    """Declare a Kubernetes cluster that exists, reached by a kubeconfig.

    The program changes and removes only the objects that it created there.
    """

    platform: Literal["existing"] = Field(
        description="`existing` for a cluster that this program neither creates nor deletes."
    )
    network: str = Field(
        description="Name of the network that the existing cluster's pods are in, as in istiod's "
        "value `global.network`. Any name fits where that value is empty."
    )
    context: str = Field(
        description="Context of the kubeconfig. It is always named, so that the current context "
        "of a shell cannot select another cluster. Renaming it changes nothing."
    )
    pod_cidr: str = Field(description="IPv4 CIDR of the pods of the existing cluster.")
    additional_pod_cidrs: Items[str] = Field(
        default=(),
        description="Further IPv4 CIDRs of its pods: additional pod ranges of GKE, IP pools of "
        "Calico, subnets of other nodes. Default: none.",
    )
    gateway: ExistingGateway = Field(
        description="East-west gateway through which machines reach the control plane."
    )
    kubeconfig: str | None = Field(
        default=None,
        description="Path of the kubeconfig of the user who runs Pulumi; `~` is their home "
        "directory. It is read at each run and copied nowhere. Default: as kubectl finds it "
        "($KUBECONFIG, ~/.kube/config).",
    )
    service_cidr: str | None = Field(
        default=None,
        description="IPv4 CIDR of the Services of the existing cluster. Without it the CIDRs of "
        "networks are not compared with it.",
    )
    namespaces: Items[str] = Field(
        default=(),
        description="Namespaces that exist in the cluster and are not managed by this program. "
        "Default: the namespaces of all workloads are created.",
    )


class Bastion(Record):
    """Declare an SSH server that connections to machines go through.

    Its user needs TCP forwarding alone, no shell.
    """

    host: str = Field(
        description="DNS name, IP address, or `Host` of `~/.ssh/config`, of the SSH server."
    )
    port: int | None = Field(
        default=None,
        description="Port of the bastion's SSH server (1 to 65535). "
        "Default: as in `~/.ssh/config`, else port 22.",
    )
    user: str | None = Field(
        default=None,
        description="User of the login on the bastion. Default: as in `~/.ssh/config`, else the "
        "user that runs Pulumi.",
    )
    host_key: str | None = Field(
        default=None,
        description="Public host key of the bastion, such as `ssh-ed25519 AAAA...`. "
        "Without it `known_hosts` must have the key.",
    )
    accept_any_host_key: bool = Field(
        default=False,
        description="Whether the bastion's host key goes unchecked. Default: it is compared with "
        "`hostKey`, else with `known_hosts`.",
    )
    private_key: str | None = Field(
        default=None,
        description="Path of the private key for the bastion on the computer that runs Pulumi. "
        "Default: as in `~/.ssh/config`, else the agent's and ssh's default keys.",
    )


class SshMachine(Record):
    """Declare a machine that exists, reached by SSH.

    It runs systemd and is of the Debian or the Red Hat family. The program joins it to the mesh and
    removes it from the mesh; it never deletes it.
    """

    platform: Literal["ssh"] = Field(
        description="`ssh` for a machine that exists and accepts SSH connections."
    )
    name: str = Field(alias=MAP_KEY, description="Name of the SSH machine, as in `machines`.")
    workload: str = Field(description="Name of the workload that runs on the existing machine.")
    network: str = Field(
        description="Name of the network that the existing machine's address belongs to."
    )
    host: str = Field(
        description="IP address, DNS name, or `Host` of `~/.ssh/config`, that the computer that "
        "runs Pulumi connects to."
    )
    port: int | None = Field(
        default=None,
        description="Port of the machine's SSH server (1 to 65535). "
        "Default: as in `~/.ssh/config`, else port 22.",
    )
    user: str | None = Field(
        default=None,
        description="User of the login on the machine: root, or one with sudo and no password "
        "prompt. Default: as in `~/.ssh/config`, else the user that runs Pulumi.",
    )
    host_key: str | None = Field(
        default=None,
        description="Public host key of the machine as `ssh-keyscan` prints it, without the host "
        "name: `ssh-ed25519 AAAA...`. Without it `known_hosts` must have the key.",
    )
    accept_any_host_key: bool = Field(
        default=False,
        description="Whether the machine's host key goes unchecked. Default: it is compared with "
        "`hostKey`, else with `known_hosts`.",
    )
    private_key: str | None = Field(
        default=None,
        description="Path of the private key for the machine on the computer that runs Pulumi. "
        "Default: as in `~/.ssh/config`, else the agent's and ssh's default keys.",
    )
    connect_within: int = Field(
        default=10,
        description="Seconds in which the existing machine must accept SSH, from 1 to 3600. A "
        "connection that fails is tried again until then. Default: 10 seconds.",
    )
    address: str | None = Field(
        default=None,
        description="IP address by which pods reach the machine. Default: `host`.",
    )
    locality: str | None = Field(
        default=None,
        description="Where the machine is, as `region/zone` or `region/zone/subzone`, in the names "
        "that the cluster's nodes have in their labels `topology.kubernetes.io/region` and "
        "`/zone`. Default: the workload's `locality`.",
    )
    bastion: Bastion | None = Field(
        default=None,
        description="SSH server that the connection to this machine goes through. "
        "Default: as in `~/.ssh/config`, else a direct connection.",
    )
    rotation: int = Field(
        default=0,
        description="Any number; a change runs the join of the SSH machine again, with a new "
        "token. It repairs what differs, and does not restart an agent that is as it must be. "
        "Default: 0.",
    )
    firewall: Firewall | None = Field(
        default=None,
        description="`report` or `manage`: what a join of the existing machine does where "
        "a firewall of its own drops redirected connections. Default: the workload's `firewall`.",
    )
    capture: Capture = Field(
        default_factory=Capture,
        description="What of the traffic of the existing machine bypasses the proxy, besides what "
        "its workload excludes. Default: nothing more.",
    )
    take_over: str | None = Field(
        default=None,
        description="`<project>/<stack>` that the machine belongs to until now, as a refused join "
        "names it. The stack itself admits a copy of the disk of one of its machines. Default: a "
        "machine of another stack is refused.",
    )
    forget: bool = Field(
        default=False,
        description="Whether the machine is given up: nothing connects to it any more, and its "
        "removal keeps it out of the mesh from the cluster's side. Default: it leaves the mesh "
        "over SSH when it is removed.",
    )
