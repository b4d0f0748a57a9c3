"""Reads the facts of a mesh that exists, at each run, in previews too.

A dynamic provider's `check` reads the cluster by kubectl. What it returns is an input, so it has a
value in a preview. A mesh that machines cannot join is refused there, before anything is changed. A
cluster that does not answer leaves the facts unknown in a preview, and is an error in an update.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult
from pulumi.runtime.rpc import UNKNOWN

from .. import mesh_facts
from ..local import cluster_access, scripting
from ..local.cluster_access import ClusterAccess, Kubectl
from ..manifest import Manifest
from ..mesh_facts import MeshFacts
from ..names import NETWORK_LABEL, TAG_LABEL
from ..plugin_process import end_with_cli
from . import adoption, revisions
from .adoption import Adoption
from .revisions import ControlPlane

end_with_cli()

REQUEST_TIMEOUT = "--request-timeout=20s"
_GATEWAYS = "gateways.gateway.networking.k8s.io"
_SELECTOR = ("--selector", "app=istiod")


def read(kubectl: Kubectl, wanted: Adoption) -> tuple[MeshFacts, list[str]]:
    """Return the facts of a mesh, and why machines cannot join it.

    kubectl: for its cluster. wanted: what the stack states of it.

    Raises scripting.Failed where the cluster has no mesh that can be read.
    """
    namespace = wanted.namespace
    deployments = _get(kubectl, "deployments", "--namespace", namespace, *_SELECTOR)
    if not deployments:
        raise scripting.Failed(_no_istiod(kubectl, namespace))
    plane = _choose(kubectl, deployments, wanted)
    if plane.variable_maps:
        plane = plane.with_variables(_config_maps(kubectl, namespace, [name for name, _ in plane.variable_maps]))
    try:
        facts = revisions.from_cluster(namespace, plane, *_texts(kubectl, namespace, plane))
    except ValueError as error:
        raise scripting.Failed(str(error)) from None
    labels = adoption.labels_of(_get(kubectl, "namespaces", *wanted.existing_namespaces, "--ignore-not-found"))
    problems = list(adoption.problems(facts, wanted, labels))
    if wanted.pods_beside_others:
        webhooks = kubectl.json("get", "mutatingwebhookconfigurations", "--selector", "app=sidecar-injector")
        if webhooks:  # not everyone may read them
            problems += adoption.injection_problems(facts, wanted, labels, webhooks["items"])
    if wanted.needs_gateway_addresses:
        problems += adoption.gateway_problems(wanted, _published_addresses(kubectl, facts.network))
    return adoption.complete(facts, wanted), problems


def _texts(kubectl: Kubectl, namespace: str, plane: ControlPlane) -> tuple[list[str], str]:
    """Return the texts of a control plane: MeshConfigs, from below, and the injector's values."""
    config_map, shared, injector = plane.config_map, plane.shared_config_map, f"istio-sidecar-injector{plane.suffix}"
    maps = _config_maps(kubectl, namespace, [name for name in (shared, config_map, injector) if name])
    config, values = maps.get(config_map, {}).get("mesh"), maps.get(injector, {}).get("values")
    if config is None:
        raise scripting.Failed(
            f"the ConfigMap {namespace}/{config_map} has no MeshConfig under `mesh`: was the mesh installed by Istio's charts?"
        )
    if values is None:
        raise scripting.Failed(
            f"it has no sidecar injector (the ConfigMap {namespace}/{injector}): a mesh in ambient mode alone is not "
            "supported, because machines are sidecars"
        )
    return [maps.get(shared, {}).get("mesh", ""), config], values


