"""Rules for machines on Google Cloud: single ones, instance groups and networks' gateways."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...names import gateway_group_name, gateway_workload_name
from ..google import DEBIAN, GceInstanceGroup, GkeCluster, Google, GoogleMachine
from ..google_machine_types import is_arm64, needs_hyperdisk, refused_disks, takes_hyperdisk
from ..mesh import NetworkGateway
from ..problems import Problem, suggestion
from ..stack import Settings
from .names import check_google_name, longest_of_gateway, longest_of_group, longest_of_workload
from .texts import check_image, check_machine_image, check_machine_type

_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
_WITHOUT_ZONE_A = ("europe-west1", "us-east1")
"""Regions whose zones begin with b (Compute Engine: "Available regions and zones")."""
_TOKENS_OF_GROUPS = (
    "the machines of an instance group issue tokens at a GKE cluster of this stack: use gke, or "
    "single machines"
)
_SMALLEST_DISK, _LARGEST_DISK = 10, 65536
"""GB: what Google's images need at least, and the most that a disk has."""
_MOST_SCRIPT = 256 * 1024
"""Bytes of a value of metadata (Compute Engine: "About VM metadata")."""
_MOST_GROUP_SCRIPT = 128 * 1024
"""Bytes of a startup script that is, encoded, a part of the program's own."""


