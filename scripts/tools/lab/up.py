"""`lab up`: everything from a bare machine to the verified mesh, in named steps."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from components.config import reader
from components.config.problems import SettingsError
from components.platforms.docker.names import stack_label
from tools.directories import make_private
from tools.mesh_status import assess, read
from tools.mesh_status.read_state import StackError
from tools.steps import Step, StepError, Steps

from . import cli, paths, plugins, preflight, pulumi_cli, report
from .engine import Engine
from .locks import checkout_lock, shared_lock
from .offline import debian, dockerd, images, inotify, packages
from .offline.programs import Publishers, Tools

HOST_PACKAGES = ["ca-certificates", "iproute2", "iptables", "openssh-client"]
"""What the program and its scripts call on this machine, besides the tools."""


CALLED = ("kind", "pulumi", "helm", "kubectl")
"""The programs of the lab that are called on this machine."""
KIND = "kind"
"""The platform of the lab's clusters."""
COLD = """\
Nothing is in the cache yet. Parts that cannot be downloaded from their publishers are built, once.
On two cores, to build all takes a quarter of an hour, and to download all a few minutes. Later runs take a minute."""
PREPARATIONS = 6
"""How many steps `prepare` takes."""


def run(stack: str, publishers: Publishers | None) -> dict[str, Any]:
    """Bring the stack up and show it; returns the stack's outputs.

    Raises StepFailedError, and StepError for a stack that is none of the lab.

    `publishers`: see `prepare`
    """
    refuse_other_stack(stack)
    with checkout_lock(), shared_lock():
        steps = Steps("up", PREPARATIONS + 2, retry_command=f"./scripts/lab up{cli.stack_option(stack)}")
        if preflight.cold():
            steps.show.print(COLD)
        answering = prepare(steps, publishers, images_of_machines(stack))
        with steps.step("pulumi up") as step:
            refuse_foreign_stack(answering, stack)
            pulumi_cli.select(step, stack)
            outputs = pulumi_cli.up(step, stack)
        with steps.step("status") as step:
            try:
                mesh = assess.mesh(read.facts(paths.environment(), stack))
            except StackError as error:
                raise StepError(str(error)) from error
            step.summary = mesh.health
    report.show(mesh, outputs)
    return outputs


def prepare(steps: Steps, publishers: Publishers | None = None, machine_images: Container[str] = ()) -> Engine:
    """Prepare what the stack needs of this machine: an engine, tools, images, the package server,
    Pulumi's plugins.

    publishers: where parts come from that are not there; None to build all of them.
    machine_images: the names of images that machines of the stack have.
    """
    tools = Tools(publishers)
    with steps.step("Debian packages") as step:
        debian.ensure(step, HOST_PACKAGES)
    with steps.step("container engine") as step:
        inotify.ensure(step)
        answering = dockerd.ensure(step)
    with steps.step("programs and images") as step:
        images.ensure(step, answering, tools, machine_images, beside=CALLED)
    with steps.step("programs and Istio's charts for this machine") as step:
        make_private(paths.HOME)
        tools.link(step, *CALLED)
        tools.charts(step)
    with steps.step("package server") as step:
        packages.serve(step, answering, tools)
    with steps.step("Pulumi's plugins") as step:
        installed = plugins.ensure(step, tools)
        step.summary = ", ".join(f"{name}: {what}" for name, what in installed.items())
    return answering


def pulumi_alone(step: Step, binaries: Path, home: Path) -> None:
    """Get the Pulumi CLI with its plugins, for stacks that need nothing else of the lab.

    binaries: the directory for the CLI, first on PATH. home: PULUMI_HOME. Both must exist.
    """
    tools = Tools()
    (binaries / "pulumi").symlink_to(tools.program(step, "pulumi").path)
    plugins.ensure(step, tools, binaries, home)


def images_of_machines(stack: str) -> set[str]:
    """Return the images that a stack file names for machines. What is wrong in it, `up` reports."""
    machines = reader.read_file(stack, paths.ROOT / "stacks").get("machines")
    declared = machines.values() if isinstance(machines, dict) else ()
    return {str(each["image"]) for each in declared if isinstance(each, dict) and "image" in each}


def refuse_other_stack(stack: str) -> None:
    """Raise StepError for a stack without a file, or with a cluster that is not on this machine.

    It comes first: to prepare this machine takes long, and other stacks may cost money.
    """
    pulumi_cli.require_file(stack)
    try:
        cluster = reader.read_file(stack, paths.ROOT / "stacks").get("cluster")
    except SettingsError as error:
        raise StepError(str(error), show_log=False) from None
    platform = cluster.get("platform", KIND) if isinstance(cluster, dict) else KIND
    if platform != KIND:
        raise StepError(
            f"the stack {stack} is of the platform {platform}, and the lab has clusters of the platform {KIND} alone",
            "run it by Pulumi (docs/how-to/production.md), or choose one such as `lab`",
            show_log=False,
        )


def refuse_foreign_stack(answering: Engine, stack: str) -> None:
    """Refuse a stack whose containers or networks another checkout created.

    They are named after the stack alone, so one that is not in this checkout's state is another's.
    """
    if stack in pulumi_cli.stacks():
        return
    if answering.docker("network", "ls", "--quiet", "--filter", f"label={stack_label(stack)}"):
        raise StepError(
            f"another checkout has a stack `{stack}` in this Docker engine, or had and was removed",
            f"./scripts/lab down --stack {stack} there (or here: it removes the other's too), or use a stack file of another name",
            show_log=False,
        )
