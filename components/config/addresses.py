"""IP addresses, CIDRs and DNS names."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

DNS_NAME = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def within(address: str, ranges: tuple[str, ...]) -> bool:
    """Whether an address lies in one of the ranges; what is no range has none."""
    found = ip_address(address)
    for text in ranges:
        try:
            if found in ip_network(text):
                return True
        except ValueError:
            continue
    return False


def is_address(text: str) -> bool:
    """Whether `text` is an IP address, rather than a name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
