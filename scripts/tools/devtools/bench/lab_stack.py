"""A stack of the lab as its users see it: `./scripts/lab`, the stack file, Pulumi's state, kubectl
and SSH.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from components.config import reader
from components.names import SSH_KEY, config_key, part_name, stack_resource_name
from components.platforms.docker.names import CLUSTER, CONTAINER, docker_name
from tools import ROOT
from tools.lab import engine, locks, paths
from tools.lab.steps import StepError
from tools.mesh_status.read_state import revealed

CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:4]
"""Part of stacks' names: stacks of other checkouts can be up meanwhile."""

Config = dict[str, Any]
"""The configuration of a stack file, keys without the project's name."""


@dataclass
class LabStack:
    """One stack in this checkout. Its file is `scenario`'s with other addresses."""

    stack: str
    scenario: str = "lab"
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    _cidrs: list[str] = field(default_factory=list)
    _resources: dict[str, dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def file(self) -> Path:
        return ROOT / "stacks" / f"Pulumi.{self.stack}.yaml"

    def configure(self, change: Callable[[Config], None]) -> None:
        """Write the stack file: the scenario's, with free CIDRs, after `change`."""
        document = reader.read_document(self.scenario)
        config = {key.removeprefix(config_key("")): value for key, value in document["config"].items()}
        self._cidrs = self._cidrs or _free_cidrs(len(config["networks"]))
        for network, cidr in zip(config["networks"].values(), self._cidrs, strict=True):
            network["cidrs"] = [cidr]
        change(config)
        document["config"] = {config_key(key): value for key, value in config.items()}
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))

    def prepare(self) -> None:
        """Take the lab's environment, and kubectl's access to the cluster from kind."""
        self.environment = paths.environment()
        kubeconfig = self.run("kind", "get", "kubeconfig", "--name", docker_name(self.stack, CLUSTER))
        self.environment["KUBECONFIG"] = str(self._private_file("kubeconfig", kubeconfig))

    def lab(self, command: str) -> None:
        """Run `./scripts/lab <command>` on this stack. Raises StepError when it fails."""
        _run(["./scripts/lab", command, "--stack", self.stack], dict(os.environ))
        self.forget()

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a command in the lab's environment and return its standard output.

        Raises StepError when it fails.
        """
        return _run(command, self.environment, stdin)

    def kubectl(self, *arguments: str) -> str:
        return self.run("kubectl", "--namespace", "shop", *arguments)

    def inside(self, machine: str, command: str, stdin: str = "") -> str:
        """Run a shell command as root in a machine's container."""
        return self.run("docker", "exec", "--interactive", docker_name(self.stack, machine), "bash", "-c", command, stdin=stdin)

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return the state's resources by name, secrets as plain values, as the last update left
        them.
        """
        if self._resources is None:
            text = self.run("pulumi", "stack", "export", "--show-secrets", "--stack", self.stack, "--non-interactive")
            exported = revealed(json.loads(text))
            self._resources = {each["urn"].rpartition("::")[2]: each for each in exported["deployment"]["resources"]}
        return self._resources

    def forget(self) -> None:
        """Read the state again when it is needed next: an update has changed it."""
        self._resources = None

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs."""
        outputs: dict[str, Any] = self.resources()[stack_resource_name(self.stack)]["outputs"]
        return outputs

    def entry(self, machine: str) -> str:
        """Return the name of a machine's WorkloadEntry."""
        return str(self.resources()[machine]["outputs"]["entry"])

    def ssh_options(self, machine: str) -> tuple[list[str], str]:
        """Return the options for `ssh` and `scp` with the program's key and the pinned host key,
        and `user@address`.
        """
        container = _result(self.resources()[part_name(machine, CONTAINER)])
        key = _result(self.resources()[SSH_KEY])["private"]
        options = {
            "IdentityFile": self._private_file("key", key),
            "UserKnownHostsFile": self._private_file("known-hosts", f"{container['address']} {container['host_key']}\n"),
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
        }
        return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())], f"admin@{container['address']}"

    @property
    def private(self) -> Path:
        """A directory that only this user can read."""
        return paths.make_private(paths.RUN / "bench")

    def _private_file(self, name: str, text: str) -> Path:
        file = self.private / name
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
            opened.write(text)
        return file


def _run(command: Sequence[str], environment: Mapping[str, str], stdin: str = "") -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()[-300:]
        raise StepError(f"`{' '.join(command[:3])}` ended with code {done.returncode}: {reason}", show_log=False)
    return done.stdout


def _result(resource: dict[str, Any]) -> dict[str, str]:
    """Read what a command beside Pulumi returned."""
    result: dict[str, str] = json.loads(resource["outputs"]["stdout"])
    return result


def _free_cidrs(count: int) -> list[str]:
    """Return CIDRs that no network of the container engine overlaps."""
    taken: list[ipaddress.IPv4Network] = []
    with locks.shared_lock():
        if answering := engine.find():
            names = answering.docker("network", "ls", "--quiet").split()
            subnets = answering.docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", *names).split()
            taken = [ipaddress.IPv4Network(each) for each in subnets if ":" not in each]
    candidates = ipaddress.IPv4Network("172.31.16.0/20").subnets(new_prefix=24)
    free = (each for each in candidates if not any(each.overlaps(other) for other in taken))
    return [str(next(free)) for _ in range(count)]
