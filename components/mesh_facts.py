"""The facts of a mesh: from the values that install it, or from what its cluster has. Pure.

Nothing is assumed. A fact comes from the MeshConfig (ConfigMap `istio`) and the injector's values
(ConfigMap `istio-sidecar-injector`). Where these are silent it comes from istiod's Deployment:
variables, arguments, labels. Where that is silent too, what istiod's code does then is the fact
(istio/istio: pilot/pkg/features/pilot.go, pkg/config/mesh/mesh.go). What no source states is a
problem that names the setting.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from . import grammar, names
from .manifest import Manifest
from .names import INJECTION_LABEL, ISTIO_NAMESPACE, REVISION_LABEL

DEFAULT_REVISION = "default"
"""The label `istio.io/rev` of a control plane that was installed without a revision."""
BASELINE, RESTRICTED = "baseline", "restricted"
"""The levels of Pod Security that refuse pods."""
SHARED_CONFIG = "SHARED_MESH_CONFIG"
"""The variable of istiod that names a second ConfigMap."""
_TRUST_BUNDLES = "ENABLE_CLUSTER_TRUST_BUNDLE_API"
_DISTROLESS = "distroless"
"""Istio's images without a shell, which the scripts of Jobs need."""
_DURATION = re.compile(r"\+?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h))+)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_IMAGE = re.compile(r"(?:(?P<hub>.+)/)?[^/:@]*(?::(?P<tag>[^@]+))?(?:@.*)?")
_FIXED_PORTS = {"proxyListenPort": names.OUTBOUND_PORT, "proxyInboundListenPort": names.INBOUND_PORT}
"""Ports of MeshConfig that Envoy listens on, on machines too. The redirection leads there."""


@dataclass(frozen=True, kw_only=True)
class MeshFacts:
    """A mesh as its machines and the objects of this program must fit it.

    namespace: Istio's own namespace.
    revision: of the control plane; "" for one without a revision.
    injection_labels: the labels by which a namespace selects it for its pods.
    discovery_address: istiod's host and port, as pods have it.
    trust_domain: the first part of every identity.
    trust_domain_aliases: others that certificates may have instead, as while it is changed.
    cluster_domain: the domain of the cluster's Services.
    root_namespace: where policies are valid throughout the mesh.
    root_config_map: the ConfigMap with the trust anchor, which istiod writes into every namespace.
    mesh_id, network, cluster_id: of the mesh, the pods' network and the cluster; "" for no name.
    grace_s: seconds from an agent's last connection until istiod removes its WorkloadEntry.
    hub, image_tag, image_variant: of Istio's images.
    image: the name of the proxy's image in the hub, or its complete name.
    pull_secrets: the names of the Secrets by which pods pull it.
    discovery_selectors: which namespaces istiod sees; none: all.
    default_config: the ProxyConfig of all proxies.
    sidecar_privileges: why a level of Pod Security refuses pods with sidecars, by the most
        permissive level that does; none: every level admits them.
    unserved: what this program cannot serve in the mesh, as clauses.
    """

    namespace: str
    revision: str
    injection_labels: Mapping[str, str]
    discovery_address: str
    trust_domain: str
    cluster_domain: str
    root_namespace: str
    root_config_map: str
    mesh_id: str
    network: str
    cluster_id: str
    grace_s: int
    hub: str
    image_tag: str
    image_variant: str = ""
    image: str = "proxyv2"
    pull_secrets: Sequence[str] = ()
    trust_domain_aliases: Sequence[str] = ()
    discovery_selectors: Sequence[Manifest] = ()
    default_config: Manifest = field(default_factory=dict)
    sidecar_privileges: Mapping[str, str] = field(default_factory=dict)
    unserved: Sequence[str] = ()

    @property
    def istiod(self) -> str:
        """Istiod's DNS name, which is in its certificate."""
        return self.discovery_address.rpartition(":")[0]

    @property
    def istiod_port(self) -> int:
        """The port of istiod's Service for proxies."""
        return int(self.discovery_address.rpartition(":")[2])

    @property
    def istiod_host(self) -> str:
        """The whole DNS name of istiod's Service."""
        host = self.istiod.removesuffix(f".{self.cluster_domain}")
        return f"{host}.{self.cluster_domain}"

    @property
    def proxy_image(self) -> str:
        """The image of the proxy, one with a shell: Istio publishes each tag without a variant too.

        Source: istio/istio, pkg/kube/inject/inject.go, `proxyImageURL`.
        """
        if "/" in self.image:
            return self.image
        tag = self.image_tag.removesuffix(f"-{_DISTROLESS}")
        if self.image_variant not in ("", _DISTROLESS) and not tag.endswith(f"-{self.image_variant}"):
            tag = f"{tag}-{self.image_variant}"
        return f"{self.hub}/{self.image}:{tag}"

    def spiffe_id(self, namespace: str, service_account: str) -> str:
        """Return the SPIFFE identity of a ServiceAccount (istio.io: Istio Identity)."""
        return names.spiffe_id(self.trust_domain, namespace, service_account)

    def spiffe_ids(self, namespace: str, service_account: str) -> tuple[str, ...]:
        """Return the identities that callers accept for a ServiceAccount, `spiffe_id` first.

        Source: istio/istio, pkg/spiffe/spiffe.go, `ExpandWithTrustDomains`, by which istiod has the
        names in certificates that proxies accept.
        """
        domains = dict.fromkeys((self.trust_domain, *self.trust_domain_aliases))
        return tuple(names.spiffe_id(domain, namespace, service_account) for domain in domains)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the facts come from.

    namespace: Istio's own namespace.
    injection_labels: the labels by which a namespace selects the control plane.
    config: the MeshConfig.
    values: the injector's values: `global`, `revision`, `pilot`.
    env: the variables of istiod's container; None for one whose value is somewhere else.
    args: its arguments.
    image: its image; "" where nothing runs yet.
    """

    namespace: str
    injection_labels: Mapping[str, str]
    config: Manifest
    values: Manifest
    env: Mapping[str, str | None]
    args: Sequence[str]
    image: str = ""


def derive(sources: Sources) -> MeshFacts:
    """Return the facts of a mesh.

    Problems are in `unserved`, so that they are reported at once.
    """
    # In the JSON of protobuf, and in Helm's values, null stands for a key that is left out.
    sources = replace(sources, config=_without_nulls(sources.config), values=_without_nulls(sources.values))
    config, env = sources.config, sources.env
    values = _section(sources.values, "global")
    default_config = _section(config, "defaultConfig")
    domain = _argument(sources.args, "--domain") or _section(values, "proxy").get("clusterDomain")
    trust_domain = config.get("trustDomain") or names.DEFAULT_DOMAIN
    grace_s = _seconds(env.get("PILOT_WORKLOAD_ENTRY_GRACE_PERIOD") or f"{names.DISCONNECT_GRACE}s")
    revision = str(sources.values.get("revision") or env.get("REVISION") or "")
    cluster_id = _section(values, "multiCluster").get("clusterName") or env.get("CLUSTER_ID")
    image = _IMAGE.fullmatch(sources.image)
    parts = image.groupdict() if image else {}
    root_config_map = env.get("PILOT_CA_CERT_CONFIGMAP") or values.get("trustBundleName")
    facts = MeshFacts(
        namespace=sources.namespace,
        revision="" if revision == DEFAULT_REVISION else revision,
        injection_labels=sources.injection_labels,
        discovery_address=str(default_config.get("discoveryAddress") or ""),
        trust_domain=str(trust_domain),
        cluster_domain=str(domain or names.DEFAULT_DOMAIN),
        root_namespace=str(config.get("rootNamespace") or ISTIO_NAMESPACE),
        root_config_map=str(root_config_map or names.DEFAULT_ROOT_CONFIG_MAP),
        mesh_id=str(default_config.get("meshId") or ""),
        network=str(values.get("network") or ""),
        cluster_id=str(cluster_id or names.DEFAULT_CLUSTER_ID),
        grace_s=grace_s or 0,
        hub=str(values.get("hub") or parts.get("hub") or ""),
        image_tag=str(values.get("tag") or parts.get("tag") or ""),
        image_variant=str(values.get("variant") or ""),
        image=str(_section(values, "proxy").get("image") or "proxyv2"),
        pull_secrets=_secret_names(values.get("imagePullSecrets")),
        trust_domain_aliases=_trust_domains(config.get("trustDomainAliases")),
        discovery_selectors=_label_selectors(config.get("discoverySelectors")) or (),
        default_config=default_config,
        sidecar_privileges=dict(_sidecar_privileges(sources.values, default_config)),
    )
    return replace(facts, unserved=(*_unserved(sources, grace_s), *_unusable_names(facts)))


def _section(values: Mapping[str, Any], key: str) -> Manifest:
    section = values.get(key)
    return dict(section) if isinstance(section, Mapping) else {}


def _without_nulls(values: Manifest) -> Manifest:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in values.items() if value is not None
    }  # fmt: skip


def _maps(value: Any) -> list[Manifest]:
    return [dict(each) for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else []


def _argument(args: Sequence[str], name: str) -> str | None:
    """Return the value of an argument, the last one where there are several."""
    values = [arg.removeprefix(f"{name}=") for arg in args if arg.startswith(f"{name}=")]
    values += [value for arg, value in itertools.pairwise(args) if arg == name]
    return values[-1] if values else None


def _seconds(duration: str) -> int | None:
    """Return a duration of Go, rounded up to whole seconds; None for what is not one.

    Source: Go's time.ParseDuration.
    """
    if not _DURATION.fullmatch(duration):
        return None
    parts = re.findall(r"([\d.]+)([^\d.]+)", duration.removeprefix("+"))
    return math.ceil(round(sum(float(number) * _UNITS_S[unit] for number, unit in parts), 9))


def _secret_names(value: Any) -> tuple[str, ...]:
    """Return names of Secrets, which are listed as texts or as references."""
    listed = value if isinstance(value, list | tuple) else [value] if value else []
    return tuple(str(each.get("name") if isinstance(each, Mapping) else each) for each in listed)


def _trust_domains(value: Any) -> tuple[str, ...]:
    """Return the trust domains of a list.

    A pattern, which policies may have, is in no certificate.
    """
    listed = value if isinstance(value, list | tuple) else ()
    return tuple(each for each in listed if isinstance(each, str) and grammar.is_trust_domain(each))


def _label_selectors(value: Any) -> tuple[Manifest, ...] | None:
    """Return label selectors; None where these are none."""
    listed = [] if value is None else value
    if not isinstance(listed, list | tuple) or not all(map(_is_label_selector, listed)):
        return None
    return tuple(map(dict, listed))


def _is_label_selector(value: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("matchLabels", {}), Mapping):
        return False
    expressions = value.get("matchExpressions", [])
    return isinstance(expressions, list | tuple) and all(
        isinstance(each, Mapping) and {"key", "operator"} <= each.keys() for each in expressions
    )


def _sidecar_privileges(values: Manifest, default_config: Manifest) -> Iterator[tuple[str, str]]:
    """Yield what Pod Security refuses in sidecars, by the most permissive level that does.

    Sources: istio/istio, manifests/charts/istio-control/istio-discovery/files/
    injection-template.yaml; kubernetes.io, Pod Security Standards.
    """
    proxy = _section(_section(values, "global"), "proxy")
    mode = default_config.get("interceptionMode")
    cni = _section(_section(values, "pilot"), "cni") or _section(values, "istio_cni")
    if str(proxy.get("capNetBindService")).lower() == "true":
        yield RESTRICTED, "sidecars run as root (global.proxy.capNetBindService)"
    if proxy.get("privileged") is True:
        yield BASELINE, "sidecars are privileged (global.proxy.privileged)"
    if mode == "TPROXY":
        yield BASELINE, "sidecars have NET_ADMIN (defaultConfig.interceptionMode is TPROXY)"
    if cni.get("enabled") is not True and mode != "NONE":
        yield BASELINE, "without Istio's CNI plugin (pilot.cni.enabled), sidecars have an init container with NET_ADMIN"


def _unserved(sources: Sources, grace_s: int | None) -> Iterator[str]:
    """Yield what cannot be served, as clauses that name the key and what to do."""
    config, values = sources.config, _section(sources.values, "global")
    default_config = _section(config, "defaultConfig")
    yield from _unserved_variables(sources.env)
    if grace_s is not None and grace_s > names.MAX_DISCONNECT_GRACE:
        yield (
            f"istiod's PILOT_WORKLOAD_ENTRY_GRACE_PERIOD is {grace_s} s: an agent that stops would "
            f"wait for it, and waits {names.MAX_DISCONNECT_GRACE} s at most"
        )
    if grace_s is None:
        yield (
            "istiod's PILOT_WORKLOAD_ENTRY_GRACE_PERIOD is no duration such as 10s: "
            f"{sources.env.get('PILOT_WORKLOAD_ENTRY_GRACE_PERIOD')!r}"
        )
    address = str(default_config.get("discoveryAddress") or "")
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r"[\w-]+\.[\w-]+\.svc(\.[\w.-]+)?", host) or not port.isdigit():
        yield (
            f"its proxies find istiod at {address!r} (defaultConfig.discoveryAddress), which is no "
            "Service of this cluster: a control plane outside of the cluster is not supported"
        )
    metadata = default_config.get("proxyMetadata", {})
    if not isinstance(metadata, Mapping):
        yield f"defaultConfig.proxyMetadata is no map of variables: {metadata!r}"
    if _label_selectors(config.get("discoverySelectors")) is None:
        yield f"meshConfig.discoverySelectors are no label selectors: {config['discoverySelectors']!r}"
    yield from _other_authorities(values, default_config, address)
    for key, port_number in _FIXED_PORTS.items():
        if config.get(key, port_number) != port_number:
            yield f"meshConfig.{key} is {config[key]}: machines redirect to {port_number} alone"


def _unusable_names(facts: MeshFacts) -> Iterator[str]:
    """Yield facts that are no names where this program uses them: in identities, objects, files."""
    label = "a label's value"
    for text, is_valid, key, kind in (
        (facts.trust_domain, grammar.is_trust_domain, "meshConfig.trustDomain", "a trust domain"),
        (facts.cluster_domain, grammar.is_domain, "global.proxy.clusterDomain", "a DNS domain"),
        (facts.root_namespace, grammar.is_domain, "meshConfig.rootNamespace", "a namespace"),
        (facts.root_config_map, grammar.is_domain, "global.trustBundleName", "a ConfigMap"),
        (facts.mesh_id, grammar.is_label_value, "global.meshID", label),
        (facts.network, grammar.is_label_value, "global.network", label),
        (facts.cluster_id, grammar.is_label_value, "global.multiCluster.clusterName", label),
        (facts.image, grammar.is_image, "global.proxy.image", "an image"),
        (facts.image_variant or "none", grammar.is_tag, "global.variant", "part of a tag"),
        (facts.image_tag or "none", grammar.is_tag, "global.tag", "a tag of images"),
        (facts.hub or "none", grammar.is_hub, "global.hub", "a registry of images"),
        *((each, grammar.is_domain, "global.imagePullSecrets", "a Secret") for each in facts.pull_secrets),
    ):
        if not is_valid(text):
            yield f"its {key} is {text!r}, which cannot be {kind}"


def _unserved_variables(env: Mapping[str, str | None]) -> Iterator[str]:
    needed = {
        "PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION": "istiod registers no machine",
        "PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS": "istiod ignores the health of machines",
        "ENABLE_CA_SERVER": "the certificate authority of the mesh is not istiod",
    }
    for name, consequence in needed.items():
        # strconv.ParseBool, by which Istio reads its variables
        if str(env.get(name) or "").lower() in ("false", "f", "0"):
            yield f"{consequence} ({name}={env[name]}), which machines of this program need"
    if str(env.get(_TRUST_BUNDLES) or "").lower() in ("true", "t", "1"):
        yield f"the mesh's root certificate is in a ClusterTrustBundle ({_TRUST_BUNDLES}), and machines get that of a ConfigMap: switch it off"
    audiences = env.get("TOKEN_AUDIENCES") or names.TOKEN_AUDIENCE
    if names.TOKEN_AUDIENCE not in audiences.split(","):
        yield f"istiod takes tokens for {audiences} alone (TOKEN_AUDIENCES): add {names.TOKEN_AUDIENCE}, which machines have tokens for"
    used = ("PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "PILOT_CA_CERT_CONFIGMAP", "TOKEN_AUDIENCES", SHARED_CONFIG, _TRUST_BUNDLES)
    for name in (*needed, *used):
        if name in env and env[name] is None:
            yield f"istiod's {name} comes from another object (valueFrom): state its value itself"


def _other_authorities(values: Manifest, config: Manifest, istiod: str) -> Iterator[str]:
    metadata = _section(config, "proxyMetadata")
    for key, address in (
        ("global.caAddress", values.get("caAddress")),
        ("defaultConfig.proxyMetadata.CA_ADDR", metadata.get("CA_ADDR")),
    ):
        if address and not _same_host(str(address), istiod):
            yield (f"the certificate authority of the mesh is {address} ({key}), and not istiod, which the east-west gateway leads to")


def _same_host(one: str, other: str) -> bool:
    """Return whether two addresses name one Service, with or without the cluster's domain."""
    first, second = (tuple(address.rpartition(":")[0].split(".")[:2]) for address in (one, other))
    return first == second


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Manifest:
    """Return `base` with `over` on top, maps merged key by key, as Helm merges values."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = merge(below, value)
        else:
            result[key] = value
    return result


def from_values(values: Manifest, namespace: str) -> MeshFacts:
    """Return the facts of a mesh that the chart `istiod` installs.

    values: of the chart, merged. namespace: of the release.

    Source: istio/istio, manifests/charts/istio-control/istio-discovery/templates/configmap.yaml.
    """
    values = merge(values, _section(values, "pilot"))  # the chart's template zzy_descope_legacy.yaml
    section = _section(values, "global")
    revision = str(values.get("revision") or "")
    service = f"{names.ISTIOD_DEPLOYMENT}-{revision}" if revision else names.ISTIOD_DEPLOYMENT
    default_config: Manifest = {"discoveryAddress": f"{service}.{namespace}.svc:{names.XDS_PORT}"}
    if section.get("meshID"):
        default_config["meshId"] = str(section["meshID"])
    if variant := _section(section, "proxy").get("variant") or section.get("variant"):
        default_config["image"] = {"imageType": variant}
    root_namespace = section.get("istioNamespace") or ISTIO_NAMESPACE
    config = {"rootNamespace": root_namespace, "defaultConfig": default_config}
    env: dict[str, str | None] = {key: _text(value) for key, value in _section(values, "env").items()}
    env |= {each["name"]: each.get("value") for each in _maps(values.get("envVarFrom"))}
    domain = _section(section, "proxy").get("clusterDomain")
    return derive(
        Sources(
            namespace=namespace,
            injection_labels=injection_labels(revision),
            config=merge(config, _section(values, "meshConfig")),
            values={**values, "pilot": {"cni": _section(values, "cni")}},
            env=env,
            args=[*(["--domain", str(domain)] if domain else []), *(values.get("extraContainerArgs") or ())],
        )
    )


def _text(value: Any) -> str:
    """Return a value as a template of Helm prints it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def injection_labels(revision: str) -> dict[str, str]:
    """Return the labels of a namespace whose pods a revision or tag injects; "" for the default."""
    return {REVISION_LABEL: revision} if revision else {INJECTION_LABEL: "enabled"}


def encode(facts: MeshFacts) -> str:
    """Return facts as JSON: numbers are numbers of their kind after a state kept them."""
    return json.dumps(asdict(facts), sort_keys=True)


def decode(text: str) -> MeshFacts:
    """Return the facts of `encode`."""
    values: dict[str, Any] = json.loads(text)
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return MeshFacts(**{**values, **lists})
