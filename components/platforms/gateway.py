"""A network's gateway as clients outside of the network see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """The gateway of a network.

    addresses: the addresses for requests into the network, by the gateway's or machine's name.
    ready: the resources that must exist before it forwards requests.
    revision: changes whenever its machines joined again, or others take their place.
    """

    addresses: Mapping[str, pulumi.Output[str]]
    ready: Sequence[pulumi.Resource]
    revision: pulumi.Output[str]
