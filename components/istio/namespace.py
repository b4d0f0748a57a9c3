"""A namespace that this program creates. It stays while objects of others are in it."""

from __future__ import annotations

import pulumi

from .. import commands, names
from ..kubernetes import Cluster, KubernetesObject
from ..manifest import Manifest
from .scripts import remove_namespace


def owned_namespace(
    name: str, metadata: Manifest, cluster: Cluster, opts: pulumi.ResourceOptions, of_istio: bool = False
) -> list[pulumi.Resource]:
    """Declare a namespace, and the command that removes it after its objects.

    name: the resource's name. metadata: with the namespace's name. opts: the namespace's options.
    of_istio: whether it is Istio's own.

    Returns what must exist before anything is put into it.
    """
    kept = pulumi.ResourceOptions(retain_on_delete=True)
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    namespace = KubernetesObject(name, manifest, pulumi.ResourceOptions.merge(opts, kept))
    stack = names.stack_label(pulumi.get_project(), pulumi.get_stack())
    payload = cluster.access.apply(lambda access: remove_namespace.Payload(access, metadata["name"], stack, of_istio))
    removal = commands.local_command(
        names.part_name(name, names.REMOVAL),
        None,
        pulumi.ResourceOptions(parent=opts.parent, depends_on=[namespace], deleted_with=cluster.deleted_with),
        delete=commands.Script(remove_namespace, payload),
    )
    return [namespace, removal]
