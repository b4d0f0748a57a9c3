"""The lab under test: what its users do with it (`./scripts/lab`, the stack file, kubectl, SSH), and the hand that breaks things."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from components.config import reader
from components.names import (
    DEFAULT_DOMAIN,
    ENVOY_ADMIN_PORT,
    INBOUND_PORT,
    REGISTRATION,
    SSH_KEY,
    STATUS_PORT,
    part_name,
    service_host,
    stack_resource_name,
)
from components.platforms.docker.names import CLUSTER, KIND, STACK_LABEL, docker_name, kind_node
from components.verification.evidence import Evidence, by_workload
from tests.support.process_watch import ProcessWatch
from tests.support.traffic import LOST, SLOW_PATH, Answer, Request, is_cut, lost_count, lost_details, parse_answers
from tests.support.true_plans import AGENT_START, is_connected
from tests.support.waiting import HANG_S, wait_until
from tools import ROOT, steps
from tools.lab import engine, locks, stacks
from tools.lab.offline import images, packages, programs
from tools.lab.stacks import Config

CHECKOUT_ID = hashlib.sha256(str(ROOT).encode()).hexdigest()[:4]
"""Part of the stacks' names: the labs of other checkouts, and the stack `lab`, can be up meanwhile."""

COLD_START_S = 75 * 60
"""Seconds in which everything is built and up where no cache helps."""

SERVICE = service_host("product", "shop", DEFAULT_DOMAIN)
NODE = kind_node(CLUSTER)

