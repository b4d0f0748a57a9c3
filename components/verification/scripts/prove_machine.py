"""Runs a script of the verification on a machine over SSH, and returns the evidence that it prints."""

from __future__ import annotations

from ...local import over_ssh
from ..evidence import Evidence, parse

Payload = over_ssh.Payload


def run(payload: Payload) -> Evidence:
    """Run the script. Raises scripting.Failed where it did not run, or not to its end."""
    return parse(over_ssh.run(payload).stdout)
