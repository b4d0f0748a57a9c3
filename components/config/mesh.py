"""Settings of networks and of the mesh."""

from __future__ import annotations

import re

from pydantic import Field

from ..manifest import Manifest
from ..names import DEFAULT_CLUSTER_ID, INJECTION_LABEL, ISTIO_NAMESPACE
from .record import MAP_KEY, Items, Record


class NetworkGateway(Record):
    """Declare the machines that carry requests from other networks to the machines of a network.

    The program creates them: on Compute Engine where the network has a subnet for machines, else as
    containers beside a cluster of the platform `kind`. No setting follows from other machines.
    """

    machines: int = Field(
        default=1,
        description="Number of gateway machines that this program creates in the network. "
        "Default: one.",
    )
    zones: Items[str] = Field(
        default=(),
        description="Zones of Compute Engine that the gateway machines are assigned to, "
        "round-robin. Required on Compute Engine.",
    )
    subnet: str | None = Field(
        default=None,
        description="Name of the subnet of gateway machines on Compute Engine. Required if the "
        "network has several subnets for machines; default: the only one.",
    )
    machine_type: str | None = Field(
        default=None,
        description="Compute Engine machine type of the gateway machines. Default: that of "
        "machines of the platform `gce`.",
    )
    image: str | None = Field(
        default=None,
        description="Image of the gateway machines. Default: that of machines of the platform "
        "`gce` or `docker`.",
    )
    group: bool = Field(
        default=False,
        description="Whether the gateway machines are one instance group of Compute Engine, whose "
        "machines join without SSH, beside a cluster of the platform `gke`. It suits organisations "
        "that demand OS Login or forbid guest attributes. Default: false, single machines.",
    )
    rotation: int = Field(
        default=0,
        description="Any number; a change issues new tokens for the gateway machines and runs "
        "their joins again. It replaces the machines of a group. Default: 0.",
    )


class Network(Record):
    """Declare a network in Istio's sense: its addresses reach each other without a gateway.

    Its CIDRs are those of its subnets (`google.subnets`), the cluster's `podCidr` if the cluster is
    in it, and `cidrs`. Machines of a network that is not the cluster's can call pods. Without a
    `gateway` in the network, no client outside of it can call them.
    """

    name: str = Field(alias=MAP_KEY, description="Name of the network, as in `networks`.")
    cidrs: Items[str] = Field(
        default=(),
        description="IPv4 CIDRs of the network that no other key states: those of machines, nodes "
        "and callers outside of Google Cloud subnets. Default: none.",
    )
    gateway: NetworkGateway | None = Field(
        default=None,
        description="Gateway machines through which other networks call the machines of this one. "
        "Without it no client outside of the network calls them.",
    )


class Package(Record):
    """Declare where machines download Istio's sidecar package."""

    url: str = Field(
        default="https://blob.istio.io/istio-release/releases/{version}/{package}",
        description="URL of the package. `{version}` is replaced by the mesh's version, "
        "`{package}` by `deb/istio-sidecar.deb` or `rpm/istio-sidecar.rpm`, with `-arm64` before "
        "the dot on such machines. Credentials are not part of it: they are in the environment "
        "variable ISTIO_VM_MESH_PACKAGE_CREDENTIALS (`USER:PASSWORD`) of the computer that runs "
        "Pulumi. They are sent over `https://` alone. Default: Istio's own releases.",
    )
    sha256: str | None = Field(
        default=None,
        description="SHA-256 of the package, 64 hexadecimal digits, or the path of a file that "
        "begins with them, as `sha256sum` writes it. Required for `http://`. Without it the digest "
        "is downloaded from `<url>.sha256`, where Istio publishes it.",
    )


def is_sha256(text: str) -> bool:
    """Return whether a text is a SHA-256 as sha256sum prints it."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


class ChartValues(Record):
    """Declare values for Istio's Helm charts. They are merged over the program's own values."""

    base: Manifest = Field(
        default={},
        description="Values of the chart `base` (Istio's CRDs). Default: the program's own alone.",
    )
    istiod: Manifest = Field(
        default={},
        description="Values of the chart `istiod` (control plane, injector, MeshConfig). "
        "Default: only what the program sets.",
    )
    gateway: Manifest = Field(
        default={},
        description="Values of the chart `gateway` for the east-west gateway in the cluster. "
        "Default: only its Service and its network.",
    )


class MeshSettings(Record):
    """Declare the mesh and its control plane, which Istio's charts install.

    With `adopt: true` the mesh exists already, and no part of its configuration is changed.
    """

    id: str = Field(
        default="",
        description="Mesh ID, a Kubernetes label value. Required unless `adopt` is true; "
        "then it is read from the cluster.",
    )
    adopt: bool = Field(
        default=False,
        description="Whether the cluster has a mesh already. If true, its facts are read from "
        "its ConfigMaps and from istiod's Deployment. Default: the program installs Istio.",
    )
    namespace: str = Field(
        default=ISTIO_NAMESPACE,
        description=f"Namespace of the control plane. Default: Istio's own, `{ISTIO_NAMESPACE}`.",
    )
    revision: str | None = Field(
        default=None,
        description="Revision of the control plane; of an adopted mesh, a revision or a tag. "
        "Default: no revision; in an adopted mesh, the control plane that "
        f"`{INJECTION_LABEL}: enabled` selects, else the only one.",
    )
    version: str = Field(
        description="Istio release, such as 1.31.0 or a vendor's 1.31.0-asm.3: of the machines' "
        "proxies, and of the control plane if the program installs it. `-distroless` is of images "
        "alone; packages and charts are taken without it.",
    )
    cluster_id: str = Field(
        default=DEFAULT_CLUSTER_ID,
        description="Name of the cluster in the mesh (`global.multiCluster.clusterName`). It is "
        "read from a mesh that is adopted. Default: Istio's own default.",
    )
    charts: str = Field(
        default="https://blob.istio.io/istio-release/charts",
        description="Source of the charts `base`, `istiod` and `gateway`: a Helm repository "
        "(`https://`), an OCI registry (`oci://`) or a directory. Default: Istio's repository.",
    )
    hub: str = Field(
        default="docker.io/istio",
        description="Container registry and path of Istio's images. An adopted mesh needs it only "
        "where nothing in the cluster names it. Default: Istio's on Docker Hub.",
    )
    gateway_api: str = Field(
        default="https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.0/"
        "standard-install.yaml",
        description="File, directory or `https://` URL with the CRDs of the Gateway API. They are "
        "installed if the cluster has none and machines are in networks other than the cluster's, "
        "and upgraded if this program installed them. "
        "Default: the standard channel of release 1.6.0.",
    )
    package: Package = Field(
        default_factory=Package,
        description="Sidecar package that machines unpack. Default: the one of the Istio release "
        "in `version`, checked by its published digest.",
    )
    values: ChartValues = Field(
        default_factory=ChartValues,
        description="Additional Helm values by chart. Default: no values beyond the program's.",
    )
