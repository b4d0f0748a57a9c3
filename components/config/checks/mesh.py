"""Rules for the mesh and its versions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...grammar import (
    KUBERNETES_NAME,
    has_credentials,
    is_file,
    is_hub,
    is_label_value,
    is_url,
)
from ...mesh_facts import (
    DEFAULT_REVISION,
    RESTRICTED,
    SHARED_CONFIG,
    from_values,
    injection_labels,
)
from ...mesh_namespaces import left_out, refusal_of_sidecars
from ...names import (
    DISCONNECT_GRACE,
    MANAGED_BY_LABEL,
    NETWORK_LABEL,
    POD_SECURITY_LABEL,
    PROJECT,
    STACK_LABEL,
)
from ...versions import is_release, minor, unsupported_kubernetes
from ..docker import KindCluster
from ..existing import ExistingCluster
from ..mesh import MeshSettings, Package, is_sha256
from ..problems import Problem, suggestion
from ..stack import Settings
from .texts import check_source

# What is read from a mesh that is adopted.
_READ = {"id": "id", "cluster_id": "clusterId"}
# Values of the chart that the program's other charts and objects must fit.
_SETTINGS = {
    ("revision",): "mesh.revision",
    ("global", "istioNamespace"): "mesh.namespace",
    ("global", "network"): "cluster.network",
    ("global", "meshID"): "mesh.id",
    ("global", "multiCluster", "clusterName"): "mesh.clusterId",
}
# Values of the chart `gateway` by which the program's objects select it, and istiod its network.
_SETTINGS_OF_GATEWAY = {
    ("name",): "machines reach the gateway by the label that follows from its name: leave it out",
    ("labels", "istio"): "machines reach the gateway by this label: leave it out",
    ("revision",): "set mesh.revision instead",
}
# The program sets them where machines are in other networks. Else they are of other clusters.
_NETWORK_OF_GATEWAY = (("labels", NETWORK_LABEL), ("networkGateway",))


def check(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with the mesh of a stack."""
    mesh, cluster = settings.mesh, settings.cluster
    if not mesh.adopt and not mesh.id:
        yield Problem("mesh.id", "is missing")
    yield from _check_names(mesh)
    yield from _check_sources(mesh)
    if mesh.adopt:
        for key, name in _READ.items():
            if getattr(mesh, key) and key in mesh.model_fields_set:
                yield Problem(f"mesh.{name}", "is read from the mesh that is adopted: leave it out")
        if not isinstance(cluster, ExistingCluster):
            yield Problem(
                "mesh.adopt",
                f"a cluster that this stack creates ({cluster.platform}) has no mesh to adopt: "
                "use the platform existing",
            )
        for chart in ("base", "istiod"):
            if getattr(mesh.values, chart):
                yield Problem(
                    f"mesh.values.{chart}", "an adopted mesh is not changed: leave these values out"
                )
    else:
        yield from _check_values(settings)
    for keys, fix in _SETTINGS_OF_GATEWAY.items():
        if _has(mesh.values.gateway, keys):
            yield Problem(f"mesh.values.gateway.{'.'.join(keys)}", fix)
    if any(machine.network != cluster.network for machine in settings.machines.values()):
        for keys in _NETWORK_OF_GATEWAY:
            if _has(mesh.values.gateway, keys):
                yield Problem(
                    f"mesh.values.gateway.{'.'.join(keys)}",
                    "follows from cluster.network, because machines are in other networks: "
                    "leave it out",
                )
    for key, text in (("id", mesh.id), ("clusterId", mesh.cluster_id)):
        if not is_label_value(text):
            yield Problem(
                f"mesh.{key}",
                f"{text!r} is not a label value: up to 63 letters, digits, '-', '_' and '.'",
            )
    if not mesh.cluster_id:
        yield Problem("mesh.clusterId", "must not be empty: leave it out for Istio's own default")
    yield from _check_package(mesh.package)
    env = mesh.values.istiod.get("env")
    ambient = (
        isinstance(env, Mapping) and str(env.get("PILOT_ENABLE_AMBIENT", "")).lower() == "true"
    )
    if ambient or mesh.values.istiod.get("profile") == "ambient":
        yield Problem(
            "mesh.values.istiod",
            "ambient mode is not supported, because machines are sidecars: leave it out",
        )
    yield from _check_versions(settings)


def _check_names(mesh: MeshSettings) -> Iterator[Problem]:
    for key in ("namespace", "revision"):
        name = getattr(mesh, key)
        if name is not None and not KUBERNETES_NAME.fullmatch(name):
            yield Problem(
                f"mesh.{key}",
                f"expected up to 63 lower-case letters, digits and '-'; got {name!r}",
            )
    if not mesh.adopt and mesh.revision == DEFAULT_REVISION:
        yield Problem(
            "mesh.revision", "`default` stands for a mesh without a revision: leave it out"
        )


def _check_sources(mesh: MeshSettings) -> Iterator[Problem]:
    """Yield charts, images and CRDs that nothing can be read from."""
    yield from check_source("mesh.charts", mesh.charts, ("https", "oci"))
    yield from check_source("mesh.gatewayApi", mesh.gateway_api, ("https",))
    if not is_hub(mesh.hub):
        yield Problem(
            "mesh.hub",
            f"{mesh.hub!r} is not a registry with a path: expected one such as docker.io/istio",
        )


