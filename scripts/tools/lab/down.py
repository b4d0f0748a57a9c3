"""`lab down`: everything of the lab goes, whatever state it is in; what was built stays in the
cache unless that is purged.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import yaml

from components.config import load_file, reader
from components.config.docker import DockerMachine
from components.config.problems import SettingsError
from components.local import private_files
from components.local.cluster_access import forget_kind_kubeconfig
from components.names import part_name
from components.platforms.docker.configuration import docker_cidr
from components.platforms.docker.names import (
    CLUSTER,
    CONTAINER,
    KIND,
    STACK_LABEL,
    docker_name,
    network_resource_name,
    node_name,
    stack_label,
)
from tools.steps import Step, StepError, Steps

from . import cli, engine, paths, pulumi_cli
from .engine import Engine
from .locks import checkout_lock, exclusive_lock, shared_lock
from .offline import cache, dockerd, images, packages

CREATION_S = 120.0
"""Seconds that the engine has to create a container."""
NETWORK_CREATION_S = 20.0
"""The same of a network. Less, because a network of others may have its CIDR for ever."""
PROBES = 8
"""How many requests the engine gets at once."""


def run(stack: str, purge: bool = False) -> None:
    """Remove the stack, its containers and networks, the engine if it is the lab's own, and with
    `purge` the caches.

    Doing so again changes nothing. Raises StepFailedError. Without `purge`, raises StepError for a
    stack that has no file and of which nothing is left.
    """
    if not purge:
        refuse_unknown_stack(stack)
    with checkout_lock():
        steps = Steps("down", 4 if purge else 3, retry_command=f"./scripts/lab down{cli.stack_option(stack)}")
        with shared_lock():
            with steps.step("pulumi destroy") as step:
                answering = _engine(step)
                complete = _destroy(step, stack)
            with steps.step("containers and networks") as step:
                if answering:
                    _wait_for_creation(answering, stack, complete)
                    _remove_containers(step, answering, stack)
                step.summary = step.summary or "nothing left"
        others = pulumi_cli.stacks()
        with exclusive_lock() as alone:
            with steps.step("container engine and files") as step:
                last = alone and not others and not (answering and _used_by_other_checkouts(answering))
                if answering and last:
                    packages.stop(answering)
                    if purge and not answering.host:  # the lab's own engine goes with the caches
                        _remove_images(answering)
                stopped = last and dockerd.stop(step)
                if others:
                    step.summary = f"kept for {', '.join(others)}"
                else:
                    step.summary = "" if stopped else "the engine stays for other labs of this machine"
                    _remove_files()
            if purge:
                with steps.step("caches") as step:
                    if not stopped:
                        raise StepError("the caches are in use by another lab", "take that down first", show_log=False)
                    step.summary = f"{cache.purge() / 1e9:.1f} GB freed"


def refuse_unknown_stack(stack: str) -> None:
    """Raise StepError for a stack that has no file, no state, no container and no network.

    Containers and networks of a stack whose file and state are gone can be removed.
    """
    if stack in pulumi_cli.stacks():
        return
    answering, label = engine.find(), f"label={stack_label(stack)}"
    listings = (("ps", "--all"), ("network", "ls"))
    if not answering and paths.docker_host():  # the lab's own engine does not run, and may have some
        return
    if not (answering and any(answering.docker(*words, "--quiet", "--filter", label) for words in listings)):
        pulumi_cli.require_file(stack)


def _remove_files() -> None:
    for directory in (paths.STATE, paths.HOME, paths.BIN):
        shutil.rmtree(directory, ignore_errors=True)
    for file in (paths.CHARTS, paths.GATEWAY_API, paths.PACKAGE_DIGEST, paths.DOCKER_HOST):
        file.unlink(missing_ok=True)


def _engine(step: Step) -> Engine | None:
    """Return the engine that the lab runs in; None if there is none.

    The lab's own engine is started where it does not run, as after a reboot: it has containers.
    """
    if answering := engine.find():
        return answering
    return dockerd.ensure(step) if paths.docker_host() else None


def _destroy(step: Step, stack: str) -> set[str]:
    """Destroy the stack with Pulumi. Where that fails and everything in it is on this machine,
    forget it: containers are removed anyway.

    Returns the names of the resources that Pulumi had created, and destroyed now.
    """
    if stack not in pulumi_cli.stacks():
        pulumi_cli.end_leftovers(step)
        step.summary = "not in the state"
        return set()
    try:
        pulumi_cli.select(step, stack)
        return pulumi_cli.destroy(step, stack)
    except StepError as error:
        if not _is_local(stack):
            raise
        step.write(str(error))
        step.line(f"{str(error).splitlines()[0]}; its containers and its state are removed directly (the log has the reason)")
        pulumi_cli.forget(stack)
        return set()


def _is_local(stack: str) -> bool:
    """Whether the stack's cluster is a kind cluster and its machines are containers: nothing
    outside this machine is lost with its state.
    """
    try:
        config = reader.read_file(stack, paths.ROOT / "stacks")
        machines = config.get("machines") or {}
        platforms = [config["cluster"]["platform"], *(machine["platform"] for machine in machines.values())]
    except (SettingsError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return False
    return set(platforms) <= {"kind", "docker"}


def _remove_containers(step: Step, engine: Engine, stack: str) -> None:
    """Remove what Pulumi left: machines by the stack's label, and the cluster's node by its name in
    one of the stack's networks.

    What is kept of the cluster's kubeconfig goes with the node. So does the key of the machines: an
    `up` that was killed has not stored it. Other containers that are in the
    stack's networks are disconnected, and stay.
    """
    label, node = f"label={stack_label(stack)}", node_name(stack)
    # By name: a container that was created, and not started yet, has no ID of its networks.
    networks = engine.docker("network", "ls", "--format", "{{.Name}}", "--filter", label).split()

    def listed(of: str) -> set[str]:
        return set(engine.docker("ps", "--all", "--format", "{{.Names}}", "--filter", of).split())

    connected = {network: listed(f"network={network}") for network in networks}
    in_networks = {name for names in connected.values() for name in names}
    containers = listed(label) | ({node} & in_networks)
    if containers:
        engine.docker("rm", "--force", "--volumes", *sorted(containers))
    for network, names in connected.items():
        for name in sorted(names - containers):
            engine.docker("network", "disconnect", "--force", network, name)
            step.line(f"the container {name} is not of the lab: it was disconnected from the lab's network, and stays")
    if networks:
        engine.docker("network", "rm", *networks)
    forget_kind_kubeconfig(docker_name(stack, CLUSTER))
    if _is_local(stack):  # of another one, the same stack in another backend may have the key
        private_files.remove_all(f"organization/{pulumi_cli.PROJECT}/{stack}")
    if containers or networks:
        step.summary = f"{len(containers)} containers, {len(networks)} networks"


@dataclass(frozen=True)
class _Probe:
    """What shows whether the engine is about to create a container or a network: docker's commands.

    resource: Pulumi's name of it.
    listed: prints its ID once it is there.
    create, remove: create one in its place, and remove that.
    seconds: how long its creation may take.
    """

    resource: str
    listed: tuple[str, ...]
    create: tuple[str, ...]
    remove: tuple[str, ...]
    seconds: float


def _wait_for_creation(engine: Engine, stack: str, complete: set[str]) -> None:
    """Wait until the engine creates nothing of a stack; `complete` are the resources that it has
    created.

    The engine goes on with what a killed client has asked it for, and lists that only when it is
    there: a node, which begins with a copy of its image's /var, after seconds. Names of containers
    and CIDRs of networks are taken from the beginning. So another one can have them only if none is
    on its way.
    """
    image = engine.attempt("inspect", "--format", "{{.Image}}", packages.CONTAINER)
    if image.returncode:
        return  # nothing has been created here: the package server comes before everything else
    probes = [probe for probe in _probes(stack, image.stdout.decode().strip()) if probe.resource not in complete]
    with ThreadPoolExecutor(PROBES) as pool:
        list(pool.map(lambda probe: _wait_for(engine, probe), probes))


def _probes(stack: str, image: str) -> list[_Probe]:
    """Return a probe for each container and network of a stack. One whose file is broken has
    been created from another file.
    """
    probes = [_container(part_name(CLUSTER, KIND), node_name(stack), image)]
    try:
        settings = load_file(stack, paths.ROOT / "stacks")
    except (SettingsError, yaml.YAMLError):
        return probes
    machines = settings.machines_of_type(DockerMachine)
    probes += [_container(part_name(machine, CONTAINER), docker_name(stack, machine), image) for machine in machines]
    for network in sorted(settings.docker_networks):
        name, cidr = docker_name(stack, network), str(docker_cidr(settings, network))
        listed = ("network", "ls", "--quiet", "--filter", f"name=^{name}$")
        create = ("network", "create", "--subnet", cidr, "--label", stack_label(stack), name)
        probes.append(_Probe(network_resource_name(network), listed, create, ("network", "rm", name), NETWORK_CREATION_S))
    return probes


def _container(resource: str, name: str, image: str) -> _Probe:
    listed = ("ps", "--all", "--quiet", "--filter", f"name=^{name}$")
    create = ("create", "--name", name, image)
    return _Probe(resource, listed, create, ("rm", "--volumes", name), CREATION_S)


def _wait_for(engine: Engine, probe: _Probe) -> None:
    """Wait until what a probe is for is listed, or something can be created in its place."""
    until = time.monotonic() + probe.seconds
    while time.monotonic() < until:
        if engine.docker(*probe.listed):
            return
        if not engine.attempt(*probe.create).returncode:
            engine.docker(*probe.remove)
            return
        time.sleep(0.2)


def _used_by_other_checkouts(engine: Engine) -> bool:
    """Whether the engine holds a network of any stack: package server and images are one for all
    labs of a machine.
    """
    return bool(engine.docker("network", "ls", "--quiet", "--filter", f"label={STACK_LABEL}"))


def _remove_images(engine: Engine) -> None:
    """Remove the images that the lab made, in an engine that stays."""
    if images_of_lab := sorted(set(engine.docker("image", "ls", "--quiet", "--filter", f"label={images.LABEL}").split())):
        engine.attempt("image", "rm", "--force", *images_of_lab)
