"""The lab under test: what its users do with it (`./scripts/lab`, the stack file, kubectl, SSH), and the hand that breaks things."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from tests.lab.watch import Watch
from tools.lab import engine, locks, paths

CHECKOUT = hashlib.sha256(str(paths.ROOT).encode()).hexdigest()[:4]
"""Part of the stacks' names: the labs of other checkouts, and the stack `lab`, can be up meanwhile."""

Completed = subprocess.CompletedProcess[str]
Config = dict[str, Any]


class Answer(NamedTuple):
    """What Istio's echo server said: who it is, and the client certificate that its proxy saw (`X-Forwarded-Client-Cert`).

    The hostname is "lost" where nobody answered; `said` is what the client knows of that.
    """

    hostname: str
    certificate: str = ""
    said: str = ""


SLOWLY = "/?delay=300ms"
"""A path that is answered late, so that calls need connections of their own."""


class Call(NamedTuple):
    """One of many calls: when the caller began with it, or at most a second before (`time.monotonic`), and who answered; "lost" if nobody did,
    with what the client `said`.
    """

    at: float
    by: str
    said: str


@dataclass
class Lab:
    """One lab in a copy of the checkout. `output` is what the `up` from nothing printed; `watch` and `logs` have seen every `up`."""

    root: Path
    scenario: ClassVar[str] = "lab"
    """The stack file that it starts from."""
    machines: ClassVar[frozenset[str]] = frozenset({"product-1"})
    """The machines behind the Service."""
    tested: ClassVar[str] = "product-1"
    """The machine that tests for every lab look at."""
    stack: str = f"test-{CHECKOUT}"
    ranges: list[str] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch, repr=False)
    output: str = field(default="", repr=False)
    logs: set[str] = field(default_factory=set, repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    _resources: dict[str, dict[str, Any]] | None = field(default=None, repr=False)  # pytest shows arguments, and these hold secrets

    # What users do

    def lab(self, command: str, check: bool = True, timeout: float = 300) -> Completed:
        """`./scripts/lab <command> --stack <stack>`; its output is one text, as on a terminal."""
        return _run(
            ["./scripts/lab", command, "--stack", self.stack],
            cwd=self.root, check=check, timeout=timeout, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def leave(self) -> None:
        """`lab down`, after which nothing of this lab runs, and with the machine's last lab gone nothing that all labs share."""
        self.lab("down")
        assert not processes(str(self.root)), "processes of the lab are left"
        with locks.shared_lock():
            found = engine.find()
            if not found or found.docker("network", "ls", "--quiet", "--filter", "label=istio-vm-mesh.stack"):
                return  # others are up
        self.lab("down")
        assert "istio-vm-mesh-packages" not in found.attempt("ps", "--all", "--format", "{{.Names}}").stdout.decode().split()
        wait_for(lambda: not found.host or not engine.RUN.exists(), 30, "the engine has stopped")  # another lab's `down` may do that

    def up(self, check: bool = True, timeout: float = 300) -> str:
        """`lab up`, watched; returns what it printed. Without `check`, it must fail."""
        self.forget()
        with self.watch:
            done = self.lab("up", check, timeout)
        self.logs |= {file.read_text() for file in (self.root / ".lab" / "logs").iterdir()}
        assert check or done.returncode == 1, f"`up` did not fail:\n{done.stdout}"
        return done.stdout

    def verify(self) -> str:
        """`./scripts/status --verify`: what it printed."""
        return self.run("./scripts/status", "--stack", self.stack, "--verify", check=False, timeout=300).stdout

    def pulumi(self, *arguments: str, check: bool = True) -> str:
        """The CLI by hand, as the README shows it."""
        return self.run("pulumi", *arguments, "--stack", self.stack, "--non-interactive", check=check).stdout

    def run(self, *command: str, check: bool = True, stdin: str = "", timeout: float = 120) -> Completed:
        """Any command in the environment that `./scripts/lab env` prints."""
        return _run(list(command), cwd=self.root, env=self.environment, check=check, stdin=stdin, timeout=timeout)

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return self.run("kubectl", "--namespace", "shop", *arguments, check=check).stdout

    def get(self, *what: str) -> Any:
        """An object of the cluster, or a list of them, as data; None where there is no such one."""
        text = self.kubectl("get", *what, "--ignore-not-found", "--output", "json")
        return json.loads(text) if text else None

    def ssh(self, machine: str, command: str, check: bool = True) -> str:
        """Run a command on a machine, with the program's key and its pinned host key."""
        options, host = self.ssh_options(machine)
        return self.run("ssh", *options, host, command, check=check).stdout

    def ssh_options(self, machine: str) -> tuple[list[str], str]:
        """What `ssh` and `scp` need for that: their options, and the user at the address."""
        host = results(self.resource(f"{machine}-container"))["address"]
        options = {
            "IdentityFile": self._private("key", base64.b64decode(results(self.resource("ssh-key"))["private"]).decode()),
            "UserKnownHostsFile": self._private("known-hosts", self._host_keys()),
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
        }
        return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())], f"admin@{host}"

    def configure(self, change: Callable[[Config], None] | None = None) -> None:
        """Write the stack file: that of `scenario` with other addresses, and `change` applied to its configuration (keys without the project)."""
        stack = yaml.safe_load((self.root / "stacks" / f"Pulumi.{self.scenario}.yaml").read_text())
        config = {key.split(":")[1]: value for key, value in stack["config"].items()}
        networks = config["networks"]
        self.ranges = self.ranges or free_ranges(len(networks), self.scenario == "lab")
        for network, free in zip(networks.values(), self.ranges, strict=True):
            network["cidrs"] = [free]
        if change:
            change(config)
        stack["config"] = {f"istio-vm-mesh:{key}": value for key, value in config.items()}
        (self.root / "stacks" / f"Pulumi.{self.stack}.yaml").write_text(yaml.safe_dump(stack, sort_keys=False))

    # What the state says

    def state(self, secrets: bool = True) -> str:
        return self.pulumi("stack", "export", *(["--show-secrets"] if secrets else []))

    def resources(self) -> dict[str, dict[str, Any]]:
        """The state's resources by name, with their secrets, as the last `up` left them."""
        if self._resources is None:
            exported = json.loads(self.state(), object_hook=_plain)["deployment"]["resources"]
            self._resources = {each["urn"].split("::")[-1]: each for each in exported}
        return self._resources

    def forget(self) -> None:
        """Read the state anew: something has changed it."""
        self._resources = None

    def resource(self, name: str) -> dict[str, Any]:
        return self.resources()[name]

    def edit_state(self, change: Callable[[dict[str, dict[str, Any]]], None]) -> None:
        """Change resources in the state, by name. A secret value is an object whose `plaintext` is JSON."""
        exported = json.loads(self.state())
        change({each["urn"].split("::")[-1]: each for each in exported["deployment"]["resources"]})
        self.run("pulumi", "stack", "import", "--stack", self.stack, stdin=json.dumps(exported))
        self.forget()

    def outputs(self) -> dict[str, Any]:
        return self.resource(f"istio-vm-mesh-{self.stack}")["outputs"]

    def entry(self, machine: str) -> str:
        """The name of a machine's WorkloadEntry, also where an `up` failed before it had outputs."""
        return str(self.resource(machine)["outputs"]["entry"])

    def secrets(self) -> dict[str, str]:
        """What must never be seen, by what it is."""
        resources = self.resources()
        found = {name: each["outputs"]["token"] for name, each in resources.items() if name.endswith("-token")}
        kubeconfig = yaml.safe_load(base64.b64decode(results(resources["cluster-kind"])["kubeconfig"]))
        found["key of the kubeconfig"] = kubeconfig["users"][0]["user"]["client-key-data"]
        found["SSH key"] = base64.b64decode(results(resources["ssh-key"])["private"]).decode().splitlines()[2]
        # As they travel inside scripts; without the end, which depends on what follows.
        return found | {f"{name}, encoded": base64.b64encode(text.encode()).decode()[:-8] for name, text in found.items()}

    # What the mesh says

    def advice(self, machine: str) -> str:
        """What `./scripts/status` says about a machine."""
        told = json.loads(self.run("./scripts/status", "--stack", self.stack, "--json", check=False).stdout)
        return " ".join(
            text for workload in told["workloads"] for each in workload["endpoints"] if each["name"] == machine for text in each["advice"]
        )

    def entries(self) -> dict[str, Any]:
        """The WorkloadEntries by their address."""
        return {each["spec"]["address"]: each for each in self.get("workloadentries")["items"]}

    def health(self, entry: str) -> str | None:
        """An entry's condition `Healthy`: its status, "" where there is none, None where there is no entry."""
        found = self.get("workloadentry", entry)
        conditions = (found or {}).get("status", {}).get("conditions", [])
        return found and next((each["status"] for each in conditions if each["type"] == "Healthy"), "")

    def from_pod(self, name: str = "product", count: int = 20, caller: str = "deploy/product", path: str = "/") -> list[Answer]:
        """Calls of a Service by the workload's pod (or that of another `caller`, whose container has its name), by `name`; those without an answer are lost."""
        client = ["/usr/local/bin/client", f"http://{name}{path}", "--count", str(count), "--qps", "100"]
        exec_ = ["kubectl", "--namespace", "shop", "exec", caller, "--container", caller.split("/")[1], "--"]
        done = self.run(*exec_, *client, check=False)
        found = _answers(done.stdout)
        return found + [Answer("lost", said=_of_lost(done, count))] * (count - len(found))

    def from_machine(self, machine: str = "product-1", name: str = "product", count: int = 20) -> list[Answer]:
        """The same by a machine, with curl."""
        urls = " ".join([f"http://{name}/"] * count)
        found = _answers(self.ssh(machine, f"curl --silent --max-time 5 {urls}", check=False))
        return found + [Answer("lost")] * (count - len(found))

    def answering(self, machine: str = "product-1") -> tuple[set[str], set[str]]:
        """Who answers the pod, and who answers the machine; so many calls that each of five endpoints gets some."""
        return {each.hostname for each in self.from_pod(count=80)}, {each.hostname for each in self.from_machine(machine, count=80)}

    def meets(self, caller: str, wanted: set[str], name: str = "product", seconds: float = 20) -> None:
        """Wait until all of `wanted` have answered "pod" or a machine: calls at once, for a gateway passes on connections, and those are kept."""
        met: set[str] = set()

        def all_met() -> bool:
            if caller == "pod":
                met.update(each.hostname for each in self.from_pod(name, count=40, path=SLOWLY))
            else:
                calls = f"for _ in $(seq 16); do curl --silent --max-time 5 'http://{name}{SLOWLY}' & done; wait"
                met.update(each.hostname for each in _answers(self.ssh(caller, calls, check=False)))
            return met >= wanted

        try:
            wait_for(all_met, seconds, "")
        except AssertionError:
            raise AssertionError(f"{caller} was answered by {met} for {name}, not by all of {wanted}") from None

    @property
    def everybody(self) -> set[str]:
        """Who is behind the Service, as answers name them."""
        return {"pod", *self.machines}

    @property
    def ordinary(self) -> str:
        """A name that has nothing to do with the mesh, and that machines ask their resolver for."""
        return f"istio-vm-mesh-{self.stack}-{self.tested}"

    def ready(self, machine: str) -> bool:
        """Whether a machine's agent says that it is ready."""
        return self.ssh(machine, "curl --silent --fail localhost:15021/healthz/ready && echo yes", check=False).strip() == "yes"

    def journal(self, machine: str) -> str:
        """What a machine's agent said since it started last."""
        invocation = "$(systemctl show --property InvocationID --value istio)"
        return self.ssh(machine, f"sudo journalctl --no-pager --output cat _SYSTEMD_INVOCATION_ID={invocation}", check=False)

    def agent(self, machine: str = "product-1") -> str:
        """The process of a machine's agent; another number after each restart."""
        return self.ssh(machine, "systemctl show --property MainPID --value istio").strip()

    # What breaks things; the program itself never does this

    def docker(self, *arguments: str, check: bool = True, stdin: str = "") -> str:
        return self.run("docker", *arguments, check=check, stdin=stdin).stdout

    def inside(self, container: str, command: str, check: bool = True) -> str:
        """Run a command in one of the stack's containers, past SSH and Kubernetes."""
        return self.docker("exec", f"istio-vm-mesh-{self.stack}-{container}", "sh", "-c", command, check=check)

    @contextmanager
    def traffic(self, caller: str = "deploy/product") -> Iterator[list[Call]]:
        """Calls of the Service by a pod all the while, one or two hundred a second; the list grows as they are answered or lost."""
        calls: list[Call] = []
        stop = threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                started = time.monotonic()
                answers = self.from_pod(count=100, caller=caller)
                calls.extend(Call(started, answer.hostname, answer.said) for answer in answers)

        threads = [threading.Thread(target=go_on) for _ in range(2)]
        for thread in threads:
            thread.start()
            time.sleep(0.5)
        try:
            yield calls
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _host_keys(self) -> str:
        made = [results(each) for name, each in self.resources().items() if name.endswith("-container")]
        return "".join(f"{each['address']} {each['hostKey']}\n" for each in made)

    @property
    def private(self) -> Path:
        """A directory for files that only we can read."""
        return self.root.parent

    def _private(self, name: str, text: str) -> Path:
        file = self.private / name
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
            opened.write(text)
        return file

    def prepare(self) -> None:
        """Take the environment from `./scripts/lab env`, and kubectl's access to the cluster from kind, as users do."""
        self.environment = dict(os.environ)
        text = self.run("bash", "-c", 'eval "$(./scripts/lab env)" && env --null').stdout
        self.environment = dict(item.split("=", 1) for item in text.split("\0") if item)
        kubeconfig = self.run("kind", "get", "kubeconfig", "--name", f"istio-vm-mesh-{self.stack}-cluster").stdout
        self.environment["KUBECONFIG"] = str(self._private("kubeconfig", kubeconfig))


