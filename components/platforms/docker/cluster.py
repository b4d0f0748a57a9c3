"""A Kubernetes cluster of one node, created by kind on a Docker engine of this computer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_command import local

from ... import commands
from ...config.docker import KindCluster
from ...kubernetes import Cluster
from ...local.cluster_access import ClusterAccess
from ...names import part_name
from . import configuration, names
from .network import DockerNetwork
from .scripts import attach_network, create_cluster, delete_cluster, detach_network, load_images


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
        super().__init__(names.KIND_TYPE, name, {}, opts)
        self._args = args
        # kubeadm refuses node names of more than 63 letters: this name and "-control-plane".
        self._kind_name = names.docker_name(args.stack, name)
        kind = self._kind()
        attachments = {network.name: self._attach(network, kind) for network in args.other_networks}
        access = commands.result(kind, create_cluster.Result)
        address = pulumi.Output.unsecret(access.apply(lambda result: result.address))
        self.cluster = Cluster(
            network=args.settings.network,
            pod_cidr=args.settings.pod_cidr,
            access=kind.id.apply(lambda _: ClusterAccess(kind=self._kind_name)),
            kubeconfig=pulumi.Output.secret(access.apply(lambda result: result.kubeconfig)),
            created_by=kind.id,
            gateway_service={"type": "ClusterIP", "externalIPs": [address]},
            replicas=1,  # there is one node
            gateway_address=address,
            ready=[kind, *self._images(kind), *attachments.values()],
            node_addresses={network: _address(command) for network, command in attachments.items()},
            deleted_with=kind,
        )
        self.register_outputs({"address": address})

    def _kind(self) -> local.Command:
        settings, network = self._args.settings, self._args.network.docker_name

        def deletion(docker_network: str) -> delete_cluster.Payload:
            return delete_cluster.Payload(self._kind_name, docker_network)

        def payload(docker_network: str) -> create_cluster.Payload:
            return create_cluster.Payload(
                name=self._kind_name,
                image=settings.image,
                network=docker_network,
                configuration=configuration.kind_config(settings),
            )

        return commands.local_command(
            part_name(self._name, names.KIND),
            commands.Script(create_cluster, network.apply(payload)),
            pulumi.ResourceOptions(parent=self, delete_before_replace=True),
            delete=commands.Script(delete_cluster, network.apply(deletion)),
            options=commands.CommandOptions(
                # kind changes nothing of a cluster that exists.
                triggers=[settings.image, settings.pod_cidr, settings.service_cidr, network],
                secret_result=True,
                timeout_s=600,
            ),
        )

    def _images(self, kind: local.Command) -> list[pulumi.Resource]:
        """Copy images of the engine into the node."""
        images = self._args.settings.preload_images
        if not images:
            return []
        payload = load_images.Payload(cluster=self._kind_name, images=tuple(images))
        return [
            commands.local_command(
                part_name(self._name, names.IMAGES),
                commands.Script(load_images, payload),
                pulumi.ResourceOptions(parent=self, depends_on=[kind], deleted_with=kind),
                options=commands.CommandOptions(triggers=[kind.id], quiet=True),
            )
        ]

    def _attach(self, network: DockerNetwork, kind: local.Command) -> local.Command:
        """Attach the node to another network."""
        docker_network = names.docker_name(self._args.stack, network.name)
        node = names.node_name(self._args.stack, self._name)
        payload = attach_network.Payload(
            node=node,
            network=docker_network,
            pod_cidr=self._args.settings.pod_cidr,
            network_cidr=str(network.cidr),
        )
        return commands.local_command(
            names.attachment_name(self._name, network.name),
            commands.Script(attach_network, payload),
            pulumi.ResourceOptions(parent=self, depends_on=[kind], deleted_with=kind),
            delete=commands.Script(detach_network, detach_network.Payload(node, docker_network)),
            options=commands.CommandOptions(triggers=[kind.id, network.docker_name]),
        )


def _address(attachment: local.Command) -> pulumi.Output[str]:
    """Return the node's address in a network that it was attached to."""
    return commands.result(attachment, attach_network.Result).apply(lambda result: result.address)