def check_gateways(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with gateway machines, as far as it is of Compute Engine."""
    for name, network in settings.networks.items():
        if network.gateway is None:
            continue
        if settings.has_subnets(name):
            yield from _check_gateway(name, network.gateway, settings)
        else:
            yield from _check_gateway_elsewhere(f"networks.{name}.gateway", network.gateway)


def _check_gateway_elsewhere(path: str, gateway: NetworkGateway) -> Iterator[Problem]:
    """Yield problems of gateway machines in a network without a subnet on Google Cloud."""
    if gateway.image is not None:
        yield from check_image(f"{path}.image", gateway.image)
    of_google = {
        "zones": gateway.zones,
        "subnet": gateway.subnet,
        "machineType": gateway.machine_type,
        "group": gateway.group,
    }
    for key in (key for key, value in of_google.items() if value):
        yield Problem(
            f"{path}.{key}",
            "is of gateway machines on Compute Engine, and this network has no subnet: "
            "leave it out",
        )


def _check_gateway(network: str, gateway: NetworkGateway, settings: Settings) -> Iterator[Problem]:
    """Yield problems of gateway machines on Compute Engine."""
    path, google = f"networks.{network}.gateway", settings.google
    if gateway.image is not None:
        yield from check_machine_image(f"{path}.image", gateway.image)
    if gateway.machine_type is not None:
        image = gateway.image or DEBIAN
        yield from check_machine_type(f"{path}.machineType", gateway.machine_type)
        yield from check_architecture(f"{path}.image", image, gateway.machine_type)
    if not gateway.zones:
        yield Problem(f"{path}.zones", "is missing: give the zones of the gateway machines")
    if google:
        for index, zone in enumerate(gateway.zones):
            yield from check_zone(f"{path}.zones[{index}]", zone, google)
    yield from _check_gateway_names(network, gateway, settings)
    if gateway.group and not isinstance(settings.cluster, GkeCluster):
        yield Problem(f"{path}.group", _TOKENS_OF_GROUPS)
    subnets = settings.machine_subnets(network)
    if gateway.subnet is None and len(subnets) > 1:
        yield Problem(f"{path}.subnet", f"is missing: give one of {', '.join(sorted(subnets))}")
    elif gateway.subnet is not None and gateway.subnet not in subnets:
        hint = suggestion(gateway.subnet, subnets)
        yield Problem(
            f"{path}.subnet",
            f"{gateway.subnet!r} is not a subnet for machines of this network{hint}",
        )


def _check_gateway_names(
    network: str, gateway: NetworkGateway, settings: Settings
) -> Iterator[Problem]:
    """Yield resources of gateway machines whose names would be too long."""
    path, subnets = f"networks.{network}.gateway", settings.machine_subnets(network)
    subnet = subnets.get(gateway.subnet or next(iter(subnets), ""))
    if subnet is None or settings.google is None:
        return
    longest = longest_of_workload(subnet.vpc, gateway_workload_name(network))
    yield from check_google_name(path, longest)
    yield from check_google_name(path, longest_of_gateway(network))
    if gateway.group:
        yield from check_google_name(path, longest_of_group(gateway_group_name(network)))


def check_machine(
    path: str, machine: GoogleMachine, settings: Settings, google: Google
) -> Iterator[Problem]:
    """Yield what is wrong with a machine, or with an instance group."""
    subnets = settings.machine_subnets(machine.network)
    if machine.subnet is not None and machine.subnet not in subnets:
        hint = suggestion(machine.subnet, subnets)
        yield Problem(
            f"{path}.subnet",
            f"{machine.subnet!r} is not a subnet for machines of the network "
            f"{machine.network}{hint}",
        )
    elif machine.subnet is None and len(subnets) != 1 and machine.network in settings.networks:
        has = "has no subnet for machines: add one"
        if subnets:
            has = f"has {len(subnets)} subnets for machines ({', '.join(subnets)}): name one"
        yield Problem(
            f"{path}.subnet",
            f"the network {machine.network} {has} (the cluster's own is not for machines)",
        )
    elif subnets:
        vpc = google.subnets[settings.subnet_of(machine)].vpc
        yield from check_google_name(f"{path}.workload", longest_of_workload(vpc, machine.workload))
    if isinstance(machine, GceInstanceGroup):
        yield from _check_group(path, machine, settings, google)
    else:
        yield from check_zone(f"{path}.zone", machine.zone, google)
    yield from check_machine_image(f"{path}.image", machine.image)
    yield from check_machine_type(f"{path}.machineType", machine.machine_type)
    yield from check_disk(f"{path}.diskType", machine.disk_type, machine.machine_type)
    yield from check_architecture(f"{path}.image", machine.image, machine.machine_type)
    yield from check_disk_size(f"{path}.diskSize", machine.disk_size)
    yield from _check_startup_script(f"{path}.startupScript", machine)


def _check_startup_script(path: str, machine: GoogleMachine) -> Iterator[Problem]:
    script = machine.startup_script
    if script is None:
        return
    most = _MOST_GROUP_SCRIPT if isinstance(machine, GceInstanceGroup) else _MOST_SCRIPT
    if len(script.encode()) > most:
        yield Problem(
            path,
            f"has {len(script.encode())} bytes, and Google's metadata takes {most} of it: put the "
            "rest into the image, or fetch it",
        )
    if not script.startswith("#!"):
        yield Problem(
            path,
            "expected a script whose first line names its interpreter, such as #!/bin/bash",
        )


def _check_group(
    path: str, group: GceInstanceGroup, settings: Settings, google: Google
) -> Iterator[Problem]:
    for index, zone in enumerate(group.zones):
        yield from check_zone(f"{path}.zones[{index}]", zone, google)
    if len(set(group.zones)) != len(group.zones):
        yield Problem(f"{path}.zones", "name a zone twice: give each once")
    yield from check_google_name(path, longest_of_group(group.name))
    if not 0 < group.min_replicas <= group.max_replicas:
        yield Problem(
            path,
            "expected 0 < minReplicas <= maxReplicas; "
            f"got {group.min_replicas} and {group.max_replicas}",
        )
    if not 0 < group.target_cpu <= 1:
        yield Problem(
            f"{path}.targetCpu", f"expected more than 0 and at most 1; got {group.target_cpu}"
        )
    if not isinstance(settings.cluster, GkeCluster):
        yield Problem(
            f"{path}.platform",
            _TOKENS_OF_GROUPS,
        )


def check_zone(path: str, zone: str, google: Google) -> Iterator[Problem]:
    """Yield a problem for a zone that is in another region, or nowhere."""
    if not _ZONE.fullmatch(zone) or not zone.startswith(f"{google.region}-"):
        yield Problem(
            path,
            f"{zone!r} is not a zone of {google.region}: expected one such as {google.region}-b",
        )
    elif zone.endswith("-a") and google.region in _WITHOUT_ZONE_A:
        yield Problem(path, f"the zones of {google.region} begin with {google.region}-b")


def check_architecture(path: str, image: str, machine_type: str) -> Iterator[Problem]:
    """Yield a problem for the default image where the processors are others than its own."""
    if is_arm64(machine_type) and image == DEBIAN:
        yield Problem(
            path,
            f"is missing: {machine_type} has ARM processors, and the default image is for x86; "
            f"give one such as {DEBIAN}-arm64",
        )


def check_disk(path: str, disk_type: str | None, machine_type: str) -> Iterator[Problem]:
    """Yield a problem for a type of disk that the machine type does not boot from."""
    if disk_type is None:
        return
    if disk_type.startswith("pd-") and needs_hyperdisk(machine_type):
        yield Problem(path, f"{machine_type} takes no Persistent Disk: use hyperdisk-balanced")
    elif disk_type in refused_disks(machine_type):
        yield Problem(path, f"{machine_type} takes no {disk_type}: use pd-balanced")
    if disk_type.startswith("hyperdisk-") and not takes_hyperdisk(machine_type):
        yield Problem(path, f"{machine_type} does not boot from Hyperdisk: use pd-balanced")


def check_disk_size(path: str, disk_size: int) -> Iterator[Problem]:
    """Yield a problem for a boot disk that is too small or too large."""
    if not _SMALLEST_DISK <= disk_size <= _LARGEST_DISK:
        yield Problem(path, f"expected {_SMALLEST_DISK} to {_LARGEST_DISK} GB; got {disk_size}")