# Envoy closes idle connections to its application before the echo server does, after five seconds: a request that meets such an end is lost.
IDLE_TIMEOUT = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec: {inboundConnectionPool: {http: {idleTimeout: 3s}}}
"""

Completed = subprocess.CompletedProcess[str]
Change = Callable[[Config], None]


def unchanged(config: Config) -> None:
    """Leave the stack as its file in `stacks/` declares it."""


def _add_version_labels(config: Config) -> None:
    """Give pods and machines different values of the label `version`, by which policies and subsets select them."""
    product = config["workloads"]["product"]
    product["labels"]["version"] = "machines"
    product["pods"]["labels"] = {"version": "pods"}


TOKEN_FILE = "/var/lib/istio-vm-mesh/var/run/secrets/tokens/istio-token"


@dataclass
class Lab:
    """One lab in a copy of the checkout.

    root: the copy.
    stack: the name of the stack under test.
    first_output: what the last `lab up` from nothing printed.
    watch, logs: what was seen on command lines and written to logs during every `lab up`.
    damaged: set after a failed test, so that the next scenario does not rely on what the test left.
    useless: set by a test after which `lab up` cannot mend the lab.
    """

    root: Path
    stack: str = f"test-{CHECKOUT_ID}"
    stack_file: ClassVar[str] = "lab"
    """The file in `stacks/` that the stack starts from."""
    machines: ClassVar[frozenset[str]] = frozenset({"product-1"})
    """The machines behind the Service."""
    tested_machine: ClassVar[str] = "product-1"
    """The machine that the tests of every lab use."""
    cidrs: list[str] = field(default_factory=list)
    watch: ProcessWatch = field(default_factory=ProcessWatch, repr=False)
    first_output: str = field(default="", repr=False)
    logs: set[str] = field(default_factory=set, repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    damaged: bool = False
    useless: bool = False
    _resources: dict[str, dict[str, Any]] | None = field(default=None, repr=False)  # pytest shows arguments, and these hold secrets
    _applied: str = field(default="", repr=False)
    """The stack file of the last `lab up` that succeeded, "" where it is not known what is up."""
    _exists: bool = False
    _updates: int = 0
    _prepared: bool = False
    _addresses: dict[str, str] = field(default_factory=dict)
    """Machines by their addresses, those that left too."""

    # The state that a scenario starts from

    def ensure(self, change: Change = unchanged) -> None:
        """Bring the lab to a stack: that of `stack_file` with `change` applied.

        Nothing runs where the last successful `lab up` was for the same stack and no test has failed since. A lab that `lab up` cannot
        bring there is taken down and brought up from nothing.
        """
        self.configure(change)
        if self._applied == self._declared() and self._intact:
            return
        if self._exists and not self.useless:
            try:
                self.up()
                return
            except AssertionError as error:
                print(f"the lab is made anew, because `lab up` failed: {error}")
        self._make()

    def ensure_from_nothing(self, change: Change = unchanged) -> None:
        """The same, and nothing but that one `lab up` from nothing has happened to the lab. Its output is `first_output`."""
        self.configure(change)
        if self._updates != 1 or self._applied != self._declared() or not self._intact:
            self._make()

    def ensure_any(self) -> None:
        """Keep the lab as it is if it is up, whatever its stack; else bring it up."""
        if not self._applied or not self._intact:
            self.ensure()

    @property
    def _intact(self) -> bool:
        return not (self.damaged or self.useless)

    def _make(self) -> None:
        """Take down what a killed run or a failed test left, and bring the lab up from nothing."""
        self.down()
        self.first_output = self.up(timeout=COLD_START_S)

    def _declared(self) -> str:
        return self.stack_path.read_text()

    # What users do

    def lab(self, command: str, check: bool = True, timeout: float = 300) -> Completed:
        """Run `./scripts/lab <command> --stack <stack>`. Its output is one text, as on a terminal."""
        return _run(
            ["./scripts/lab", command, "--stack", self.stack],
            cwd=self.root, check=check, timeout=timeout, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def up(self, check: bool = True, timeout: float = 300) -> str:
        """Run `lab up`, watched. Returns what it printed. Without `check`, it must fail."""
        self.invalidate_state()
        self._applied, self._exists = "", True
        self._updates += 1
        with self.watch:
            done = self.lab("up", check, timeout)
        self.logs |= {file.read_text() for file in (self.root / ".lab" / "logs").iterdir()}
        assert check or done.returncode == 1, f"`up` did not fail:\n{done.stdout}"
        if check:
            self.mark_up()
        elif not self._prepared:
            self.load_environment()
        return done.stdout

    def mark_up(self) -> None:
        """Record that the declared stack is up."""
        self.invalidate_state()
        self._applied, self._exists, self.damaged = self._declared(), True, False
        if not self._prepared:
            self.load_environment()
            self._prepared = True
            self.run("kubectl", "apply", "--filename", "-", stdin=IDLE_TIMEOUT)

    def down(self) -> Completed:
        """Run `lab down`."""
        self.invalidate_state()
        self._applied, self._exists, self._updates, self._prepared = "", False, 0, False
        self.damaged = self.useless = False
        return self.lab("down")

    def tear_down(self) -> None:
        """`lab down`, after which nothing of this lab runs, and with the machine's last lab gone nothing that all labs share."""
        self.down()
        assert not processes_with(str(self.root)), "processes of the lab are left"
        with locks.shared_lock():
            container_engine = engine.find()
            if not container_engine or container_engine.docker("network", "ls", "--quiet", "--filter", f"label={STACK_LABEL}"):
                return  # others are up
        self.lab("down")
        names = container_engine.attempt("ps", "--all", "--format", "{{.Names}}").stdout.decode().split()
        assert not [name for name in names if name == packages.CONTAINER or name.startswith(self.container(""))]

        def is_used() -> bool:
            """Whether it has other containers, for which it stays."""
            return bool(container_engine.attempt("ps", "--quiet").stdout)

        # Another lab's `down` may stop it.
        wait_until(lambda: not container_engine.host or not engine.RUN.exists() or is_used(), description="the engine has stopped")

    def verify(self) -> str:
        """Run `./scripts/status --verify`. Returns what it printed."""
        return self.run("./scripts/status", "--stack", self.stack, "--verify", check=False, timeout=300).stdout

    def pulumi(self, *arguments: str, check: bool = True) -> str:
        """Call the CLI by hand, as the README shows it."""
        return self.run("pulumi", *arguments, "--stack", self.stack, "--non-interactive", check=check).stdout

    def plan(self, stack: str = "") -> str:
        """Run `./scripts/plan` for the stack, or another one of the lab, and return its records as JSON."""
        words = ("--stack", stack or self.stack, "--level", "state", "--json")
        done = self.run("./scripts/plan", *words, check=False, timeout=300)
        assert done.returncode in (0, 2, 3), done.stdout + done.stderr
        return done.stdout

    def run(self, *command: str, check: bool = True, stdin: str = "", timeout: float = HANG_S) -> Completed:
        """Run a command in the environment that `./scripts/lab env` prints."""
        return _run(list(command), cwd=self.root, env=self.environment, check=check, input=stdin, timeout=timeout)

    def istioctl(self, *arguments: str) -> str:
        """Call istioctl, which `lab up` does not get."""
        program = self.run("./scripts/lab", "tools", "istioctl", timeout=600).stdout.strip()
        return self.run(program, *arguments).stdout

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return self.run("kubectl", "--namespace", "shop", *arguments, check=check).stdout

    def apply(self, manifests: str) -> None:
        """Apply manifests in the namespace of the application."""
        self.run("kubectl", "--namespace", "shop", "apply", "--filename", "-", stdin=manifests)

    def wait_until_rolled_out(self, what: str, namespace: str = "shop") -> None:
        """Wait until all pods of a Deployment, a StatefulSet or a DaemonSet are of its latest revision, and ready."""
        self.run("kubectl", "--namespace", namespace, "rollout", "status", what)

    def get(self, *what: str) -> Any:
        """Read an object of the cluster, or a list of them; None where there is no such one."""
        text = self.kubectl("get", *what, "--ignore-not-found", "--output", "json")
        return json.loads(text) if text else None

    def ssh(self, machine: str, command: str, check: bool = True) -> str:
        """Run a command on a machine, with the program's key and its pinned host key."""
        options, host = self.ssh_options(machine)
        return self.run("ssh", *options, host, command, check=check).stdout

    def ssh_options(self, machine: str) -> tuple[list[str], str]:
        """Return what `ssh` and `scp` need for that: their options, and the user at the address."""
        return stacks.ssh_options(self.resources(), machine, self.private_directory, f"{self.stack}-")

    @property
    def stack_path(self) -> Path:
        return reader.file_of(self.stack, self.root / "stacks")

    def configure(self, change: Change = unchanged) -> None:
        """Write the stack file: that of `stack_file` with free CIDRs and version labels, and `change` applied to its configuration (keys without the project)."""

        def complete(config: Config) -> None:
            self.cidrs = self.cidrs or stacks.free_cidrs(len(config["networks"]))
            stacks.set_cidrs(config, self.cidrs)
            _add_version_labels(config)
            change(config)

        stacks.write_stack_file(self.root / "stacks", self.stack_file, self.stack, complete)

    # What the state says

    def state(self, secrets: bool = True) -> str:
        return self.pulumi("stack", "export", *(["--show-secrets"] if secrets else []))

    def resources(self) -> dict[str, dict[str, Any]]:
        """The state's resources by name, with their secrets, as the last `up` left them."""
        if self._resources is None:
            self._resources = stacks.resources_of(self.state())
        return self._resources

    def invalidate_state(self) -> None:
        """Read the state again before its next use, because something has changed it."""
        self._resources = None

    def resource(self, name: str) -> dict[str, Any]:
        return self.resources()[name]

    def outputs(self) -> dict[str, Any]:
        return self.resource(stack_resource_name(self.stack))["outputs"]

    def evidence(self, workload: str) -> Evidence:
        """What the last verification showed of a workload."""
        return by_workload(self.outputs()["verification"])[workload]

    def entry_name(self, machine: str) -> str:
        """The name of a machine's WorkloadEntry, also where an `up` failed before it had outputs."""
        return str(self.resource(part_name(machine, REGISTRATION))["outputs"]["entry"])

    def address(self, machine: str) -> str:
        """The address by which pods reach a machine, also where an `up` failed before it had outputs."""
        (address,) = re.findall(r"-(\d+\.\d+\.\d+\.\d+)-", self.entry_name(machine))
        return str(address)

    def secrets(self) -> dict[str, str]:
        """What must never be seen, by what it is."""
        resources = self.resources()
        machines = [name for name, each in resources.items() if each["type"].endswith(":Machine")]
        tokens = {name: self.exec_in_container(name, f"cat {TOKEN_FILE} 2>/dev/null", check=False).strip() for name in machines}
        secrets = {f"token of {name}": token for name, token in tokens.items() if token}
        kubeconfig = yaml.safe_load(stacks.command_result(resources[part_name(CLUSTER, KIND)])["kubeconfig"])
        secrets["key of the kubeconfig"] = kubeconfig["users"][0]["user"]["client-key-data"]
        secrets["SSH key"] = stacks.command_result(resources[SSH_KEY])["private"].splitlines()[2]
        # As they travel inside scripts; without the end, which depends on what follows.
        return secrets | {f"{name}, encoded": base64.b64encode(text.encode()).decode()[:-8] for name, text in secrets.items()}

    # What the mesh says

    def advice(self, machine: str) -> str:
        """What `./scripts/status` says about a machine."""
        status = json.loads(self.run("./scripts/status", "--stack", self.stack, "--json", check=False).stdout)
        endpoints = [each for workload in status["workloads"] for each in workload["endpoints"]]
        return " ".join(text for each in endpoints if each["name"] == machine for text in each["advice"])

    def entries(self) -> dict[str, Any]:
        """The WorkloadEntries by their address."""
        return {each["spec"]["address"]: each for each in self.get("workloadentries")["items"]}

    def places(self) -> dict[str, str]:
        """The machines of the stack, gateways too. A container has the name of its machine, also when it is created anew."""
        return {name: name for name, each in self.resources().items() if each["type"].endswith(":Machine")}

    def in_mesh(self) -> set[str]:
        """The machines whose agents are connected, also where they are not in the stack any more."""
        self._addresses |= {self.address(name): name for name in self.places()}
        text = self.run("kubectl", "get", "workloadentries", "--all-namespaces", "--output", "json").stdout
        addresses = {each["spec"]["address"] for each in json.loads(text)["items"] if is_connected(each)}
        return {name for address, name in self._addresses.items() if address in addresses}

    def agent(self, place: str) -> str:
        """Which start of its agent a machine runs; "" without a container."""
        return self.exec_in_container(place, AGENT_START, check=False).strip()

    def entry_health(self, entry: str) -> str | None:
        """An entry's condition `Healthy`: its status, "" where there is none, None where there is no entry."""
        workload_entry = self.get("workloadentry", entry)
        conditions = (workload_entry or {}).get("status", {}).get("conditions", [])
        return workload_entry and next((each["status"] for each in conditions if each["type"] == "Healthy"), "")

    def pod_endpoints(self) -> set[str]:
        """Address and port of each pod behind the Service, as its endpoints."""
        return {f"{pod['status']['podIP']}:8080" for pod in self.get("pods", "--selector", "app=product")["items"]}

    def proxy_clusters(self, caller: str) -> str:
        """The endpoints and their counters in the proxy of a machine, of `pod`, or of another `deploy/…`: Envoy's `/clusters`."""
        target = "deploy/product" if caller == "pod" else caller
        if "/" not in target:
            return self.ssh(target, f"curl --silent http://127.0.0.1:{ENVOY_ADMIN_PORT}/clusters")
        return self.kubectl("exec", *target.split(), "--container", "istio-proxy", "--", "pilot-agent", "request", "GET", "clusters")

    def proxy_endpoints(self, caller: str, cluster: str = f"outbound|80||{SERVICE}") -> set[str]:
        """The endpoints of the Service, `address:port`, to which the proxy of a caller sends requests now."""
        lines = self.proxy_clusters(caller).splitlines()
        return {line.split("::")[1] for line in lines if line.startswith(f"{cluster}::") and "::rq_total::" in line}

    def routing_proxies(self, machine: str, caller: str) -> dict[str, str]:
        """The proxies that choose among endpoints on the way from a caller in the cluster to a machine, and the cluster in which they do."""
        return {caller: f"outbound|80||{SERVICE}"}

    def proxies_with_endpoint(self, machine: str, caller: str) -> list[bool]:
        """Whether each proxy that chooses among endpoints on the way to a machine has it as one."""
        endpoint = f"{self.address(machine)}:8080"
        return [endpoint in self.proxy_endpoints(*each) for each in self.routing_proxies(machine, caller).items()]

    def wait_until_in_proxies(self, machine: str, caller: str, seconds: float = HANG_S) -> None:
        """Wait until new connections of a caller may lead to a machine."""
        description = f"all proxies on the way from {caller} have the endpoint {machine}"
        wait_until(lambda: all(self.proxies_with_endpoint(machine, caller)), seconds, description)

    def wait_until_out_of_proxies(self, machine: str, caller: str) -> None:
        """Wait until no request of a caller goes to a machine any more. Then no proxy on the path has
        it as an endpoint, or a connection to it.

        A gateway passes on connections. Callers replace theirs within ten seconds (`MAX_CONNECTION_DURATION` of the program).
        """
        description = f"no proxy on the way from {caller} has the endpoint {machine}"
        wait_until(lambda: not any(self.proxies_with_endpoint(machine, caller)), description=description)
        wait_until(lambda: not self.inbound_connections(machine), description=f"no proxy has a connection to {machine}")

    def inbound_connections(self, machine: str) -> list[str]:
        """The connections of other proxies to a machine's proxy: the socket of its inbound listener, and the other end."""
        return self.ssh(machine, f"ss --no-header --tcp --numeric state established '( sport = :{INBOUND_PORT} )'").splitlines()

    def call_from_pod(
        self, name: str = "product", count: int = 20, caller: str = "deploy/product", path: str = "/", qps: int = 100
    ) -> list[Answer]:
        """Call a Service by name from the workload's pod, or from another `caller` whose container has its name."""
        limits = ["--count", str(count), "--qps", str(qps), "--timeout", "30s"]  # of all requests together
        client = ["/usr/local/bin/client", f"http://{name}{path}", *limits]
        exec_ = ["kubectl", "--namespace", "shop", "exec", caller, "--container", caller.split("/")[1], "--"]
        for _ in range(3):
            done = self.run(*exec_, *client, check=False)
            if lost_count(done, count) or not is_cut(done):
                break  # else kubectl has cut its output, and not all answers are known
        answers = parse_answers(done.stdout)
        return answers + [Answer(LOST, detail=lost_details(done, count))] * lost_count(done, count)

    def call_from_machine(self, machine: str = "product-1", name: str = "product", count: int = 20) -> list[Answer]:
        """The same from a machine, with curl."""
        urls = " ".join([f"http://{name}/"] * count)
        answers = parse_answers(self.ssh(machine, f"curl --silent --max-time 20 {urls}", check=False))
        return answers + [Answer(LOST)] * (count - len(answers))

    def answering_endpoints(self, machine: str = "product-1") -> tuple[set[str], set[str]]:
        """Which endpoints answer the pod, and which answer the machine; so many calls that each of six endpoints gets some."""
        from_pod, from_machine = self.call_from_pod(count=120), self.call_from_machine(machine, count=120)
        return {each.hostname for each in from_pod}, {each.hostname for each in from_machine}

    def assert_answered_by(self, hostnames: set[str], machine: str = "product-1") -> None:
        """Check that calls of the pod and of a machine are answered by exactly these endpoints, and that none is lost.

        istiod updates proxies one after the other, so this waits until the proxy of each caller has these endpoints.
        """
        expected = {f"{self.address(name)}:8080" for name in hostnames - {"pod"}}
        for caller in ("pod", machine):
            wait_until(
                lambda caller=caller: self.proxy_endpoints(caller) == expected | self.pod_endpoints(),  # type: ignore[misc]
                description=f"the proxy of {caller} has the endpoints of {sorted(hostnames)}",
            )
        assert self.answering_endpoints(machine) == (hostnames, hostnames)

    def wait_until_answered_by(
        self, caller: str, hostnames: set[str], name: str = "product", seconds: float = HANG_S, *, path: str = SLOW_PATH
    ) -> None:
        """Wait until all of `hostnames` have answered `pod` or a machine.

        The calls are concurrent, because a gateway passes on connections, and callers keep those: `path` has a delay.
        """
        answered: set[str] = set()

        def all_answered() -> bool:
            if caller == "pod":
                answered.update(each.hostname for each in self.call_from_pod(name, count=40, path=path))
            else:
                calls = f"for _ in $(seq 16); do curl --silent --max-time 20 'http://{name}{path}' & done; wait"
                answered.update(each.hostname for each in parse_answers(self.ssh(caller, calls, check=False)))
            return answered >= hostnames

        try:
            wait_until(all_answered, seconds, "")
        except AssertionError:
            raise AssertionError(f"{caller} was answered by {answered} for {name}, not by all of {hostnames}") from None

    @property
    def service_endpoints(self) -> set[str]:
        """The host names behind the Service, as answers have them."""
        return {"pod", *self.machines}

    @property
    def plain_hostname(self) -> str:
        """A name that is not of the mesh, and that machines resolve with their usual resolver."""
        return self.container(self.tested_machine)

    def agent_ready(self, machine: str) -> bool:
        """Whether a machine's agent says that it is ready."""
        return self.ssh(machine, f"curl --silent --fail localhost:{STATUS_PORT}/healthz/ready && echo yes", check=False).strip() == "yes"

    def agent_log(self, machine: str) -> str:
        """What a machine's agent has logged since it started last."""
        invocation = "$(systemctl show --property InvocationID --value istio-vm-mesh)"
        return self.ssh(machine, f"sudo journalctl --no-pager --output cat _SYSTEMD_INVOCATION_ID={invocation}", check=False)

    def wait_for_log(self, machine: str, text: str) -> None:
        """Wait until a machine's agent has logged a text."""
        wait_until(lambda: text in self.agent_log(machine), description=f"the agent logs {text!r}")

    def agent_pid(self, machine: str = "product-1") -> str:
        """The process of a machine's agent; another number after each restart."""
        return self.ssh(machine, "systemctl show --property MainPID --value istio-vm-mesh").strip()

    # What breaks things; the program itself never does this

    def container(self, machine: str) -> str:
        """The name of a machine's container, or of the node's."""
        return docker_name(self.stack, machine)

    def docker(self, *arguments: str, check: bool = True, stdin: str = "") -> str:
        return self.run("docker", *arguments, check=check, stdin=stdin).stdout

    def exec_in_container(self, machine: str, command: str, check: bool = True) -> str:
        """Run a command in one of the stack's containers, past SSH and Kubernetes."""
        return self.docker("exec", self.container(machine), "sh", "-c", command, check=check)

    @contextmanager
    def background_requests(self, caller: str = "deploy/product", name: str = "product") -> Iterator[list[Request]]:
        """Call a Service from a pod during the block, about a hundred times a second. The list grows with the answers.

        By its address: each of these requests would resolve a name, and the cluster's DNS is not what may lose one. See `one_at_a_time`.
        """
        with one_at_a_time(), self._idle_limit(name):
            yield from self._requests(caller, name)

    @contextmanager
    def _idle_limit(self, service: str) -> Iterator[None]:
        """Have proxies close idle connections to a Service before its application does.

        The echo server closes a connection that was idle for five seconds. A request that is sent
        in that moment is answered with 503, whatever the mesh does. A DestinationRule's idle time
        holds for the callers' proxies and for the connections of the callee's proxy to the server.
        """
        name, _, namespace = service.partition(".")
        rule = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": f"{name}-idle", "namespace": namespace or "shop"},
            "spec": {
                "host": service_host(name, namespace or "shop", DEFAULT_DOMAIN),
                "trafficPolicy": {"connectionPool": {"http": {"idleTimeout": "3s"}}},
            },
        }
        self.run("kubectl", "apply", "--filename", "-", stdin=json.dumps(rule))
        try:
            yield
        finally:
            self.run("kubectl", "delete", "--ignore-not-found", "--filename", "-", stdin=json.dumps(rule))

    def _requests(self, caller: str, service: str) -> Iterator[list[Request]]:
        name, _, namespace = service.partition(".")
        words = ["kubectl", "--namespace", namespace or "shop", "get", "service", name, "--output=jsonpath={.spec.clusterIP}"]
        address = self.run(*words).stdout
        requests: list[Request] = []
        stop = threading.Event()

        def call() -> None:
            while not stop.is_set():
                started = time.monotonic()
                answers = self.call_from_pod(address, count=100, caller=caller, qps=50)
                requests.extend(Request(started, answer.hostname, answer.detail) for answer in answers)

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
            time.sleep(1)
        try:
            yield requests
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    @property
    def private_directory(self) -> Path:
        """A directory for files that only this user can read."""
        return self.root.parent

    def _private_file(self, name: str, text: str) -> Path:
        return stacks.write_private(self.private_directory / f"{self.stack}-{name}", text)

    def load_environment(self) -> None:
        """Take the environment from `./scripts/lab env`, and kubectl's access to the cluster from kind, as users do."""
        self.environment = dict(os.environ)
        text = self.run("bash", "-c", 'eval "$(./scripts/lab env)" && env --null').stdout
        self.environment = dict(item.split("=", 1) for item in text.split("\0") if item)
        kubeconfig = self.run("kind", "get", "kubeconfig", "--name", docker_name(self.stack, CLUSTER)).stdout
        self.environment["KUBECONFIG"] = str(self._private_file("kubeconfig", kubeconfig))