def free_ranges(count: int, first: bool) -> list[str]:
    """So many ranges for machines and nodes that no network of the Docker engine has: the first or the last ones, so that two labs that look at
    the same moment find different ones.
    """
    taken: list[ipaddress.IPv4Network] = []
    with locks.shared_lock():
        if found := engine.find():
            names = found.docker("network", "ls", "--quiet").split()
            ranges = found.docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", *names).split()
            taken = [ipaddress.IPv4Network(each) for each in ranges if ":" not in each]
    candidates = list(ipaddress.IPv4Network("172.31.16.0/20").subnets(new_prefix=24))
    free = (each for each in (candidates if first else reversed(candidates)) if not any(each.overlaps(other) for other in taken))
    return [str(next(free)) for _ in range(count)]


def results(resource: Mapping[str, Any]) -> dict[str, str]:
    """The `key=value` lines that a command printed."""
    return dict(line.split("=", 1) for line in resource["outputs"]["stdout"].splitlines() if "=" in line)


def processes(text: str) -> list[str]:
    """Command lines in which `text` stands."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # ended meanwhile
    return [line for line in found if text in line]


def wait_for(what: Callable[[], bool], seconds: float, description: str) -> float:
    """Ask every 0.2 s until it is so; returns after how many seconds it was."""
    start = time.monotonic()
    while not what():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {description}"
        time.sleep(0.2)
    return time.monotonic() - start


def _plain(value: dict[str, Any]) -> Any:
    """Secrets in an exported state as their plain values."""
    return json.loads(value["plaintext"]) if "plaintext" in value else value


def _answers(said: str) -> list[Answer]:
    """Every answer in the output of the echo server's client, or of curl; all pods are called `pod`."""
    found, certificate = [], ""
    for name, value in re.findall(r"(Hostname=|X-Forwarded-Client-Cert:)(\S+)", said):
        if name == "Hostname=":
            found.append(Answer("pod" if value.count("-") > 1 else value, certificate))
            certificate = ""
        else:
            certificate = value
    return found


def _of_lost(done: Completed, count: int) -> str:
    """What the echo server's client said of the calls that nobody answered, which it numbers from 0."""
    answered = set(re.findall(r"^\[(\d+) body\] Hostname=", done.stdout, re.MULTILINE))
    lines = re.findall(r"^\[(\d+)(?: body)?\] (.*)$", done.stdout, re.MULTILINE)
    of_lost = [f"{number}: {line}" for number, line in lines if number not in answered]
    return "; ".join([*of_lost, f"{len(answered)} of {count} answered, exit code {done.returncode}", *done.stderr.splitlines()[-2:]])


def _run(
    command: list[str],
    *,
    cwd: Path,
    check: bool,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    stderr: int = subprocess.PIPE,
) -> Completed:
    done = subprocess.run(command, cwd=cwd, env=env, input=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=timeout)
    assert not check or done.returncode == 0, f"{' '.join(command)} ended with code {done.returncode}:\n{done.stdout}\n{done.stderr or ''}"
    return done
