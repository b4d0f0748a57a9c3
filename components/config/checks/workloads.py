"""Rules for workloads, and between workloads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations

from ...grammar import KUBERNETES_NAME, is_domain, is_service_name
from ...names import (
    INBOUND_PORT,
    INJECTION_LABEL,
    MACHINE_PORTS,
    MANAGED_BY_LABEL,
    METRICS_PORT,
    OUTBOUND_PORT,
    PROXY_USER,
    SSH_PORT,
    STATUS_PORT,
)
from ..addresses import is_port
from ..existing import ExistingCluster
from ..problems import Problem, suggestion
from ..stack import NamespaceSettings, Settings
from ..workload import (
    Pods,
    Service,
    ServiceAccount,
    WorkloadSettings,
)
from .names import (
    ANNOTATIONS_OF_NAMESPACES,
    ANNOTATIONS_OF_SERVICES,
    LABELS_OF_WORKLOADS,
    check_annotations,
    check_labels,
    check_locality,
    check_names,
)
from .probes import check_probe, check_verify
from .texts import check_image

# First words of a port's name, by which Istio selects its protocol (istio.io: Protocol Selection).
PROTOCOLS = frozenset(
    {"grpc", "grpc-web", "http", "http2", "https", "mongo", "mysql", "redis", "tcp", "tls"}
)
# Those, and Kubernetes' own (istio/istio: pkg/config/kube/conversion.go, ConvertProtocol).
APP_PROTOCOLS = PROTOCOLS | {"kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"}
# Labels of namespaces that the program sets, or by which a mesh injects sidecars, without those of
# a reserved domain.
_OWN_LABELS = {INJECTION_LABEL, MANAGED_BY_LABEL}
# k8s.io/pod-security-admission: api/constants.go, which rejects a namespace with another level.
_POD_SECURITY_LABELS = {
    f"pod-security.kubernetes.io/{mode}" for mode in ("enforce", "audit", "warn")
}
_POD_SECURITY_LEVELS = ("privileged", "baseline", "restricted")
# istiod leaves out a listener for HTTP on a port of the proxy, so calls would go past the mesh
# (istio/istio: pilot/pkg/model/context.go, conflictWithReservedListener).
_NO_HTTP_PORTS = {OUTBOUND_PORT, INBOUND_PORT, STATUS_PORT, METRICS_PORT}
# k8s.io/apimachinery: resource.Quantity, without exponents.
_QUANTITY = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
# k8s.io/kubernetes: pkg/apis/core/validation, ValidateContainerResourceName.
_RESOURCE = re.compile(
    r"cpu|memory|ephemeral-storage|hugepages-[0-9]+(Ki|Mi|Gi)|"
    r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,51}[A-Za-z0-9])?"
)
_MAX_USER = 2**31 - 1


def check(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with each workload, and which workloads contradict each other."""
    yield from check_names("workloads", settings.workloads)
    for workload in settings.workloads.values():
        yield from _check_workload(f"workloads.{workload.name}", workload)
        yield from _check_namespace(f"workloads.{workload.name}.namespace", workload, settings)
        if not _exists(settings, workload.namespace):
            yield from _check_nothing_exists(workload)
    for namespace in settings.namespaces.values():
        yield from _check_stated(settings, namespace)
    for first, second in permutations(settings.workloads.values(), 2):
        if first.namespace == second.namespace:
            yield from _check_pair(first, second)


def _check_stated(settings: Settings, namespace: NamespaceSettings) -> Iterator[Problem]:
    path, created = f"namespaces.{namespace.name}", settings.created_namespaces
    if namespace.name not in created:
        hint = suggestion(namespace.name, created) if created else ": it creates none"
        yield Problem(path, f"is not a namespace that this program creates{hint}")
    yield from check_labels(f"{path}.labels", namespace.labels)
    yield from check_annotations(
        f"{path}.annotations", namespace.annotations, ANNOTATIONS_OF_NAMESPACES
    )
    for key in sorted(_OWN_LABELS & {*namespace.labels}):
        yield Problem(f"{path}.labels.{key}", "follows from the mesh and the stack: leave it out")
    for key in sorted(_POD_SECURITY_LABELS & {*namespace.labels}):
        level = namespace.labels[key]
        if level not in _POD_SECURITY_LEVELS:
            hint = suggestion(level, _POD_SECURITY_LEVELS)
            yield Problem(f"{path}.labels.{key}", f"{level!r} is no level of Pod Security{hint}")


def _exists(settings: Settings, namespace: str) -> bool:
    """Return whether a namespace is there before the program runs."""
    cluster = settings.cluster
    return isinstance(cluster, ExistingCluster) and namespace in cluster.namespaces


