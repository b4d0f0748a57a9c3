"""Waits until a Compute Engine machine has published its SSH host key.

The key is a guest attribute, which only the machine itself can write.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from time import monotonic, sleep

from ....local import scripting

TIMEOUT_S, PAUSE_S = 300, 3
POLICY = "compute.disableGuestAttributesAccess"
"""The organisation policy under which a machine publishes nothing."""
WITHOUT_SSH = (
    "an instance group with minReplicas: 1 and maxReplicas: 1 needs no SSH, nor does a network's gateway with group: true (docs/google.md)"
)


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
    """Wait for the key.

    gcloud may print more than the key: warnings of a login by another account, of Python, of a
    wrapper. A line is the key where it is one.

    Raises scripting.Failed after `TIMEOUT_S` seconds, and at once where a policy of the
    organisation forbids guest attributes.
    """
    words = ["gcloud", "compute", "instances", "get-guest-attributes", payload.instance]
    words += ["--project", payload.project, "--zone", payload.zone, "--quiet"]
    words += [f"--query-path=hostkeys/{payload.key_type}", "--format=value(value)"]
    end = monotonic() + TIMEOUT_S
    while True:
        done = scripting.call(words, timeout_s=60)
        keys = [line.strip() for line in done.text.splitlines() if _is_key(line.strip(), payload.key_type)]
        if done.status == 0 and keys:
            return Result(f"{payload.key_type} {keys[-1]}")
        if POLICY in done.error:
            raise scripting.Failed(
                f"{payload.instance} cannot publish its SSH host key, because a policy of the "
                f"organisation ({POLICY}) forbids guest attributes: {WITHOUT_SSH}"
            )
        if monotonic() + PAUSE_S > end:
            raise scripting.Failed(
                f"{payload.instance} published no host key of the type {payload.key_type} within "
                f"{TIMEOUT_S} s: does its image have Google's guest agent, and such a key "
                f"(google.ssh.keyType)? Or does a policy of the organisation ({POLICY}) forbid guest "
                f"attributes? Then {WITHOUT_SSH}. "
                f"gcloud printed: {done.error or done.text or 'nothing'}"
            )
        sleep(PAUSE_S)


def _is_key(text: str, key_type: str) -> bool:
    """Return whether a text is a public key of a type, which the key itself names (RFC 4253, 6.6)."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    kind = key_type.encode()
    return key.startswith(len(kind).to_bytes(4, "big") + kind)
