"""Looks at the cluster before anything is changed in it, in previews too.

A dynamic provider's `check` runs in every preview and update, before anything that depends on the
resource. It identifies the cluster. It refuses objects of others that have names of this stack, and
existing objects that the stack cannot use. It refuses a version of Kubernetes on which Istio is not
supported, unless the mesh runs there already. GKE upgrades clusters without the program, and a
running mesh must stay changeable. What it returns are inputs, so they have values in a preview.
They depend on the cluster alone, not on the user, the kubeconfig, the context or the credential.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult
from pulumi.runtime.rpc import UNKNOWN

from . import existing_objects, ownership, versions
from .commands import runner_words
from .grammar import has_credentials
from .local import scripting
from .local.cluster_access import (
    UID_OF,
    ClusterAccess,
    ContextEntries,
    Unreachable,
    cluster_uid,
    context_entries,
    kubernetes_version,
    moved,
    note_move,
    unchecked_kubectl,
)
from .local.scripts import credentials
from .plugin_process import end_with_cli

end_with_cli()

_DERIVED = ("uid", "recorded", "kubeconfig", "kubernetes")
"""What `check` adds to the inputs, and all that makes a difference."""
_NAME = ("group", "kind", "namespace", "name")
"""The fields of an `ObjectName`, as they are in the inputs."""


class ClusterCheckProvider(ResourceProvider):
    """Identifies a cluster by the UID of its namespace kube-system."""

    # Nothing of the provider is worth hiding, and a stable state shows no diff.
    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Read the cluster; `_olds` are the inputs of the last update.

        What only distinguishes a preview from an update is not kept.
        """
        inputs = {key: value for key, value in news.items() if key != "preview"}
        try:
            return CheckResult({**inputs, **_checked(_olds, inputs)}, [])
        except Unreachable as error:
            if news.get("preview") is True:
                return CheckResult({**inputs, **_unknown(_olds, inputs)}, [])
            return CheckResult(inputs, [CheckFailure("", str(error))])
        except scripting.Failed as error:
            return CheckResult(inputs, [CheckFailure("", str(error))])

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """See a difference in the cluster alone, not in how it is reached."""
        return DiffResult(changes=any(_olds.get(key) != _news.get(key) for key in _DERIVED))

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Nothing is created. The id is the cluster's UID."""
        return CreateResult(props["uid"], _outputs(props))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Nothing is changed."""
        return UpdateResult(_outputs(_news))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing is deleted."""


def _outputs(props: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in props.items() if key != "objects"}