@dataclass
class MultiNetworkLab(Lab):
    """The lab with two networks: pods and product-1 in one, product-2 and product-3 in the other, gateways between them."""

    stack: str = f"networks-{CHECKOUT_ID}"
    stack_file: ClassVar[str] = "lab-multi-network"
    machines: ClassVar[frozenset[str]] = frozenset({"product-1", "product-2", "product-3"})
    tested_machine: ClassVar[str] = "product-2"
    gateways: ClassVar[tuple[str, ...]] = ("far-gateway-1", "far-gateway-2")
    """The machines that are the far network's gateway."""

    def routing_proxies(self, machine: str, caller: str) -> dict[str, str]:
        if machine == "product-1":
            return super().routing_proxies(machine, caller)
        return dict.fromkeys(self.gateways, f"outbound_.80_._.{SERVICE}")

    @contextmanager
    def _idle_limit(self, service: str) -> Iterator[None]:
        """Its Service has the program's own rule, with such an idle time: its machines are behind gateways."""
        yield

    def packets_dropped_by_node(self) -> int:
        """Count the packets between the pods and the far network that the node dropped, because they went past the gateways."""
        rules = self.exec_in_container(NODE, "iptables -t filter -L FORWARD -v -n -x")
        return sum(int(line.split()[0]) for line in rules.splitlines() if "DROP" in line and self.cidrs[1] in line)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold a lock of this user on this computer during the block.

    It is held by calls that must not be lost, and by updates of ten machines in another lab, which would delay them by seconds.
    """
    with (Path(tempfile.gettempdir()) / f"istio-vm-mesh-calls-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_image(image: images.Image) -> str:
    """Make an image that `lab up` does not make, once. Return its name."""
    answering = engine.find()
    assert answering, "the lab's engine does not answer"
    name = Path(image.name.partition(":")[0]).name
    step = steps.quiet("image", steps.LOGS / f"{name}-image.log")
    images.make(step, answering, programs.Tools(), [image])
    return image.name


def processes_with(text: str) -> list[str]:
    """Return the command lines that hold a text."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # ended meanwhile
    return [line for line in lines if text in line]


def _run(command: list[str], *, check: bool, **options: Any) -> Completed:
    """Run a command; the options are those of `subprocess.run`."""
    done = subprocess.run(command, **{"input": "", "stderr": subprocess.PIPE, **options}, stdout=subprocess.PIPE, text=True)
    assert not check or done.returncode == 0, f"{' '.join(command)} ended with code {done.returncode}:\n{done.stdout}\n{done.stderr or ''}"
    return done
