"""ServiceAccounts and Services of others that a stack uses: read, and never changed.

A Service of others must lead to machines as it is. So its selector and its ports are compared with
the workload before anything is created.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .local import scripting
from .local.cluster_access import Kubectl
from .manifest import Manifest
from .ownership import list_objects, name_of

SERVICE, SERVICE_ACCOUNT = "Service", "ServiceAccount"
_LISTED = {SERVICE: "services", SERVICE_ACCOUNT: "serviceaccounts"}


@dataclass(frozen=True)
class ExistingObject:
    """An object of others that a stack uses.

    workload: the workload that uses it.
    kind: `Service` or `ServiceAccount`. namespace, name: its place.
    labels: of the workload's WorkloadEntries. pod_labels: of its pods.
    ports: the workload's ports by name.
    declared_by: the resource that reads it.
    """

    workload: str
    kind: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    pod_labels: Mapping[str, str]
    ports: Mapping[str, int]
    declared_by: str = ""

    @property
    def setting(self) -> str:
        """The path of the setting that names it."""
        of_workload = f"workloads.{self.workload}"
        return f"{of_workload}.serviceAccount" if self.kind == SERVICE_ACCOUNT else f"{of_workload}.services.{self.name}"


def refuse_unfit(program: Kubectl, expected: Iterable[ExistingObject]) -> None:
    """Look whether the objects of others that a stack uses are there, and lead to machines.

    One request lists the objects of a namespace. Raises scripting.Failed, which names all problems
    with their fixes, and where the cluster refuses to list the objects.
    """
    by_namespace: dict[str, list[ExistingObject]] = {}
    for each in expected:
        by_namespace.setdefault(each.namespace, []).append(each)
    problems: list[str] = []
    for namespace, used in sorted(by_namespace.items()):
        items = list_objects(program, sorted({_LISTED[each.kind] for each in used}), namespace)
        there = {(name_of(item).kind, name_of(item).name): item for item in items}
        for each in used:
            problems += [f"{each.setting}: {text}" for text in _problems(each, there)]
    if problems:
        raise scripting.Failed(
            "objects that the stack file declares as existing cannot be used. Nothing was changed:\n  " + "\n  ".join(problems)
        )


def _problems(expected: ExistingObject, there: Mapping[tuple[str, str], Manifest]) -> Iterator[str]:
    item = there.get((expected.kind, expected.name))
    if item is None:
        names = sorted(name for kind, name in there if kind == expected.kind)
        has = f" (it has {', '.join(names)})" if names else ""
        setting = "`existing`" if expected.kind == SERVICE else "`create: false`"
        yield (
            f"the namespace {expected.namespace} has no {expected.kind} {expected.name}{has}: correct the name, create it first, "
            f"or leave out {setting} for this program to create it"
        )
    elif expected.kind == SERVICE:
        yield from _service_problems(expected, item["spec"])


def _service_problems(expected: ExistingObject, spec: Manifest) -> Iterator[str]:
    place = f"the Service {expected.namespace}/{expected.name}"
    if spec.get("type") == "ExternalName":
        yield f"{place} is of the type ExternalName, which has no endpoints: name a Service that selects pods"
        return
    if spec.get("clusterIP") == "None":
        yield f"{place} is headless, so the cluster's DNS would never give clients a machine: name a Service with a cluster IP"
    if spec.get("internalTrafficPolicy") == "Local":
        yield (
            f"{place} has internalTrafficPolicy: Local, so each proxy calls endpoints of its own node alone, "
            "and machines are on none: name a Service without it"
        )
    selector = spec.get("selector") or {}
    if not selector:
        yield f"{place} has no selector, so machines cannot be its endpoints: give it one of the workload's labels"
    for labels, subject, setting in (
        (expected.labels, "machines", f"workloads.{expected.workload}.labels"),
        (expected.pod_labels, "this program's pods", f"workloads.{expected.workload}.pods.labels"),
    ):
        missing = {key: value for key, value in selector.items() if labels.get(key) != value}
        if missing:
            text = ", ".join(f"{key}: {value}" for key, value in sorted(missing.items()))
            yield f"{place} selects {text}, so {subject} would never be its endpoints: give {setting} these labels"
            break
    for port in _tcp_ports(spec):
        target = endpoint_port(port, expected.ports)
        if target not in expected.ports.values():
            to = port.get("targetPort") or port["port"]
            name = f" under the name {to}" if isinstance(to, str) else ""
            listed = ", ".join(f"{name}: {number}" for name, number in expected.ports.items())
            yield (
                f"{place} leads its port {port['port']} to {to}, which is none of the workload's ports ({listed}): "
                f"add the port that machines listen on{name} to workloads.{expected.workload}.ports"
            )
    if not list(_tcp_ports(spec)):
        yield f"{place} has no TCP port, and machines serve TCP alone: name another Service"


def _tcp_ports(spec: Manifest) -> Iterator[Manifest]:
    return (port for port in spec.get("ports") or () if port.get("protocol", "TCP") == "TCP")


def endpoint_port(port: Manifest, workload_ports: Mapping[str, int]) -> int | None:
    """Return the port of a machine that a port of a Service leads to; None for none.

    port: the Service's port, as its manifest has it. workload_ports: the WorkloadEntries' by name.
    Source: istio/istio, pilot/pkg/serviceregistry/kube/controller,
    serviceInstanceFromWorkloadInstance.
    """
    target: str | int = port.get("targetPort") or port["port"]
    if isinstance(target, str):
        return workload_ports.get(target)
    return workload_ports.get(port.get("name") or "", int(target))


def pod_port(spec: Manifest, port: int) -> int | str:
    """Return what a port of a Service leads to on pods: a number, or the name of one of their ports.

    spec: the Service's. port: its port. It may be another port than that of machines (`endpoint_port`).
    """
    target: int | str
    (target,) = (each.get("targetPort") or port for each in _tcp_ports(spec) if each["port"] == port)
    return target


def ports_by_name(spec: Manifest, workload_ports: Mapping[str, int]) -> dict[str, Manifest]:
    """Return the ports of a Service, as its manifest has them, by the name of the workload's port that each leads to."""
    names = {number: name for name, number in reversed([*workload_ports.items()])}
    ports: dict[str, Manifest] = {}
    for port in _tcp_ports(spec):
        target = endpoint_port(port, workload_ports)
        if target in names:
            ports.setdefault(names[target], port)
    return ports