def _unknown(olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
    """Return the derived inputs of a cluster that does not answer: those of the last update, if
    any.
    """
    before = olds if olds.get("created_by") == news["created_by"] and olds.get("uid") else {}
    return {key: before.get(key, UNKNOWN) for key in _DERIVED}


def _checked(olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
    """Return the derived inputs. Raises scripting.Failed."""
    if shutil.which("kubectl") is None:
        raise scripting.Failed("kubectl is not on PATH: install it on the computer that runs Pulumi")
    if _has_unknown({key: news.get(key) for key in ("access", "created_by")}):  # the cluster does not exist yet
        return dict.fromkeys(_DERIVED, UNKNOWN)
    now = ClusterAccess(**news["access"])
    entries = context_entries(now) if now.text is None and now.kind is None else None
    before = olds if olds.get("created_by") == news["created_by"] and olds.get("uid") else None
    with unchecked_kubectl(now) as program:
        uid = cluster_uid(program, now)
        if before is not None and before["uid"] != uid:
            raise scripting.Failed(_other_cluster(before, uid, now, entries))
        kubernetes = kubernetes_version(program)
        _refuse_unsupported(news.get("istio") or "", kubernetes, before, now)
        objects = [_declared(each) for each in news["objects"] if not _has_unknown(each)]
        created = [each.name for each in objects if each.existing is None]
        former = _formerly_created(before) if before is not None else []
        _refuse_to_move(former, objects)
        if others := [name for name in created if not name.is_release]:
            ownership.refuse_others(program, others, news["stack"])
        # A release has no label of ours. One that was declared before was not there then.
        former_names = {each.name for each in former}
        releases = [name for name in created if name.is_release and name not in former_names]
        ownership.refuse_releases(program, releases)
        existing_objects.refuse_unfit(program, [each.existing for each in objects if each.existing is not None])
    recorded = replace(now, uid=uid)
    if before is not None:
        # How the cluster was first reached stays in the state.
        recorded = replace(recorded, context=before["recorded"].get("context"), path=before["recorded"].get("path"))
    note_move(recorded, now)
    return {
        "uid": uid,
        "recorded": asdict(recorded),
        "kubeconfig": _kubeconfig(entries, recorded) if entries else "",
        "kubernetes": versions.minor(kubernetes),
    }


def _refuse_unsupported(istio: str, kubernetes: str, before: Mapping[str, Any] | None, now: ClusterAccess) -> None:
    """Refuse to install Istio on a version of Kubernetes that it does not support.

    istio: the version that the stack installs; "" where nothing is to be refused.
    before: what the last update had. A mesh that was not supported then is no worse now.

    Raises scripting.Failed.
    """
    supported = versions.unsupported_kubernetes(istio, kubernetes)
    if not supported:
        return
    if before is not None:
        former = before.get("istio") or ""
        if not former or versions.unsupported_kubernetes(former, kubernetes):
            return
    raise scripting.Failed(
        f"{now.place} has Kubernetes {kubernetes}; {supported}. Nothing was installed. Set another mesh.version, or give the cluster "
        "another version of Kubernetes. `rules.disabled.kubernetesVersion`, with a reason, permits these versions"
    )


def _refuse_to_move(former: Iterable[DeclaredObject], now: Iterable[DeclaredObject]) -> None:
    """Refuse an object that another resource declares than before, as a Service of another workload.

    Pulumi would have the new resource take it over, verify it, and delete it with the old resource.
    former: what the last update created. now: what this one declares. Raises scripting.Failed.
    """
    owners = {each.name: each.declared_by for each in former if each.declared_by}
    moved = {each.name: each.declared_by for each in now if each.declared_by}
    listed = [f"{name} ({owners[name]} is now {moved[name]})" for name in sorted(moved) if owners.get(name, moved[name]) != moved[name]]
    if listed:
        raise scripting.Failed(
            f"objects of the cluster would change their place in the stack file: {', '.join(listed)}. Pulumi would create them "
            "again under the same names, and then delete them. Nothing was changed. Choose other names. Or take them out of "
            "the stack file with one update, and declare them in their new place with the next"
        )


def _as_inputs(objects: Iterable[DeclaredObject]) -> pulumi.Input[list[Any]]:
    """Return what is declared as the input `objects`."""
    return pulumi.Output.from_input([*map(_as_input, objects)])


def _as_input(each: DeclaredObject) -> Mapping[str, Any]:
    """Return what is declared as an item of the input `objects`. Its names may be outputs."""
    name = {key: getattr(each.name, key) for key in _NAME}
    if each.existing is None:
        return {**name, "declared_by": each.declared_by} if each.declared_by else name
    existing = asdict(each.existing)
    del existing["declared_by"]
    return {**name, "declared_by": each.declared_by, "existing": existing}


def _declared(item: Mapping[str, Any]) -> DeclaredObject:
    """Return what is declared, from an item of the input `objects`."""
    existing = existing_objects.ExistingObject(**item["existing"]) if "existing" in item else None
    return DeclaredObject(ownership.ObjectName(*(item[key] for key in _NAME)), item.get("declared_by", ""), existing)


def _formerly_created(before: Mapping[str, Any]) -> list[DeclaredObject]:
    """Return what the last update created. before: its inputs."""
    return [_declared(item) for item in before.get("objects") or () if "existing" not in item and not _has_unknown(item)]


def _has_unknown(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_unknown, value.values()))
    return isinstance(value, str) and value == UNKNOWN


def _other_cluster(before: Mapping[str, Any], uid: str, now: ClusterAccess, entries: ContextEntries | None) -> str:
    recorded = ClusterAccess(**before["recorded"])
    here = entries.cluster["server"] if entries else "the cluster"
    there = json.loads(before["kubeconfig"])["clusters"][0]["cluster"]["server"] if before["kubeconfig"] else "the cluster"
    return (
        f"{now.place} leads to another cluster than the stack's. The namespace {UID_OF} of {here} has the UID {uid}. "
        f"The stack is in {there} ({recorded.place}), where it has {before['uid']}. Nothing was changed. "
        "Name the stack's cluster. A cluster that was recreated needs a new stack"
    )


def _kubeconfig(entries: ContextEntries, recorded: ClusterAccess) -> str:
    """Return a kubeconfig without credentials for Pulumi's provider.

    The provider reads files relative to its own directory, unlike kubectl, so it gets no path.
    """
    kept = {key: value for key, value in entries.cluster.items() if key != "extensions"}
    for key, instead in (("proxy-url", "set HTTPS_PROXY instead"), ("server", "log in by a token, a certificate or a plugin")):
        if has_credentials(kept.get(key, "")):
            raise scripting.Failed(f"the {key} of {moved(recorded).place} holds a password, which the state would keep: {instead}")
    impersonated = {key: value for key, value in entries.user.items() if key.startswith("as")}
    plugin = {
        "apiVersion": credentials.API_VERSION,
        "command": "python3",
        "args": [*runner_words(credentials, "create")[1:], json.dumps({"create": {"access": asdict(recorded)}})],
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    name = "cluster"
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": kept}],
            "users": [{"name": name, "user": {**impersonated, "exec": plugin}}],
        }
    )


