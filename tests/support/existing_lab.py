"""Machines and an application that somebody else made, and stacks that adopt them: in the cluster and mesh of a lab.

The machines are containers that no stack has made. They have a past: files where the program could
put its own, a second port of sshd, a user's own key. Some are lived in (lived_in.py), too.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from components.config import reader
from components.names import DEFAULT_DOMAIN, GROUP_ANNOTATION, INJECTION_LABEL, config_key, service_host
from components.platforms.docker.names import CLUSTER, docker_name, kind_node, stack_label
from tests.support import lived_in, manifest
from tests.support.lab import Completed, Config, Lab, make_image
from tests.support.manifest import Manifest
from tests.support.true_plans import AGENT_START, is_connected
from tests.support.waiting import wait_until
from tools.lab.offline import images

NAMESPACE = "billing"
SERVICE = "billing.billing"
HOSTS = (236, 254)
"""The last byte of the machines' addresses: the first and the last to choose from. The lab's own machines may have some of them."""
FLOATING_HOST = 100
"""The same of an address that is translated: Docker gives out addresses below, and machines have those above."""
AGENT = "istio-vm-mesh"
"""The unit of the agent."""

PAST = {
    "/etc/certs/key.pem": "the application's own TLS key",
    "/etc/certs/cert-chain.pem": "the application's own certificate",
    "/etc/certs/root-cert.pem": "corporate roots",
    "/etc/istio/notes": "from an attempt of last year",
    "/run/secrets/vault/token": "another program's",
    "/usr/local/bin/envoy": "#!/bin/sh\n# another program's proxy\n",
    "/etc/systemd/system/istio.service": "[Service]\nExecStart=/bin/true\n",
}
"""Files that are on every machine before it joins, by their path."""


@dataclass
class ExistingMachines:
    """The machines, by name; made once, for as long as the lab is up."""

    lab: Lab
    addresses: dict[str, str] = field(default_factory=dict)
    host_keys: dict[str, str] = field(default_factory=dict)
    lived_in: Container[str] = ()
    """Those that were used for years."""

    @property
    def label(self) -> str:
        return stack_label(self.stack)

    @property
    def stack(self) -> str:
        """What their containers are named after: both labs may have such machines at once."""
        return f"existing-{self.lab.stack}"

    @property
    def key(self) -> Path:
        """The private key of the person who runs these machines."""
        return self.lab.private_directory / "operators-key"

    def make(self, *names: str) -> None:
        """Create machines, each with its past."""
        for name in names:
            self.create(name, make_image(images.LIVED_IN) if name in self.lived_in else images.MACHINE.name, HOSTS)
            runs = partial(self.root, name, "systemctl is-active --quiet ssh && echo yes", check=False)
            wait_until(runs, description=f"{name} runs sshd")
            self.give_past(name)

    def create(self, name: str, image: str, hosts: tuple[int, int]) -> None:
        """Create a machine as the platform `docker` does. One that runs already is kept.

        hosts: the last bytes of the first and the last address to choose from.
        """
        if not self.key.exists():
            self.lab.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        first, last = (f"{self.lab.cidrs[0].rpartition('.')[0]}.{host}" for host in hosts)
        payload = {
            "name": self.container(name),
            "hostname": name,
            "image": image,
            "network": docker_name(self.lab.stack, "pods"),
            "second_network": None,
            "first": first,
            "last": last,
            "label": self.label,
            "public_key": self.key.with_suffix(".pub").read_text().strip(),
            "routes": [f"10.244.0.0/16 via {self.lab.outputs()['gateway']}"],
            "user": "admin",
        }
        command = ["python3", "-I", "components/local/run.py", "platforms/docker/scripts/create_machine.py", "create"]
        result = json.loads(self.lab.run(*command, stdin=json.dumps({"create": payload})).stdout)
        self.addresses[name], self.host_keys[name] = result["address"], result["host_key"]

    def give_past(self, name: str) -> None:
        """Put the files of PAST on a machine, with modes that nobody else would choose; and what it needs to be lived in."""
        ports = ["echo 'Port 22\nPort 2222' >/etc/ssh/sshd_config.d/ports.conf", "systemctl restart ssh"]
        self.root(name, "\n".join([*_files(PAST), *ports, *([lived_in.set_up()] if name in self.lived_in else [])]))

    def boot(self, name: str) -> None:
        """Start a machine again, with what the programs on it write to memory at each boot."""
        self.lab.docker("start", self.container(name))
        in_memory = {path: text for path, text in PAST.items() if path.startswith("/run/")}
        self.root(name, "\n".join(_files(in_memory)))

    def past(self, name: str) -> str:
        """What a machine's past looks like now: kind, mode, owner and digest of its files and their directories."""
        places = " ".join(sorted({str(Path(path).parent) for path in PAST} - {"/usr/local/bin", "/etc/systemd/system"}))
        look = f"stat --format '%F %a %U %n' {places} {' '.join(PAST)}; sha256sum {' '.join(PAST)}; find {places} | sort"
        return self.root(name, look)

    def manifest(self, name: str) -> Manifest:
        """What all of a machine is now."""
        return manifest.take(lambda script: self.root(name, script))

    def container(self, name: str) -> str:
        return docker_name(self.stack, name)

    def agent_pid(self, name: str) -> str:
        """The process of a machine's agent; another number after each restart."""
        return self.root(name, f"systemctl show --property MainPID --value {AGENT}")

    @contextmanager
    def floating_address(self, name: str) -> Iterator[str]:
        """Yield an address of a machine that is on none of its interfaces: the node translates it, as a router of a cloud does."""
        real, node = self.addresses[name], self.lab.outputs()["gateway"]
        address = f"{real.rpartition('.')[0]}.{FLOATING_HOST}"
        container = kind_node(docker_name(self.lab.stack, CLUSTER))
        rules = (
            f"PREROUTING --destination {address} --protocol tcp --jump DNAT --to-destination {real}",
            f"POSTROUTING --destination {real} --match conntrack --ctorigdst {address} --jump MASQUERADE",
        )

        def change(rule: str, route: str) -> None:
            for each in rules:
                self.lab.docker("exec", container, "iptables", "--wait", "--table", "nat", rule, *each.split())
            self.root(name, f"ip route {route} {address}/32 via {node}")

        change("--append", "add")
        try:
            yield address
        finally:
            change("--delete", "delete")

    def root(self, name: str, command: str, check: bool = True) -> str:
        """Run a command on a machine as root, past SSH."""
        return self.lab.docker("exec", self.container(name), "bash", "-c", command, check=check)

    def remove(self) -> None:
        containers = self.lab.docker("ps", "--all", "--quiet", "--filter", f"label={self.label}").split()
        if containers:
            self.lab.docker("rm", "--force", "--volumes", *containers)


