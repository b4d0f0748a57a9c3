"""The platforms `kind` and `docker`: names, kind's configuration, and CIDRs on a Docker engine."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import yaml

from ...config.docker import KindCluster
from ...config.stack import Settings

SSH_USER = "admin"
# The name of containerd's plugin for Kubernetes, in 2.x and in 1.x; each ignores the other's.
_CONTAINERD = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")


def docker_name(stack: str, name: str) -> str:
    """Return Docker's name of a container, network or cluster of a stack."""
    return f"istio-vm-mesh-{stack}-{name}"


def node_name(stack: str, cluster: str = "cluster") -> str:
    """Return the name of the container that is the kind cluster's node, as kind names it."""
    return f"{docker_name(stack, cluster)}-control-plane"


def stack_label(stack: str) -> str:
    """Return the label of everything that a stack creates on a Docker engine."""
    return f"istio-vm-mesh.stack={stack}"


def kind_config(cluster: KindCluster) -> str:
    """Return kind's configuration. Its kubelet and containerd settings also work with cgroup v1."""
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/",
    }
    config: dict[str, Any] = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"podSubnet": cluster.pod_cidr, "serviceSubnet": cluster.service_cidr},
        "kubeadmConfigPatches": [yaml.safe_dump(kubelet)],
        "containerdConfigPatches": [
            f'[plugins."{plugin}".containerd.runtimes.runc.options]\n  SystemdCgroup = false\n' for plugin in _CONTAINERD
        ],
    }
    return yaml.safe_dump(config, sort_keys=False)


def docker_cidr(settings: Settings, network: str) -> IPv4Network:
    """Return the CIDR of the Docker network of a network: the first that is not the pods'."""
    return IPv4Network(settings.machine_cidrs(network)[0])


def dynamic_cidr(cidr: IPv4Network) -> IPv4Network:
    """Return the lower half, from which Docker assigns addresses that can change (the node's)."""
    return next(cidr.subnets())


def machine_addresses(cidr: IPv4Network) -> tuple[str, str]:
    """Return first and last address of the upper half, for machines: their addresses stay."""
    upper = list(cidr.subnets())[1]
    return str(upper[1]), str(upper[-2])
