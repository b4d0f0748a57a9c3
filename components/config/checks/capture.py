"""Rules for what a machine's proxy does not capture."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ...names import MACHINE_PORTS
from ..addresses import is_port, parse_cidr
from ..capture import Capture
from ..problems import Problem
from ..stack import Settings

# Linux: IFNAMSIZ is 16 with the final zero. iptables reads a final + as a pattern.
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_DNS = 53


def check(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with the exclusions of workloads and machines."""
    for name, workload in settings.workloads.items():
        yield from _check(f"workloads.{name}.capture", workload.capture, workload.ports.values())
    for name, machine in settings.machines.items():
        runs = settings.workloads.get(machine.workload)
        ports = runs.ports.values() if runs else ()
        yield from _check(f"machines.{name}.capture", machine.capture, ports)


def _check(path: str, capture: Capture, ports: Collection[int]) -> Iterator[Problem]:
    for index, port in enumerate(capture.exclude_inbound_ports):
        place = f"{path}.excludeInboundPorts[{index}]"
        if not is_port(port):
            yield Problem(place, f"{port} is not a port: expected 1 to 65535")
        elif port in MACHINE_PORTS:
            yield Problem(place, f"port {port} is Istio's own on every machine: leave it out")
        elif port in ports:
            yield Problem(
                place,
                f"port {port} is a port of the workload, which the mesh reaches by the proxy "
                "alone: leave it out",
            )
    for index, port in enumerate(capture.exclude_outbound_ports):
        place = f"{path}.excludeOutboundPorts[{index}]"
        if not is_port(port):
            yield Problem(place, f"{port} is not a port: expected 1 to 65535")
        elif port == _DNS:
            yield Problem(
                place, "port 53 is DNS, by which names of the mesh are resolved: leave it out"
            )
    for index, cidr in enumerate(capture.exclude_outbound_cidrs):
        try:
            parse_cidr(cidr)
        except ValueError as error:
            yield Problem(
                f"{path}.excludeOutboundCidrs[{index}]",
                f"expected a CIDR such as 10.0.0.0/24 or fd00::/8; {error}",
            )
    for index, name in enumerate(capture.exclude_interfaces):
        place = f"{path}.excludeInterfaces[{index}]"
        if not _INTERFACE.fullmatch(name):
            yield Problem(
                place,
                f"{name!r} is not an interface: expected one name as `ip link` shows it, up to 15 "
                "letters, digits, '_', '.' and '-'",
            )
        elif name == "lo":
            yield Problem(
                place, "connections of a machine to itself are never redirected: leave it out"
            )
