"""Waits until a Compute Engine machine has published its SSH host key.

The key is a guest attribute, which only the machine itself can write.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic, sleep

from ....local import scripting

TIMEOUT_S, PAUSE_S = 300, 3


@dataclass(frozen=True)
class Payload:
    """A machine on Google Cloud.

    project, zone, instance: names on Google Cloud.
    key_type: of the host key, as OpenSSH and the guest attribute name it.
    """

    project: str
    zone: str
    instance: str
    key_type: str


@dataclass(frozen=True)
class Result:
    """Type and key in base64."""

    host_key: str


def run(payload: Payload) -> Result:
    """Wait for the key. Raises scripting.Failed after `TIMEOUT_S` seconds."""
    words = ["gcloud", "compute", "instances", "get-guest-attributes", payload.instance]
    words += ["--project", payload.project, "--zone", payload.zone, "--quiet"]
    words += [f"--query-path=hostkeys/{payload.key_type}", "--format=value(value)"]
    end = monotonic() + TIMEOUT_S
    while True:
        done = scripting.call(words, timeout_s=60)
        if done.status == 0 and done.text:
            return Result(f"{payload.key_type} {done.text}")
        if monotonic() + PAUSE_S > end:
            raise scripting.Failed(
                f"{payload.instance} published no host key of the type {payload.key_type} within "
                f"{TIMEOUT_S} s: does its image have Google's guest agent, and such a key "
                "(google.ssh.keyType)? "
                f"gcloud printed: {done.error or done.text or 'nothing'}"
            )
        sleep(PAUSE_S)
