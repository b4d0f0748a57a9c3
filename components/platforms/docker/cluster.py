"""A Kubernetes cluster of one node, made by kind on a Docker engine of the machine that runs Pulumi."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
from pulumi_command import local

from ... import shell
from ...config.docker import KindCluster
from ...config.stack import Settings
from ...kubernetes import Cluster
from . import names


class Kind(pulumi.ComponentResource):
    """The kind cluster of a stack. There is no load balancer, so gateways take the node's address in the Docker network.

    The node has a leg in every other Docker network of the stack too, for that address alone: machines there are given a route to it, and
    the node drops what would pass between them and the pods.
    """

    cluster: Cluster

    def __init__(
        self,
        stack: str,
        whole: Settings,
        settings: KindCluster,
        networks: Mapping[str, pulumi.Output[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """`settings` are those of the cluster, `whole` the stack's."""
        super().__init__("istio-vm-mesh:clusters:Kind", "cluster", {}, opts)
        network = networks[settings.network]
        # The node's name is the cluster's and "-control-plane": 63 letters at most, or kubeadm refuses.
        name = names.docker_name(stack, "cluster")
        made = local.Command(
            "cluster-kind",
            create=shell.LOCAL,
            stdin=network.apply(
                lambda docker_network: shell.local_script(
                    "platforms/docker/kind-create",
                    {
                        "NAME": name,
                        "IMAGE": settings.image,
                        "NETWORK": docker_network,
                        "CONFIG_BASE64": shell.b64encode(names.kind_config(settings)),
                    },
                )
            ),
            delete=f"kind delete cluster --name {name}",
            # kind changes nothing of a cluster that exists.
            triggers=[settings.image, settings.pod_range, settings.service_range, network],
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                additional_secret_outputs=["stdout"],
                custom_timeouts=pulumi.CustomTimeouts(create="10m"),
            ),
        )
        results = made.stdout.apply(shell.parse_results)
        ready: list[pulumi.Resource] = [made]
        if settings.load:
            images = " ".join(settings.load)
            loaded = local.Command(
                "cluster-images",
                create=f"kind load docker-image --name {name} {images} 2>&1",
                triggers=[made.id],
                logging=local.Logging.NONE,
                add_previous_output_in_env=False,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[made], deleted_with=made),
            )
            ready.append(loaded)
        attached = {
            other: self._attach(stack, other, whole, networks[other], made) for other in sorted(networks) if other != settings.network
        }
        address = pulumi.Output.unsecret(results.apply(lambda found: found["address"]))
        self.cluster = Cluster(
            kubeconfig=pulumi.Output.secret(results.apply(lambda found: shell.b64decode(found["kubeconfig"]))),
            identifier=made.id,
            gateway_service={"type": "ClusterIP", "externalIPs": [address]},
            gateway_address=address,
            ready=[*ready, *attached.values()],
            whole=made,
            nodes={other: command.stdout for other, command in attached.items()},
        )
        self.register_outputs({"address": address})

    def _attach(self, stack: str, network: str, settings: Settings, exists: pulumi.Output[str], made: local.Command) -> local.Command:
        docker_network, node = names.docker_name(stack, network), names.node_name(stack)
        ranges = {"PODS": settings.cluster.pod_range, "RANGE": str(names.docker_cidr(settings, network))}
        return local.Command(
            f"cluster-in-{network}",
            create=shell.LOCAL,
            stdin=shell.local_script("platforms/docker/docker-attach", {"NODE": node, "NETWORK": docker_network, **ranges}),
            delete=f"docker network disconnect --force {docker_network} {node}",
            triggers=[made.id, exists],
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[made], deleted_with=made),
        )
