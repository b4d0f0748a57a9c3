"""What is wrong with workloads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import permutations

from .problems import Problem, suggestion
from .stack import Settings
from .workload import WorkloadSettings

# Ports of the agent and of Envoy on every machine (istio.io: Application Requirements, "Ports used by Istio").
RESERVED_PORTS = frozenset({15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090})

# How the name of a port may begin, by which Istio knows its protocol (istio.io: Protocol Selection).
PROTOCOLS = frozenset({"grpc", "grpc-web", "http", "http2", "https", "mongo", "mysql", "redis", "tcp", "tls"})

_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def check(settings: Settings) -> Iterator[Problem]:
    """What is wrong with each workload, and between them."""
    for name, workload in settings.workloads.items():
        yield from _check_workload(f"workloads.{name}", workload)
    for (one, first), (other, second) in permutations(settings.workloads.items(), 2):
        if first.namespace != second.namespace:
            continue
        for service in sorted(first.services.keys() & second.services.keys()) if one < other else ():
            path = f"workloads.{other}.services.{service}"
            yield Problem(path, f"workload {one} has a Service of this name in the namespace {first.namespace}: choose another")
        if first.labels and first.labels.items() <= second.labels.items() and (first.labels != second.labels or one < other):
            yield Problem(
                f"workloads.{one}.labels", f"select the workload {other} too, in the same namespace: add one that tells them apart"
            )


def _check_workload(path: str, workload: WorkloadSettings) -> Iterator[Problem]:
    if not workload.labels:
        yield Problem(f"{path}.labels", "a Service selects its workload by labels: give at least one, such as app")
    if not _NAME.fullmatch(workload.namespace) or workload.namespace in ("istio-system", "kube-system"):
        yield Problem(
            f"{path}.namespace", f"expected a namespace for applications, in lower-case letters, digits and '-'; got {workload.namespace!r}"
        )
    yield from _check_labels(f"{path}.labels", workload.labels)
    if workload.service_account == "":
        # istio/istio#39603: pods would call machines without a service account in plaintext.
        yield Problem(
            f"{path}.serviceAccount", "must not be empty: the machines would have no identity (leave the key out for the workload's name)"
        )
    elif workload.service_account is not None and not _NAME.fullmatch(workload.service_account):
        yield Problem(f"{path}.serviceAccount", f"{workload.service_account!r} is no name: use lower-case letters, digits and '-'")
    for name, port in workload.ports.items():
        if not _NAME.fullmatch(name) or not any(name == word or name.startswith(f"{word}-") for word in PROTOCOLS):
            yield Problem(f"{path}.ports.{name}", f"begins with no protocol that Istio knows: {', '.join(sorted(PROTOCOLS))}")
        if not 0 < port < 65536:
            yield Problem(f"{path}.ports.{name}", f"{port} is no port: expected 1 to 65535")
        elif port in RESERVED_PORTS:
            yield Problem(f"{path}.ports.{name}", f"port {port} is Istio's own on every machine: choose another")
        elif port == 22:
            yield Problem(f"{path}.ports.{name}", "port 22 is never captured by the proxy (SSH): choose another")
    if (workload.probe.http is None) == (workload.probe.tcp is None):
        yield Problem(f"{path}.probe", "give exactly one of http and tcp")
    elif workload.probe.port not in workload.ports.values():
        yield Problem(
            f"{path}.probe", f"port {workload.probe.port} is none of the workload's ports ({', '.join(map(str, workload.ports.values()))})"
        )
    probe = workload.probe
    for key, seconds in (("period", probe.period), ("timeout", probe.timeout), ("failureThreshold", probe.failure_threshold)):
        if seconds < 1:
            yield Problem(f"{path}.probe.{key}", f"must be at least 1; got {seconds}")
    if probe.http and not probe.http.path.startswith("/"):
        yield Problem(f"{path}.probe.http.path", f"must begin with '/'; got {probe.http.path!r}")
    for service_name, service in workload.services.items():
        if not _NAME.fullmatch(service_name):
            yield Problem(f"{path}.services.{service_name}", "is no name of a Service: use lower-case letters, digits and '-'")
        if not service.ports:
            yield Problem(f"{path}.services.{service_name}.ports", "must not be empty: name a port of the workload")
        numbers = list(service.ports.values())
        for port_name, number in service.ports.items():
            if not 0 < number < 65536:
                yield Problem(f"{path}.services.{service_name}.ports.{port_name}", f"{number} is no port: expected 1 to 65535")
            elif numbers.count(number) > 1:
                yield Problem(f"{path}.services.{service_name}.ports.{port_name}", f"two ports of the Service are {number}")
        for key, value in (service.selector or {}).items():
            if workload.labels.get(key) != value:
                has = f"is {workload.labels[key]!r}" if key in workload.labels else "is none of its labels"
                yield Problem(f"{path}.services.{service_name}.selector.{key}", f"selects nothing: the workload's {key!r} {has}")
        for port_name in service.ports:
            if port_name not in workload.ports:
                where = f"{path}.services.{service_name}.ports.{port_name}"
                yield Problem(where, "is no port of the workload" + suggestion(port_name, workload.ports))
    if workload.pods:
        if workload.pods.replicas < 0:
            yield Problem(f"{path}.pods.replicas", "must not be negative")
        yield from _check_labels(f"{path}.pods.labels", workload.pods.labels)
        for service_name, service in workload.services.items():
            for key, value in service.selected(workload.labels).items():
                if workload.pods.labels.get(key, value) != value:
                    where = f"{path}.pods.labels.{key}"
                    yield Problem(where, f"takes the pods out of the Service {service_name}, which selects {key}: {value}")


def _check_labels(path: str, labels: Mapping[str, str]) -> Iterator[Problem]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            yield Problem(f"{path}.{key}", "is no label key: up to 63 letters, digits, '-', '_' and '.', perhaps after a domain and '/'")
        if len(value) > 63 or not _LABEL.fullmatch(value):
            yield Problem(f"{path}.{key}", f"{value!r} is no label value: up to 63 letters, digits, '-', '_' and '.'")