def _check_values(settings: Settings) -> Iterator[Problem]:
    """Yield what the program cannot serve in a mesh that it installs."""
    mesh = settings.mesh
    path, values = "mesh.values.istiod", mesh.values.istiod
    for keys, instead in _SETTINGS.items():
        if _has(values, keys):
            yield Problem(f"{path}.{'.'.join(keys)}", f"set {instead} instead")
    if _has(values, ("env", SHARED_CONFIG)):
        yield Problem(
            f"{path}.env.{SHARED_CONFIG}",
            "names a ConfigMap that is not read: state its keys in meshConfig instead",
        )
    facts = from_values(dict(values), mesh.namespace)
    for clause in facts.unserved:
        yield Problem(path, clause)
    if values.get("profile") == "remote":
        yield Problem(
            path, "the profile remote installs no istiod: adopt the mesh of a cluster that has one"
        )
    gateways = [network.gateway for network in settings.networks.values() if network.gateway]
    has_groups = settings.instance_groups or any(gateway.group for gateway in gateways)
    if has_groups and facts.grace_s > DISCONNECT_GRACE:
        yield Problem(
            f"{path}.env",
            f"PILOT_WORKLOAD_ENTRY_GRACE_PERIOD is {facts.grace_s} s: machines of an instance "
            f"group have {DISCONNECT_GRACE} s when they shut down",
        )
    ours = {MANAGED_BY_LABEL: PROJECT, STACK_LABEL: ""}
    namespaces = {
        name: {**stated.labels, **_mesh_labels(settings, name), **ours}
        for name, stated in settings.created_namespaces.items()
    }
    for name, workloads in settings.pods_with_sidecars.items():
        if refusal := refusal_of_sidecars(facts, namespaces.get(name, {})):
            yield Problem(
                f"namespaces.{name}.labels.{POD_SECURITY_LABEL}",
                f"refuses pods of {', '.join(workloads)}: {refusal}; change that in {path}, "
                "or enforce `privileged`",
            )
    for name, workloads in settings.unrestricted_pods.items():
        if namespaces.get(name, {}).get(POD_SECURITY_LABEL) == RESTRICTED:
            yield Problem(
                f"namespaces.{name}.labels.{POD_SECURITY_LABEL}",
                f"refuses pods of {', '.join(workloads)}, whose pods.restricted is false: "
                "set it to true, or enforce `baseline`",
            )
    for name in left_out(facts.discovery_selectors, namespaces):
        yield Problem(
            f"{path}.meshConfig.discoverySelectors",
            f"leave out the namespace {name}, which has the labels "
            f"{', '.join(sorted(namespaces[name]))}: select one of them",
        )


def _mesh_labels(settings: Settings, namespace: str) -> Mapping[str, str]:
    """Return the labels that a namespace has for the mesh."""
    if namespace == settings.mesh.namespace:
        return {NETWORK_LABEL: settings.cluster.network}
    of_workloads = namespace not in settings.istio_namespaces
    return injection_labels(settings.mesh.revision or "") if of_workloads else {}


def _has(values: Mapping[str, Any], keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True


def _check_package(package: Package) -> Iterator[Problem]:
    if not package.url.startswith(("https://", "http://")) or not is_url(package.url):
        yield Problem(
            "mesh.package.url",
            f"expected a URL that begins with https:// or http://; got {package.url!r}",
        )
    elif has_credentials(package.url):
        yield Problem(
            "mesh.package.url",
            "has credentials, which would be in states and messages: put USER:PASSWORD into the "
            "environment variable ISTIO_VM_MESH_PACKAGE_CREDENTIALS",
        )
    for word in re.findall(r"{(.*?)}", package.url):
        if word not in ("version", "package"):
            hint = suggestion(word, ("version", "package"))
            yield Problem("mesh.package.url", f"{{{word}}} is not a placeholder{hint}")
    if package.sha256 is None:
        if package.url.startswith("http://"):
            yield Problem(
                "mesh.package.sha256",
                "is missing: over http:// only the SHA-256 verifies the package",
            )
        return
    is_plain = re.fullmatch(r"[0-9A-Za-z]*", package.sha256)
    if not is_sha256(package.sha256) and (is_plain or not is_file(package.sha256)):
        yield Problem(
            "mesh.package.sha256",
            "expected 64 hexadecimal digits, as sha256sum prints them, or the path of a file",
        )
    elif "{package}" in package.url:
        yield Problem(
            "mesh.package.sha256",
            "cannot match every package that {package} in the URL stands for: "
            "name one package there",
        )


def _check_versions(settings: Settings) -> Iterator[Problem]:
    version, cluster = settings.mesh.version, settings.cluster
    if not is_release(version):
        yield Problem(
            "mesh.version",
            "expected a release of Istio such as 1.31.0, or of a vendor such as 1.31.0-asm.3; "
            f"got {version!r}",
        )
        return
    if not isinstance(cluster, KindCluster) or settings.rules.disabled.kubernetes_version:
        return  # only the API server has the version
    kubernetes = minor(cluster.image.partition("@")[0].rpartition(":")[2])
    if supported := unsupported_kubernetes(version, kubernetes):
        yield Problem(
            "cluster.image",
            f"is Kubernetes {kubernetes}; {supported}. `rules.disabled.kubernetesVersion`, with a "
            "reason, permits it",
        )
