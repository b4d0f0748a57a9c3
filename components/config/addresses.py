"""IP addresses, CIDRs, DNS names and ports as stack files have them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

DNS_NAME = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def is_address(text: str) -> bool:
    """Return whether `text` is an IP address, rather than a name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_port(number: int) -> bool:
    """Return whether `number` is a TCP port."""
    return 0 < number < 65536


def parse_cidr(text: str) -> IPv4Network | IPv6Network:
    """Return a CIDR, or an address as one.

    Raises ValueError for everything else, also for masks and zones, which Python takes and
    Kubernetes, Google Cloud and Istio do not.
    """
    cidr = ip_network(text)
    if "%" in text or text.partition("/")[2] not in ("", str(cidr.prefixlen)):
        raise ValueError(f"{text!r} has a zone, or another length than a number of bits")
    return cidr


def ipv4_cidr(text: str) -> IPv4Network | None:
    """Parse an IPv4 CIDR; returns None for everything else."""
    try:
        cidr = parse_cidr(text)
    except ValueError:
        return None
    return cidr if isinstance(cidr, IPv4Network) else None


def within(address: str, cidrs: Iterable[str]) -> bool:
    """Return whether an IP address lies in one of the CIDRs. Invalid CIDRs contain none."""
    parsed = ip_address(address)
    for text in cidrs:
        try:
            if parsed in ip_network(text):
                return True
        except ValueError:
            continue
    return False
