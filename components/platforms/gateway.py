"""A network's gateway as clients outside of the network see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """`addresses` are where calls into a network go, by the name of what takes them there; `ready` exists once it does."""

    addresses: Mapping[str, pulumi.Output[str]]
    ready: Sequence[pulumi.Resource]