def _check_nothing_exists(workload: WorkloadSettings) -> Iterator[Problem]:
    """Yield what a workload uses in a namespace that this program creates, hence finds empty."""
    path = f"workloads.{workload.name}"
    created = f"the program creates the namespace {workload.namespace}, so nothing is in it"
    fix = "if it exists, list it in `namespaces` of a cluster of the platform existing"
    if not workload.service_account.create:
        yield Problem(f"{path}.serviceAccount.create", f"{created} to be used: {fix}")
    for name in workload.existing_services:
        yield Problem(f"{path}.services.{name}.existing", f"{created} to be used: {fix}")


def _check_pair(first: WorkloadSettings, second: WorkloadSettings) -> Iterator[Problem]:
    """Yield what contradicts in two workloads of one namespace; called for both orders."""
    if first.name < second.name:
        for service in sorted(first.services.keys() & second.services.keys()):
            yield Problem(
                f"workloads.{second.name}.services.{service}",
                f"workload {first.name} has a Service of this name in the namespace "
                f"{first.namespace}: choose another",
            )
        if first.service_account_name == second.service_account_name and (
            first.service_account.create or second.service_account.create
        ):
            yield Problem(
                f"workloads.{second.name}.serviceAccount",
                f"workload {first.name} has the service account {first.service_account_name} in "
                f"the namespace {first.namespace}: choose another name, or set `create: false` for "
                "both if the account exists",
            )
    if first.labels and first.labels.items() <= second.labels.items():
        if first.labels == second.labels and first.name > second.name:
            return
        yield Problem(
            f"workloads.{first.name}.labels",
            f"select the workload {second.name} too, in the same namespace: "
            "add a label that distinguishes them",
        )


def _check_namespace(
    path: str, workload: WorkloadSettings, settings: Settings
) -> Iterator[Problem]:
    namespace, others = workload.namespace, {*settings.istio_namespaces, "kube-system"}
    if not KUBERNETES_NAME.fullmatch(namespace) or namespace in others:
        yield Problem(
            path,
            "expected a namespace for applications, in lower-case letters, digits and '-'; "
            f"got {namespace!r}",
        )


def _check_workload(path: str, workload: WorkloadSettings) -> Iterator[Problem]:
    if not workload.labels:
        yield Problem(
            f"{path}.labels",
            "a Service selects its workload by labels: give at least one, such as app",
        )
    yield from check_labels(f"{path}.labels", workload.labels, LABELS_OF_WORKLOADS)
    yield from check_locality(path, workload.locality)
    if workload.confirm_within and not 20 <= workload.confirm_within <= 600:
        yield Problem(
            f"{path}.confirmWithin",
            f"expected 20 to 600 seconds, or 0 for no confirmation; got {workload.confirm_within}",
        )
    yield from _check_service_account(f"{path}.serviceAccount", workload.service_account)
    yield from _check_ports(f"{path}.ports", workload)
    yield from check_probe(f"{path}.probe", workload.probe, workload)
    for name, service in workload.services.items():
        yield from _check_service(f"{path}.services.{name}", service, workload)
    yield from check_verify(f"{path}.verify", workload.verify, workload)
    for index, secret in enumerate(workload.image_pull_secrets):
        if not is_domain(secret):
            yield Problem(
                f"{path}.imagePullSecrets[{index}]",
                f"{secret!r} is not a name of a Secret: use lower-case letters, digits, '-' "
                "and '.'",
            )
    if workload.pods:
        yield from _check_pods(f"{path}.pods", workload.pods)
        yield from check_labels(f"{path}.pods.labels", workload.pods.labels, LABELS_OF_WORKLOADS)
        created = (service for service in workload.services.values() if not service.existing)
        for service in created:
            for key, value in service.selected(workload.labels).items():
                if workload.pods.labels.get(key, value) != value:
                    yield Problem(
                        f"{path}.pods.labels.{key}",
                        f"removes the pods from the Service {service.name}, "
                        f"which selects {key}: {value}",
                    )


def _check_pods(path: str, pods: Pods) -> Iterator[Problem]:
    yield from check_image(f"{path}.image", pods.image)
    if pods.replicas < 0:
        yield Problem(f"{path}.replicas", "must not be negative")
    for key, quantities in (
        ("requests", pods.resources.requests),
        ("limits", pods.resources.limits),
    ):
        for resource, quantity in quantities.items():
            if not _RESOURCE.fullmatch(resource):
                yield Problem(
                    f"{path}.resources.{key}.{resource}",
                    "is not a resource of a container: expected cpu, memory, ephemeral-storage, "
                    "or one such as example.com/device",
                )
            if not _QUANTITY.fullmatch(quantity):
                yield Problem(
                    f"{path}.resources.{key}.{resource}",
                    f"{quantity!r} is not a quantity of Kubernetes: expected one such as 500m or "
                    "128Mi",
                )
    if pods.run_as_user is not None:
        if not 0 <= pods.run_as_user <= _MAX_USER or pods.run_as_user == PROXY_USER:
            yield Problem(
                f"{path}.runAsUser",
                f"{pods.run_as_user} is not a user for an application: expected 0 to {_MAX_USER}, "
                f"and not {PROXY_USER}, whose traffic bypasses the sidecar",
            )
        elif pods.run_as_user == 0 and pods.restricted:
            yield Problem(
                f"{path}.runAsUser",
                "is root, which Pod Security's level restricted refuses: choose another user, or "
                "set restricted to false",
            )


