"""Why machines cannot join a mesh that exists. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..config.addresses import is_address
from ..manifest import Manifest
from ..mesh_facts import DEFAULT_REVISION, RESTRICTED, MeshFacts
from ..mesh_namespaces import NAME_LABEL, injected_pod_labels, is_injected, left_out, refusal_of_sidecars
from ..names import (
    AMBIENT_LABEL,
    INJECTION_LABEL,
    MANAGED_BY_LABEL,
    NETWORK_LABEL,
    POD_SECURITY_LABEL,
    PROJECT,
    REVISION_LABEL,
    STACK_LABEL,
)
from ..versions import image_tag


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What a stack states of a mesh that exists.

    namespace: Istio's own. revision: a revision or tag; None for the default.
    version: the release of the machines' proxies.
    hub: the registry of Istio's images; "" where the stack states none.
    network: the network of the cluster's pods, as the stack calls it.
    other_networks: networks of machines that are not the cluster's.
    created_namespaces: the labels that the stack states of namespaces that it creates, by name.
    other_namespaces: the namespaces of workloads that exist.
    pods: the workloads of which the stack runs pods with sidecars, by namespace.
    unrestricted_pods: those of them that the level `restricted` refuses, by namespace.
    stack: the stack as its label has it.
    gateway_address: the address by which machines reach a gateway that the mesh has; "" where the
        stack installs one.
    """

    namespace: str
    revision: str | None
    version: str
    hub: str
    network: str
    other_networks: Sequence[str]
    created_namespaces: Mapping[str, Mapping[str, str]]
    other_namespaces: Sequence[str]
    pods: Mapping[str, Sequence[str]]
    unrestricted_pods: Mapping[str, Sequence[str]]
    stack: str
    gateway_address: str = ""

    @property
    def needs_gateway_addresses(self) -> bool:
        """Whether machines of other networks are given what a gateway of others has for address."""
        return bool(self.gateway_address and self.other_networks)

    @property
    def pods_beside_others(self) -> list[str]:
        """The namespaces of others in which the stack runs pods with sidecars."""
        return [name for name in self.pods if name in self.other_namespaces]

    @property
    def existing_namespaces(self) -> list[str]:
        """The namespaces that must be in the cluster."""
        return [self.namespace, *self.other_namespaces]


def complete(facts: MeshFacts, adoption: Adoption) -> MeshFacts:
    """Return the facts, with the stack's values where the cluster states none."""
    return replace(facts, hub=facts.hub or adoption.hub, image_tag=facts.image_tag or image_tag(adoption.version))


