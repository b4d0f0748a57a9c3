"""How istiod copes with many machines: simulated ones, at the istiod and the gateway of a lab."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import grpc

from components import config
from components.names import (
    DEFAULT_CLUSTER_ID,
    DEFAULT_DOMAIN,
    DEFAULT_ROOT_CONFIG_MAP,
    ISTIO_NAMESPACE,
    TOKEN_AUDIENCE,
    XDS_PORT,
    spiffe_id,
)
from tools.lab import up
from tools.steps import Display, Step, StepError, Steps, display

from .figures import Figure
from .lab_stack import CHECKOUT, LabStack
from .simulated_proxy import Certificate, ControlPlane, SimulatedProxy, certificates

NAMESPACE = GROUP = ACCOUNT = "machines"
"""Of the simulated machines, which no Service of the lab selects."""
NETWORK = "pods"
"""The lab's network."""
FIRST_ADDRESS = IPv4Address("10.99.0.1")
LIMIT_S = 300
"""Seconds for everything that istiod has to do for all machines."""

_OBJECTS = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {ACCOUNT}, namespace: {NAMESPACE}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: {GROUP}, namespace: {NAMESPACE}}}
spec:
  metadata: {{labels: {{app: {GROUP}}}}}
  template: {{serviceAccount: {ACCOUNT}, network: {NETWORK}}}
  probe: {{httpGet: {{port: 8080}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {GROUP}, namespace: {NAMESPACE}}}
spec:
  selector: {{app: {GROUP}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
"""


def run(sizes: Sequence[int], as_json: bool) -> list[Figure]:
    """Measure each number of machines, in a stack that is created for it and removed again.

    Raises StepFailedError.
    """
    stack = LabStack(f"fleet-{CHECKOUT}")
    count = up.PREPARATIONS + 1 + len(sizes)
    steps = Steps("bench", count, Display(sys.stderr) if as_json else display(), retry_command="./scripts/bench fleet")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    with stack.temporary(steps):
        stack.configure(lambda config: None)
        with steps.step("lab up"):
            stack.lab("up")
        stack.prepare()
        return [figure for size in sizes for figure in _measured(steps, stack, size)]


def _measured(steps: Steps, stack: LabStack, size: int) -> list[Figure]:
    with steps.step(f"{size} machines") as step:
        try:
            return asyncio.run(_Measurement(stack, size, step).figures())
        except grpc.aio.AioRpcError as error:
            problem = f"istiod refused a simulated machine: {error.code().name}: {error.details()}"
            raise StepError(problem, show_log=False) from None


@dataclass
class _Entries:
    """The entries of the namespace, as a watch prints them: by name, and the names that are Healthy."""

    present: set[str] = field(default_factory=set)
    healthy: set[str] = field(default_factory=set)

    @contextmanager
    def following(self, stack: LabStack) -> Iterator[_Entries]:
        text = '{.type} {.object.metadata.name} {.object.status.conditions[?(@.type=="Healthy")].status}{"\\n"}'
        words = ("--namespace", NAMESPACE, "--output-watch-events", "--output", f"jsonpath={text}")
        with stack.watching(self.read, *words):
            yield self

    def read(self, lines: Iterable[str]) -> None:
        """Take in what kubectl prints: event, name and status, a line for each change."""
        for line in lines:
            event, name, *status = line.split()
            if event == "DELETED":
                self.present.discard(name)
                self.healthy.discard(name)
                continue
            self.present.add(name)
            if status == ["True"]:
                self.healthy.add(name)


@dataclass(frozen=True)
class _Usage:
    """What istiod's process used so far.

    cpu_s: seconds of CPU. memory_mb: MB of resident memory.
    """

    cpu_s: float
    memory_mb: float


@dataclass
class _Measurement:
    stack: LabStack
    size: int
    step: Step
    proxies: Sequence[SimulatedProxy] = ()

    async def figures(self) -> list[Figure]:
        self._prepare()
        control_plane = self._control_plane()
        self.proxies = proxies = [self._proxy(number) for number in range(self.size)]
        self.step.note("certificates")
        begin = time.monotonic()
        signed = await certificates(control_plane, self.size)
        certificates_s = time.monotonic() - begin
        with _Entries().following(self.stack) as entries:
            await asyncio.sleep(1)  # kubectl's own start is not measured
            before = self._usage()
            async with _connected(proxies, control_plane, signed) as begin:
                self.step.note("registration")
                registered_s = await self._wait("registered", lambda: len(entries.present) == self.size, begin)
                healthy_s = await self._wait("Healthy", lambda: len(entries.healthy) == self.size, begin)
                after, streams_ended = self._usage(), sum(each.ended for each in proxies)
                self.step.note("a new Service")
                pushed_s = await self._push(proxies)
                self.step.note("the end of all connections")
            gone_s = await self._wait("deleted", lambda: not entries.present, time.monotonic())
        names = {
            "certificates": certificates_s,
            "first connection → last entry registered": registered_s,
            "first connection → last entry Healthy": healthy_s,
            "a new Service → its cluster in the last proxy": pushed_s,
            "end of all connections → last entry deleted": gone_s,
        }
        figures = [Figure(what=f"{self.size} machines: {what}", value=value) for what, value in names.items()]
        cpu = Figure(what=f"{self.size} machines: istiod's CPU until all were Healthy", value=after.cpu_s - before.cpu_s)
        memory = Figure(what=f"{self.size} machines: istiod's memory then", value=round(after.memory_mb), unit="MB")
        ended = Figure(what=f"{self.size} machines: streams that ended until then", value=streams_ended, unit="")
        return [*figures, cpu, memory, ended]

    def _prepare(self) -> None:
        self.stack.run("kubectl", "apply", "--filename", "-", stdin=_OBJECTS)

    def _control_plane(self) -> ControlPlane:
        kubectl = self.stack.run
        root = kubectl("kubectl", "--namespace", ISTIO_NAMESPACE, "get", "configmap", DEFAULT_ROOT_CONFIG_MAP, "--output", "json")
        token = kubectl("kubectl", "--namespace", NAMESPACE, "create", "token", ACCOUNT, "--audience", TOKEN_AUDIENCE, "--duration", "1h")
        return ControlPlane(
            gateway=f"{self.stack.outputs()['gateway']}:{XDS_PORT}",
            name=f"istiod.{ISTIO_NAMESPACE}.svc",
            root_certificate=json.loads(root)["data"]["root-cert.pem"],
            token=token.strip(),
            identity=spiffe_id(DEFAULT_DOMAIN, NAMESPACE, ACCOUNT),
        )

    def _proxy(self, number: int) -> SimulatedProxy:
        address = str(FIRST_ADDRESS + number)
        metadata = {
            "NAME": f"machine-{number}",
            "NAMESPACE": NAMESPACE,
            "SERVICE_ACCOUNT": ACCOUNT,
            "WORKLOAD_NAME": GROUP,
            "AUTO_REGISTER_GROUP": GROUP,
            "NETWORK": NETWORK,
            "CLUSTER_ID": DEFAULT_CLUSTER_ID,
            "MESH_ID": DEFAULT_DOMAIN,
            "ISTIO_VERSION": config.load_file(self.stack.stack).mesh.version,
            "DNS_CAPTURE": "true",
            "INSTANCE_IPS": address,
            "LABELS": {"app": GROUP},
            "PROXY_CONFIG": {"readinessProbe": {"httpGet": {"port": 8080}}},
        }
        return SimulatedProxy(f"machine-{number}", address, NAMESPACE, DEFAULT_DOMAIN, metadata)

    async def _push(self, proxies: Sequence[SimulatedProxy]) -> float:
        """Return the seconds from the creation of a Service to its cluster in the last proxy."""
        name = f"new-{self.size}"
        cluster = f"outbound|80||{name}.{NAMESPACE}.svc.{DEFAULT_DOMAIN}"
        words = ["--namespace", NAMESPACE, "create", "service", "clusterip", name, "--tcp", "80:8080"]
        begin = time.monotonic()
        await asyncio.to_thread(self.stack.run, "kubectl", *words)
        await self._wait("sent a new Service", lambda: all(cluster in each.pushed for each in proxies), begin)
        await asyncio.to_thread(self.stack.run, "kubectl", "--namespace", NAMESPACE, "delete", "service", name)
        return max(each.pushed[cluster] for each in proxies) - begin

    async def _wait(self, what: str, holds: Callable[[], bool], begin: float) -> float:
        """Return the seconds since `begin` at which `holds` returned true.

        Raises StepError when that takes too long.
        """
        while not holds():
            if time.monotonic() - begin > LIMIT_S:
                last = next((f": a stream ended by {each.problem}" for each in self.proxies if each.problem), "")
                raise StepError(f"{self.size} machines were not {what} within {LIMIT_S} s{last}", show_log=False)
            await asyncio.sleep(0.02)
        return time.monotonic() - begin

    def _usage(self) -> _Usage:
        name = self.stack.run(
            "kubectl", "--namespace", ISTIO_NAMESPACE, "get", "pods", "--selector", "app=istiod", "--output", "name"
        ).split()[0].removeprefix("pod/")  # fmt: skip
        text = self.stack.run("kubectl", "get", "--raw", f"/api/v1/namespaces/{ISTIO_NAMESPACE}/pods/{name}:15014/proxy/metrics")
        values = {key: float(value) for key, value in re.findall(r"^(process_\w+) (\S+)$", text, re.MULTILINE)}
        return _Usage(values["process_cpu_seconds_total"], values["process_resident_memory_bytes"] / 1e6)


@asynccontextmanager
async def _connected(proxies: Sequence[SimulatedProxy], control_plane: ControlPlane, signed: Sequence[Certificate]) -> AsyncIterator[float]:
    """Keep all proxies connected during the block. Yields when the first began to connect."""
    begin = time.monotonic()
    tasks = [asyncio.create_task(proxy.run(control_plane, each)) for proxy, each in zip(proxies, signed, strict=True)]
    try:
        yield begin
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
