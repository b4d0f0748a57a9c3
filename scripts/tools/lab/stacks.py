"""Stacks of the lab beside `lab`: their files, their state, and SSH to their machines.

Tests and measurements use them. The stack `lab` and those of other checkouts can be up meanwhile.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.config import reader
from components.names import SSH_KEY, config_key, is_part, part_name
from components.platforms.docker.names import CONTAINER, SSH_USER
from tools.mesh_status.read_state import revealed
from tools.steps import StepError

from . import engine, locks

Config = dict[str, Any]
"""The configuration of a stack file, keys without the project's name."""
Resources = Mapping[str, dict[str, Any]]
"""The resources of a state, by name."""
LAB_CIDRS = ipaddress.IPv4Network("172.31.16.0/20")
"""Of the networks of these stacks."""


def write_stack_file(directory: Path, scenario: str, stack: str, change: Callable[[Config], None]) -> None:
    """Write a stack file from that of another stack.

    directory: of both files. scenario: the stack whose file is read. change: changes its
        configuration.
    """
    document = reader.read_document(scenario, directory)
    config = {key.removeprefix(config_key("")): value for key, value in document["config"].items()}
    change(config)
    document["config"] = {config_key(key): value for key, value in config.items()}
    reader.file_of(stack, directory).write_text(yaml.safe_dump(document, sort_keys=False))


def set_cidrs(config: Config, cidrs: Sequence[str]) -> None:
    """Give each network of a configuration one of as many CIDRs."""
    for network, cidr in zip(config["networks"].values(), cidrs, strict=True):
        network["cidrs"] = [cidr]


def free_cidrs(count: int) -> list[str]:
    """Return CIDRs for networks of the container engine, which overlap none that it has.

    No other process on this machine gets them until this one has ended: it creates their networks
    later. Raises StepError where fewer are left.
    """
    candidates = LAB_CIDRS.subnets(new_prefix=24)
    with locks.shared_lock():
        # Their order matters: a process that ends has created its networks before.
        free = (str(each) for each in candidates if locks.reserve(f"network-{each.network_address}") and not _overlaps(each))
        cidrs = list(itertools.islice(free, count))
    if len(cidrs) < count:
        raise StepError(
            f"fewer than {count} networks of {LAB_CIDRS} are free", "take other labs down, or remove networks: docker network ls"
        )
    return cidrs


def _overlaps(cidr: ipaddress.IPv4Network) -> bool:
    """Whether a network of the container engine has addresses of a CIDR."""
    answering = engine.find()
    if not answering:
        return False
    names = answering.docker("network", "ls", "--quiet").split()
    subnets = answering.docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", *names)
    return any(cidr.overlaps(ipaddress.IPv4Network(each)) for each in subnets.split() if ":" not in each)


def resources_of(exported: str) -> dict[str, dict[str, Any]]:
    """Return the resources of an exported state by name, secrets as plain values."""
    deployment = revealed(json.loads(exported))["deployment"]
    return {each["urn"].rpartition("::")[2]: each for each in deployment["resources"]}


def command_result(resource: Mapping[str, Any]) -> dict[str, str]:
    """Return what a command beside Pulumi returned."""
    result: dict[str, str] = json.loads(resource["outputs"]["stdout"])
    return result


def write_private(file: Path, text: str) -> Path:
    """Write a file that only this user can read, in one step: another thread may be reading it."""
    descriptor, new = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    os.replace(new, file)
    return file


def ssh_options(resources: Resources, machine: str, directory: Path, prefix: str = "") -> tuple[list[str], str]:
    """Return how `ssh` and `scp` reach a machine with the program's key and the pinned host keys.

    directory: of files that only this user can read. prefix: of the names of files there.

    Returns their options, and `user@address`.
    """
    containers = [command_result(each) for name, each in resources.items() if is_part(name, CONTAINER)]
    known_hosts = "".join(f"{each['address']} {each['host_key']}\n" for each in containers)
    options = {
        "IdentityFile": write_private(directory / f"{prefix}key", command_result(resources[SSH_KEY])["private"]),
        "UserKnownHostsFile": write_private(directory / f"{prefix}known-hosts", known_hosts),
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
    }
    address = command_result(resources[part_name(machine, CONTAINER)])["address"]
    return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())], f"{SSH_USER}@{address}"
