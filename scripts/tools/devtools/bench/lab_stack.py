"""A stack of the lab as its users see it: `./scripts/lab`, the stack file, Pulumi's state, kubectl
and SSH.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.config import reader
from components.names import REGISTRATION, part_name, stack_resource_name
from components.platforms.docker.names import CLUSTER, docker_name
from tools import ROOT
from tools.directories import make_private
from tools.lab import paths, pulumi_cli, stacks, up
from tools.lab.locks import checkout_lock, shared_lock
from tools.lab.stacks import Config
from tools.steps import StepError, Steps

CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:4]
"""Part of stacks' names: stacks of other checkouts can be up meanwhile."""


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
        return reader.file_of(self.stack)

    def configure(self, change: Callable[[Config], None]) -> None:
        """Write the stack file: the scenario's, with free CIDRs, after `change`."""

        def complete(config: Config) -> None:
            self._cidrs = self._cidrs or stacks.free_cidrs(len(config["networks"]))
            stacks.set_cidrs(config, self._cidrs)
            change(config)

        stacks.write_stack_file(ROOT / "stacks", self.scenario, self.stack, complete)

    @contextmanager
    def temporary(self, steps: Steps) -> Iterator[None]:
        """Get what the stack needs, and remove the stack after the block, as what was left of it before.

        steps: count `up.PREPARATIONS` for this. Raises StepFailedError.
        """
        self._take_down()
        try:
            with checkout_lock(), shared_lock():
                up.prepare(steps)
            yield
        finally:
            self._take_down()
            self.file.unlink(missing_ok=True)

    def _take_down(self) -> None:
        """Remove what there is. A stack without file and state would be refused."""
        if self.file.exists() or self.stack in pulumi_cli.stacks():
            self.lab("down")

    @contextmanager
    def watching(self, read: Callable[[Iterable[str]], None], *words: str) -> Iterator[None]:
        """Watch WorkloadEntries by kubectl during the block.

        read: takes kubectl's lines, in a thread of its own. words: of `kubectl get`, besides.
        """
        command = ["kubectl", "get", "workloadentries", "--watch", *words]
        with subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True) as process:
            threading.Thread(target=read, args=(process.stdout or (),), daemon=True).start()
            try:
                yield
            finally:
                process.terminate()

    def prepare(self) -> None:
        """Take the lab's environment, and kubectl's access to the cluster from kind."""
        self.environment = paths.environment()
        kubeconfig = self.run("kind", "get", "kubeconfig", "--name", docker_name(self.stack, CLUSTER))
        self.environment["KUBECONFIG"] = str(stacks.write_private(self.private / "kubeconfig", kubeconfig))

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
            self._resources = stacks.resources_of(text)
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
        return str(self.resources()[part_name(machine, REGISTRATION)]["outputs"]["entry"])

    def ssh_options(self, machine: str) -> tuple[list[str], str]:
        """Return the options for `ssh` and `scp` with the program's key and the pinned host key,
        and `user@address`.
        """
        return stacks.ssh_options(self.resources(), machine, self.private)

    @property
    def private(self) -> Path:
        """A directory that only this user can read."""
        return make_private(paths.RUN / "bench")


def _run(command: Sequence[str], environment: Mapping[str, str], stdin: str = "") -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()[-300:]
        raise StepError(f"`{' '.join(command[:3])}` ended with code {done.returncode}: {reason}", show_log=False)
    return done.stdout