def _config_maps(kubectl: Kubectl, namespace: str, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the data of those ConfigMaps that exist, by name."""
    maps = _get(kubectl, "configmaps", *names, "--namespace", namespace, "--ignore-not-found")
    return {each["metadata"]["name"]: each.get("data") or {} for each in maps}


def _choose(kubectl: Kubectl, deployments: Sequence[Manifest], wanted: Adoption) -> ControlPlane:
    present = revisions.revisions_of(deployments)
    tags: Mapping[str, str] = {}
    if wanted.revision not in present and (wanted.revision is not None or len(present) > 1):
        webhooks = _get(kubectl, "mutatingwebhookconfigurations", "--selector", TAG_LABEL)
        tags = revisions.tags_of(webhooks, wanted.namespace)
    try:
        return revisions.choose(deployments, tags, wanted.revision)
    except ValueError as error:
        raise scripting.Failed(str(error)) from None


def _published_addresses(kubectl: Kubectl, network: str) -> dict[str, str]:
    labelled = ("--all-namespaces", "--selector", f"{NETWORK_LABEL}={network}")
    gateways: list[Manifest] = []
    if _get(kubectl, "customresourcedefinitions", _GATEWAYS, "--ignore-not-found"):
        gateways = _get(kubectl, _GATEWAYS, *labelled)
    return adoption.published_addresses(_get(kubectl, "services", *labelled), gateways)


def _no_istiod(kubectl: Kubectl, namespace: str) -> str:
    elsewhere = kubectl.json("get", "deployments", "--all-namespaces", *_SELECTOR) or {"items": []}
    places = sorted({each["metadata"]["namespace"] for each in elsewhere["items"]})
    fix = f"set mesh.namespace to {' or '.join(places)}" if places else "managed control planes outside of the cluster are not supported"
    return f"no istiod runs in the namespace {namespace}: {fix}"


def _get(kubectl: Kubectl, *words: str) -> list[Manifest]:
    """Return objects of a kind. words: of `kubectl get`, the kind first.

    Raises scripting.Failed.
    """
    text = kubectl.check(*(REQUEST_TIMEOUT, "get", *words, "--output", "json"), purpose=f"its {words[0]} cannot be read", timeout_s=60).text
    answer: Manifest = json.loads(text) if text else {"items": []}
    items: list[Manifest] = answer.get("items", [answer])
    return items


class MeshReadingProvider(ResourceProvider):
    """Reads the facts of a mesh."""

    # No part of the provider is secret, and encryption would show a diff at every run.
    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Read the mesh, or refuse it. Whether the run is a preview is not kept."""
        inputs = {key: value for key, value in news.items() if key != "preview"}
        if UNKNOWN in (news["access"], news["wanted"], news.get("gateway_address")):  # the cluster does not exist yet
            return CheckResult({**inputs, "facts": UNKNOWN}, [])
        wanted = replace(Adoption(**json.loads(news["wanted"])), gateway_address=news.get("gateway_address") or "")
        try:
            with cluster_access.kubectl(ClusterAccess(**json.loads(news["access"]))) as kubectl:
                facts, problems = read(kubectl, wanted)
        except cluster_access.Unreachable as error:
            if news["preview"]:
                return CheckResult({**inputs, "facts": UNKNOWN}, [])
            return CheckResult(inputs, [CheckFailure("", str(error))])
        except scripting.Failed as error:
            problems = [str(error)]
        if problems:
            return CheckResult(inputs, [CheckFailure("", f"this mesh cannot be adopted: {problem}") for problem in problems])
        return CheckResult({**inputs, "facts": mesh_facts.encode(facts)}, [])

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Return whether the facts changed. How they are read is no difference."""
        return DiffResult(changes=_olds.get("facts") != _news.get("facts"))

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Store what was read. Nothing is created."""
        return CreateResult("mesh", props)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Store what was read. Nothing is changed."""
        return UpdateResult(_news)

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Do nothing: the mesh stays."""


@dataclass(frozen=True, kw_only=True)
class MeshReadingArgs:
    """What is read.

    access: how the cluster is reached. wanted: what the stack states of the mesh, without the address.
    gateway_address: the address by which machines reach a gateway that the mesh has; None where
        the stack installs one.
    """

    access: pulumi.Input[ClusterAccess]
    wanted: Adoption
    gateway_address: pulumi.Input[str] | None = None


class MeshReading(Resource, module="mesh", name="MeshReading"):
    """The facts of a mesh, read at each run.

    facts: the `MeshFacts`, as JSON.
    """

    facts: pulumi.Output[str]

    def __init__(self, name: str, args: MeshReadingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        access = pulumi.Output.from_input(args.access).apply(asdict)
        props = {
            "access": pulumi.Output.json_dumps(access),
            "wanted": json.dumps(asdict(args.wanted), sort_keys=True),
            "gateway_address": args.gateway_address,
            "preview": pulumi.runtime.is_dry_run(),
            "facts": None,
        }
        super().__init__(MeshReadingProvider(), name, props, opts)