def _files(files: Mapping[str, str]) -> list[str]:
    """Return the commands that write files with modes that nobody else would choose."""
    lines = []
    for path, text in files.items():
        lines += [f"mkdir -p {Path(path).parent}", f"printf %s {shlex.quote(text)} >{path}", f"chmod 0640 {path}"]
    return [*lines, "chmod 0700 /run/secrets"]


@contextmanager
def existing_machines(lab: Lab, used: Container[str] = ()) -> Iterator[ExistingMachines]:
    """Two machines in the network of the lab's pods, and the namespace for their workloads, during the block. The lab is up, whatever its stack.

    used: which of `one` and `two` are lived in.
    """
    lab.ensure_any()
    machines = ExistingMachines(lab, lived_in=used)
    machines.remove()
    lab.run("kubectl", "create", "namespace", NAMESPACE)
    lab.run("kubectl", "label", "namespace", NAMESPACE, f"{INJECTION_LABEL}=enabled")
    try:
        machines.make("one", "two")
        yield machines
    finally:
        machines.remove()
        lab.run("kubectl", "delete", "namespace", NAMESPACE, check=False)


@dataclass
class AdoptingStack:
    """A stack that adopts the lab's cluster, a mesh in it, and machines of `ExistingMachines`.

    purpose: the first part of the stack's name.
    network: of pods and machines, as the mesh calls it.
    """

    machines: ExistingMachines
    purpose: str
    network: str = "pods"
    declared: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The machines of the stack file, by the names that it gives them."""
    workloads: dict[str, dict[str, Any]] = field(default_factory=dict)
    mesh: dict[str, Any] = field(default_factory=dict)
    gateway: dict[str, Any] = field(default_factory=dict)
    """Settings of the mesh and of its gateway, in place of those that fit the lab's own."""
    applied: dict[str, str] = field(default_factory=dict)
    """The hosts of the machines of the last `up` that succeeded, by the machines' names."""

    @property
    def lab(self) -> Lab:
        return self.machines.lab

    @property
    def name(self) -> str:
        """The stack's name. Stacks of one name would share the private files of this user."""
        return f"{self.purpose}-{self.lab.stack}"

    def declare(self, name: str, machine: str, **settings: Any) -> None:
        """Declare one of the machines that exist, by whatever name. Metrics of one that is lived in stay open."""
        if machine in self.machines.lived_in:
            settings = {"capture": {"excludeInboundPorts": [lived_in.METRICS_PORT]}, **settings}
        self.declared[name] = {
            "platform": "ssh",
            "workload": "billing",
            "network": self.network,
            "host": self.machines.addresses[machine],
            "user": "admin",
            "hostKey": self.machines.host_keys[machine],
            "privateKey": str(self.machines.key),
            **settings,
        }

    def declare_both(self) -> None:
        """Declare the machines `one` and `two` and no other, the second by its other port."""
        self.declared.clear()
        self.declare("billing-1", "one")
        self.declare("billing-2", "two", port=2222)

    def named(self, machine: str) -> str:
        """Return the name by which one of the machines is declared."""
        return next(name for name, each in self.declared.items() if each["host"] == self.machines.addresses[machine])

    def workload(self, name: str = "billing", **settings: Any) -> None:
        """Declare a workload; every machine's image has the application on port 8080."""
        self.workloads[name] = {
            "namespace": NAMESPACE,
            "labels": {"app": name},
            "ports": {"http": 8080},
            "probe": {"http": {"port": 8080, "path": "/"}},
            "services": {name: {"ports": {"http": 80}}},
            **settings,
        }

    def write(self) -> None:
        """Write the stack file."""
        lab = self.lab
        # As the lab's own file has it, whatever package the scenario before this one used.
        of_lab = reader.read_document(lab.stack_file, lab.root / "stacks")["config"]
        package = of_lab[config_key("mesh")]["package"]
        config: Config = {
            "networks": {self.network: {"cidrs": [lab.cidrs[0]]}},
            "cluster": {
                "platform": "existing",
                "network": self.network,
                "kubeconfig": lab.environment["KUBECONFIG"],
                "context": f"kind-{docker_name(lab.stack, CLUSTER)}",
                "podCidr": "10.244.0.0/16",
                "gateway": {"address": lab.outputs()["gateway"], "install": False, **self.gateway},
                "namespaces": [NAMESPACE],
            },
            "mesh": {"adopt": True, "version": "1.31.0", "package": package, **self.mesh},
            "workloads": self.workloads,
            "machines": self.declared,
        }
        document = {"config": {config_key(key): value for key, value in config.items()}}
        path = lab.root / "stacks" / f"Pulumi.{self.name}.yaml"
        if path.exists():  # it holds the salt of the stack's secrets
            document = yaml.safe_load(path.read_text()) | document
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def init(self) -> None:
        self.write()
        self.lab.run("pulumi", "stack", "init", "--stack", self.name, "--non-interactive")

    def pulumi(self, *words: str, check: bool = True, env: Mapping[str, str] | None = None) -> Completed:
        """Run the CLI for this stack."""
        command = ["pulumi", *words, "--stack", self.name, "--non-interactive", "--color", "never"]
        if env:
            command = ["env", *(f"{key}={value}" for key, value in env.items()), *command]
        return self.lab.run(*command, check=check, timeout=300)

    def up(self, check: bool = True) -> str:
        """Run `pulumi up`; without `check` it must fail. Returns what it printed."""
        self.write()
        done = self.pulumi("up", "--yes", "--skip-preview", check=check)
        assert check or done.returncode, f"`up` did not fail:\n{done.stdout}"
        if check:
            self.applied = {name: machine["host"] for name, machine in self.declared.items()}
        return done.stdout + done.stderr

    def plan(self) -> str:
        """Write the stack file, and return the records of its plan."""
        self.write()
        return self.lab.plan(self.name)

    def places(self) -> dict[str, str]:
        """The hosts of machines, which are the same ones under other names."""
        return dict(self.applied)

    def in_mesh(self) -> set[str]:
        """The hosts whose agents are connected in one of the workloads of this stack."""
        hosts = {machine.get("address"): machine["host"] for machine in self.declared.values()}
        connected = {hosts.get(address, address): entry for address, entry in self.entries().items() if is_connected(entry)}
        return {host for host, entry in connected.items() if entry["metadata"]["annotations"].get(GROUP_ANNOTATION) in self.workloads}

    def agent(self, place: str) -> str:
        """Which start of its agent a host runs."""
        names = {address: name for name, address in self.machines.addresses.items()}
        return self.machines.root(names[place], AGENT_START, check=False).strip()

    def assert_no_changes(self) -> None:
        """Check that another preview is empty."""
        done = self.pulumi("preview", "--expect-no-changes", "--diff", check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def destroy(self, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """Run `pulumi destroy`; without `check` it must fail. Returns what it printed."""
        done = self.pulumi("destroy", "--yes", "--skip-preview", check=check, env=env)
        assert check or done.returncode, f"`destroy` did not fail:\n{done.stdout}"
        return done.stdout + done.stderr

    def remove(self) -> None:
        """Remove the stack, whatever is left of it. One with resources is refused at first."""
        if self.pulumi("stack", "rm", "--yes", check=False).returncode == 0:
            return
        forgotten = {"ISTIO_VM_MESH_FORGET": ",".join(self.declared)}
        self.pulumi("destroy", "--yes", "--skip-preview", check=False, env=forgotten)
        self.pulumi("stack", "rm", "--yes", "--force", check=False)

    def entries(self) -> dict[str, Any]:
        """The WorkloadEntries of the namespace by their address."""
        text = self.lab.run("kubectl", "--namespace", NAMESPACE, "get", "workloadentries", "--output", "json").stdout
        return {each["spec"]["address"]: each for each in json.loads(text)["items"]}

    def wait_for_endpoints(self, caller: str, *addresses: str, service: str = "billing") -> None:
        """Wait until the proxy of a caller in the lab's own application sends requests for a Service to these addresses alone.

        istiod updates each proxy in its own time. That an entry is Healthy says nothing of a caller.
        """
        cluster = f"outbound|80||{service_host(service, NAMESPACE, DEFAULT_DOMAIN)}"
        endpoints = {f"{address}:8080" for address in addresses}
        wait_until(
            lambda: self.lab.proxy_endpoints(caller, cluster) == endpoints,
            description=f"the proxy of {caller} has the endpoints {sorted(endpoints)} of {service}",
        )

    def healthy(self) -> set[str]:
        """The machines, by their host names, whose entries are connected and Healthy."""
        names = {address: name for name, address in self.machines.addresses.items()}
        return {names[address] for address in self.healthy_addresses()}

    def healthy_addresses(self) -> set[str]:
        """The addresses of the entries that are connected and Healthy."""
        healthy = set()
        for address, entry in self.entries().items():
            conditions = {each["type"]: each["status"] for each in entry.get("status", {}).get("conditions", [])}
            if conditions.get("Healthy") == "True":
                healthy.add(address)
        return healthy
