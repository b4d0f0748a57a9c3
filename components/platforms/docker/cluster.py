"""A Kubernetes cluster of one node, created by kind on a Docker engine of this computer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_command import local

from ... import shell
from ...config.docker import KindCluster
from ...kubernetes import Cluster
from . import names
from .network import DockerNetwork


@dataclass(frozen=True, kw_only=True)
class DockerClusterArgs:
    """What a kind cluster is made from.

    stack: the stack's name; Docker's names begin with it.
    settings: the cluster.
    network: the Docker network that its node is in.
    other_networks: Docker networks that the node is attached to as well.
    """

    stack: str
    settings: KindCluster
    network: DockerNetwork
    other_networks: Sequence[DockerNetwork] = ()


class DockerCluster(pulumi.ComponentResource):
    """A kind cluster. It has no load balancer, so gateways take the node's address.

    The node is attached to every other Docker network of the stack, for its address there alone.
    Machines get a route to that address. The node drops direct traffic between them and the pods.
    """

    cluster: Cluster

    def __init__(self, name: str, args: DockerClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-vm-mesh:clusters:Kind", name, {}, opts)
        self._args = args
        # kubeadm refuses node names of more than 63 letters: this name and "-control-plane".
        self._kind_name = names.docker_name(args.stack, name)
        kind = self._kind()
        attachments = {network.name: self._attach(network, kind) for network in args.other_networks}
        results = kind.stdout.apply(shell.parse_results)
        address = pulumi.Output.unsecret(results.apply(lambda values: values["address"]))
        self.cluster = Cluster(
            kubeconfig=pulumi.Output.secret(results.apply(lambda values: shell.b64decode(values["kubeconfig"]))),
            identifier=kind.id,
            gateway_service={"type": "ClusterIP", "externalIPs": [address]},
            gateway_address=address,
            ready=[kind, *self._images(kind), *attachments.values()],
            node_addresses={network: command.stdout for network, command in attachments.items()},
            deleted_with=kind,
        )
        self.register_outputs({"address": address})

    def _kind(self) -> local.Command:
        settings, network = self._args.settings, self._args.network.docker_name

        def script(docker_network: str) -> str:
            variables = {
                "NAME": self._kind_name,
                "IMAGE": settings.image,
                "NETWORK": docker_network,
                "CONFIG_BASE64": shell.b64encode(names.kind_config(settings)),
            }
            return shell.local_script("platforms/docker/kind-create", variables)

        return local.Command(
            f"{self._name}-kind",
            create=shell.LOCAL,
            stdin=network.apply(script),
            delete=f"kind delete cluster --name {self._kind_name}",
            # kind changes nothing of a cluster that exists.
            triggers=[settings.image, settings.pod_cidr, settings.service_cidr, network],
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                additional_secret_outputs=["stdout"],
                custom_timeouts=pulumi.CustomTimeouts(create="10m"),
            ),
        )

    def _images(self, kind: local.Command) -> list[pulumi.Resource]:
        """Copy images of the engine into the node."""
        images = self._args.settings.preload_images
        if not images:
            return []
        return [
            local.Command(
                f"{self._name}-images",
                create=f"kind load docker-image --name {self._kind_name} {' '.join(images)} 2>&1",
                triggers=[kind.id],
                logging=local.Logging.NONE,
                add_previous_output_in_env=False,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[kind], deleted_with=kind),
            )
        ]

    def _attach(self, network: DockerNetwork, kind: local.Command) -> local.Command:
        """Attach the node to another network."""
        docker_network = names.docker_name(self._args.stack, network.name)
        node = names.node_name(self._args.stack, self._name)
        variables = {
            "NODE": node,
            "NETWORK": docker_network,
            "PODS": self._args.settings.pod_cidr,
            "RANGE": str(network.cidr),
        }
        return local.Command(
            f"{self._name}-in-{network.name}",
            create=shell.LOCAL,
            stdin=shell.local_script("platforms/docker/docker-attach", variables),
            delete=f"docker network disconnect --force {docker_network} {node}",
            triggers=[kind.id, network.docker_name],
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[kind], deleted_with=kind),
        )