def _check_service_account(path: str, account: ServiceAccount) -> Iterator[Problem]:
    name = account.name
    if name == "default" and account.create:
        yield Problem(
            f"{path}.name",
            "every namespace has a service account `default`, which this program must not own: "
            "choose another name, or set `create: false`",
        )
    elif name == "":
        # istio/istio#39603: pods would call machines without a service account in plaintext.
        yield Problem(
            f"{path}.name",
            "must not be empty: the machines would have no identity "
            "(leave the key out for the workload's name)",
        )
    elif name is not None and not KUBERNETES_NAME.fullmatch(name):
        yield Problem(
            f"{path}.name",
            f"{name!r} is not a valid name: use lower-case letters, digits and '-'",
        )


def _check_ports(path: str, workload: WorkloadSettings) -> Iterator[Problem]:
    created = [service for service in workload.services.values() if not service.existing]
    of_created = {name for service in created for name in service.ports}
    for name, port in workload.ports.items():
        # A Service of others has protocols of its own, and may name any port as its targetPort.
        is_free = bool(workload.existing_services) and name not in of_created
        has_protocol = is_free or any(
            name == word or name.startswith(f"{word}-") for word in PROTOCOLS
        )
        if not KUBERNETES_NAME.fullmatch(name) or not has_protocol:
            protocols = ", ".join(sorted(PROTOCOLS))
            yield Problem(f"{path}.{name}", f"must begin with a protocol of Istio: {protocols}")
        if not is_port(port):
            yield Problem(f"{path}.{name}", f"{port} is not a port: expected 1 to 65535")
        elif port in MACHINE_PORTS:
            yield Problem(
                f"{path}.{name}", f"port {port} is Istio's own on every machine: choose another"
            )
        elif port == SSH_PORT:
            yield Problem(
                f"{path}.{name}", "port 22 is never redirected to the proxy (SSH): choose another"
            )


def _check_service(path: str, service: Service, workload: WorkloadSettings) -> Iterator[Problem]:
    if not is_service_name(service.name):
        yield Problem(
            path,
            "is not a valid name of a Service: use lower-case letters, digits and '-', "
            "a letter first",
        )
    if service.existing:
        for key, is_set in (
            ("ports", service.ports),
            ("selector", service.selector),
            ("annotations", service.annotations),
            ("appProtocols", service.app_protocols),
            ("headless", service.headless),
        ):
            if is_set:
                yield Problem(
                    f"{path}.{key}",
                    "follows from the Service in the cluster, which is not changed: leave it out",
                )
        return
    if not service.ports:
        yield Problem(f"{path}.ports", "must not be empty: name a port of the workload")
    numbers = list(service.ports.values())
    for name, number in service.ports.items():
        if not is_port(number):
            yield Problem(f"{path}.ports.{name}", f"{number} is not a port: expected 1 to 65535")
        elif numbers.count(number) > 1:
            yield Problem(f"{path}.ports.{name}", f"two ports of the Service are {number}")
        elif number in _NO_HTTP_PORTS and service.called_as(name) in ("http", "http2", "grpc"):
            yield Problem(
                f"{path}.ports.{name}",
                f"port {number} is Istio's own in every proxy, which would not call it by HTTP: "
                "choose another",
            )
        if name not in workload.ports:
            hint = suggestion(name, workload.ports)
            yield Problem(f"{path}.ports.{name}", f"is not a port of the workload{hint}")
    yield from check_annotations(
        f"{path}.annotations", service.annotations, ANNOTATIONS_OF_SERVICES
    )
    for name, protocol in service.app_protocols.items():
        if name not in service.ports:
            hint = suggestion(name, service.ports)
            yield Problem(f"{path}.appProtocols.{name}", f"is not a port of the Service{hint}")
        elif protocol not in APP_PROTOCOLS:
            yield Problem(
                f"{path}.appProtocols.{name}",
                f"{protocol!r} is not a protocol of Istio: expected one of "
                f"{', '.join(sorted(APP_PROTOCOLS))}",
            )
    for key, value in (service.selector or {}).items():
        if workload.labels.get(key) != value:
            has = "is none of its labels"
            if key in workload.labels:
                has = f"is {workload.labels[key]!r}"
            yield Problem(
                f"{path}.selector.{key}", f"selects nothing: the workload's {key!r} {has}"
            )
