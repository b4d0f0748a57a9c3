"""Removes a container or a network of a stack from a Docker engine.

One that is missing is no error. One of others, which has the name by now, stays.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ....local import scripting

CONTAINER, NETWORK = "container", "network"
_LISTING = {CONTAINER: ("ps", "--all"), NETWORK: ("network", "ls")}
_REMOVAL = {CONTAINER: ("rm", "--force", "--volumes"), NETWORK: ("network", "rm")}


@dataclass(frozen=True)
class Payload:
    """What to remove.

    kind: `CONTAINER` or `NETWORK`.
    name: its name in Docker.
    label: `key=value`, for what belongs to the stack.
    """

    kind: str
    name: str
    label: str


def run(payload: Payload) -> None:
    """Remove it. Raises scripting.Failed with Docker's last words."""
    kind, name = payload.kind, payload.name
    label, _, stack = payload.label.partition("=")
    words = ["docker", *_LISTING[kind], "--no-trunc", "--filter", f"name=^{name}$", "--format", f'{{{{.ID}}}} {{{{.Label "{label}"}}}}']
    listed = scripting.check(words, f"Docker does not list the {kind} {name}").text
    if not listed:
        return
    identifier, _, present = listed.partition(" ")
    if present != stack:
        whose = f"of the stack {present}" if present else "not of this program"
        print(f"the {kind} {name} is {whose} by now, and stays", file=sys.stderr)
        return
    scripting.check(["docker", *_REMOVAL[kind], identifier], f"Docker could not remove the {kind} {name}")