def problems(facts: MeshFacts, adoption: Adoption, labels: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield why machines cannot join a mesh: clauses with the cause and the fix.

    facts: as the cluster has them. labels: those of namespaces that exist, by name.
    """
    yield from facts.unserved
    if facts.hub and adoption.hub not in ("", facts.hub):
        yield f"its images are in {facts.hub}, not in {adoption.hub}: leave out mesh.hub"
    if not facts.hub and not adoption.hub and "/" not in facts.image:
        yield "nothing in the cluster names the registry of Istio's images: set mesh.hub"
    yield from _network_problems(facts, adoption)
    missing = [name for name in adoption.existing_namespaces if name not in labels]
    for name in missing:
        yield f"the namespace {name} does not exist: cluster.namespaces names those that do"
    ours = {**facts.injection_labels, MANAGED_BY_LABEL: PROJECT, STACK_LABEL: adoption.stack}
    of_stack: dict[str, Mapping[str, str]] = {name: {**stated, **ours} for name, stated in adoption.created_namespaces.items()}
    of_stack |= {name: labels[name] for name in adoption.existing_namespaces if name in labels}
    for name in left_out(facts.discovery_selectors, of_stack):
        yield _left_out(name, name in adoption.created_namespaces)
    for name, workloads in adoption.pods.items():
        if refusal := refusal_of_sidecars(facts, of_stack.get(name, {})):
            yield (
                f"the namespace {name} enforces Pod Security's level "
                f"{of_stack[name][POD_SECURITY_LABEL]}, which refuses pods of {', '.join(workloads)}: "
                f"{refusal}; change that in the mesh, or enforce the level privileged"
            )
    for name, workloads in adoption.unrestricted_pods.items():
        if of_stack.get(name, {}).get(POD_SECURITY_LABEL) == RESTRICTED:
            yield (
                f"the namespace {name} enforces Pod Security's level {RESTRICTED}, which refuses pods of "
                f"{', '.join(workloads)}: set their pods.restricted to true, or enforce the level baseline"
            )
    for name, all_labels in of_stack.items():
        if all_labels.get(AMBIENT_LABEL) == "ambient":
            yield (
                f"the namespace {name} is in ambient mode ({AMBIENT_LABEL}), which is not supported, "
                "because machines are sidecars: use another namespace"
            )


def injection_problems(
    facts: MeshFacts, adoption: Adoption, labels: Mapping[str, Mapping[str, str]], webhooks: Sequence[Manifest]
) -> Iterator[str]:
    """Yield in which namespaces of others pods of the stack would get no sidecar.

    labels: those of namespaces that exist, by name.
    webhooks: the objects MutatingWebhookConfiguration of sidecar injectors. Nothing is said where
        those of the mesh are not among them: a vendor may label them otherwise.
    """
    revision = facts.revision or DEFAULT_REVISION
    if revision not in [(each["metadata"].get("labels") or {}).get(REVISION_LABEL) for each in webhooks]:
        return
    pod = injected_pod_labels(facts)
    for name in adoption.pods_beside_others:
        here = labels.get(name)
        if here is None or is_injected(webhooks, {NAME_LABEL: name, **here}, pod):
            continue
        stated = {key: here[key] for key in (INJECTION_LABEL, REVISION_LABEL) if key in here}
        yield (
            f"pods of {', '.join(adoption.pods[name])} in the namespace {name} would get no sidecar, "
            f"because its labels ({_listed(stated) or 'none'}) select no control plane: "
            f"give it {_listed(facts.injection_labels)} instead"
        )


def _listed(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in sorted(labels.items()))


def _left_out(namespace: str, created: bool) -> str:
    place = f" in namespaces.{namespace}.labels" if created else ""
    return f"istiod does not see the namespace {namespace}: discoverySelectors of its MeshConfig leave it out; give it such labels{place}"


def _network_problems(facts: MeshFacts, adoption: Adoption) -> Iterator[str]:
    network = adoption.network
    if facts.network and facts.network != network:
        yield (
            f"the network of the mesh's pods is called {facts.network!r}: give it this name in the "
            f"stack's networks (the stack calls it {network!r})"
        )
    if not facts.network and adoption.other_networks:
        others = ", ".join(adoption.other_networks)
        yield (
            "the network of the mesh's pods has no name, so pods call machines of other networks "
            f"directly: set global.network of istiod, or leave out {others}"
        )


def labels_of(namespaces: Sequence[Manifest]) -> dict[str, Mapping[str, str]]:
    """Return the labels of namespaces, objects of Kubernetes, by name."""
    return {each["metadata"]["name"]: each["metadata"].get("labels") or {} for each in namespaces}


def published_addresses(services: Sequence[Manifest], gateways: Sequence[Manifest]) -> dict[str, str]:
    """Return the addresses at which istiod has other networks call pods; by each, what it is of.

    services, gateways: those with the label of the pods' network: Services, and Gateways of the
    Gateway API. What nodes have for addresses is left out.

    Source: istio/istio, pkg/config/kube/conversion.go and
    pilot/pkg/serviceregistry/kube/controller/network.go.
    """
    addresses: dict[str, str] = {}
    for service in services:
        spec, balancer = service["spec"], (service.get("status") or {}).get("loadBalancer") or {}
        ingress = balancer.get("ingress") or [] if spec.get("type") == "LoadBalancer" else []
        balanced = [each.get("ip") or each.get("hostname") for each in ingress]
        for address in filter(None, [*balanced, *(spec.get("externalIPs") or [])]):
            addresses.setdefault(address, f"the Service {_place(service)}")
    for gateway in gateways:
        stated = [each.get("value") for each in gateway["spec"].get("addresses") or []]
        for address in filter(None, stated):  # one without a value is the implementation's to choose
            addresses.setdefault(address, f"the Gateway {_place(gateway)}")
    return addresses


def _place(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"


def gateway_problems(adoption: Adoption, published: Mapping[str, str]) -> Iterator[str]:
    """Yield why machines of other networks would not reach pods, though they reach istiod.

    published: from `published_addresses`. Names are not compared: what they resolve to differs from
    place to place.
    """
    address = adoption.gateway_address
    are_addresses = all(map(is_address, [address, *published]))
    if not published or not are_addresses or address in published:
        return
    others, given = ", ".join(adoption.other_networks), ", ".join(f"{each} ({of})" for each, of in sorted(published.items()))
    yield (
        f"istiod gives machines of {others} another address for calls to pods: {given}; "
        f"cluster.gateway.address is {address}. Give an address of the gateway's Service. With NAT before it, "
        f"remove the label {NETWORK_LABEL} from the Service, and publish {address} by a Gateway of the class "
        "istio-remote. Or have the program install a gateway (behindNat)"
    )