@dataclass(frozen=True)
class DeclaredObject:
    """An object of the cluster that a stack creates, or uses.

    name: its name. declared_by: the resource of an object that may go to another workload; "".
    existing: how an object of others is used; None for one that the stack creates.
    """

    name: ownership.ObjectName
    declared_by: str = ""
    existing: existing_objects.ExistingObject | None = None


@dataclass(frozen=True, kw_only=True)
class ClusterCheckArgs:
    """What is looked at.

    access: how the cluster is reached, without a UID.
    created_by: changes when this program creates another cluster; "" for a cluster that exists.
    stack: the stack as its label has it.
    istio: the version of Istio that the stack installs, and that Kubernetes must fit; "" for none.
    objects: what the stack creates in the cluster, and what it uses of others.
    """

    access: pulumi.Input[ClusterAccess]
    created_by: pulumi.Input[str]
    stack: str
    objects: pulumi.Input[Sequence[DeclaredObject]]
    istio: str = ""


class ClusterCheck(Resource, module="cluster", name="ClusterCheck"):
    """What a cluster is, read at each run.

    uid: the UID of its namespace kube-system.
    recorded: how it is reached, as the state has it; a `ClusterAccess` as a map.
    kubeconfig: a kubeconfig without credentials; "" where the platform has one.
    kubernetes: its major and minor version of Kubernetes, such as 1.35; "" where it gives none.
    """

    uid: pulumi.Output[str]
    recorded: pulumi.Output[Mapping[str, Any]]
    kubeconfig: pulumi.Output[str]
    kubernetes: pulumi.Output[str]

    def __init__(self, name: str, args: ClusterCheckArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {
            "access": pulumi.Output.from_input(args.access).apply(asdict),
            "created_by": args.created_by,
            "stack": args.stack,
            "objects": pulumi.Output.from_input(args.objects).apply(_as_inputs),
            "istio": args.istio,
            "preview": pulumi.runtime.is_dry_run(),
        }
        super().__init__(ClusterCheckProvider(), name, {**props, **dict.fromkeys(_DERIVED)}, opts)
