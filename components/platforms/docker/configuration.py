"""kind's configuration, and address ranges on a Docker engine. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import yaml

from ...config.docker import KindCluster
from ...config.stack import Settings

# containerd's plugin for Kubernetes, as 2.x and as 1.x call it; each passes over the other's name.
_CONTAINERD = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")


def kind_config(cluster: KindCluster) -> str:
    """Return kind's configuration.

    By the kubelet's and containerd's settings it runs on hosts with cgroup v1 too.
    """
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
    """Return the CIDR of the Docker network for a network of the stack: the first that is not
    the pods'.
    """
    return IPv4Network(settings.machine_cidrs(network)[0])


def dynamic_cidr(cidr: IPv4Network) -> IPv4Network:
    """Return the lower half, from which Docker gives addresses that may change (the cluster's
    node).
    """
    return next(cidr.subnets())


def machine_addresses(cidr: IPv4Network) -> tuple[str, str]:
    """First and last address for machines, whose addresses stay: the upper half."""
    upper = list(cidr.subnets())[1]
    return str(upper[1]), str(upper[-2])
