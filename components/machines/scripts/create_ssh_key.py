"""Makes an SSH key pair."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...local import scripting


@dataclass(frozen=True)
class Payload:
    """A key.

    comment: the public key's comment.
    key_type: "ed25519" or "ecdsa", as ssh-keygen takes it.
    """

    comment: str
    key_type: str = "ed25519"


@dataclass(frozen=True)
class Result:
    """Both halves, in OpenSSH's formats."""

    private: str = field(repr=False)
    public: str


def run(payload: Payload) -> Result:
    """Make the key."""
    with scripting.private_directory() as directory:
        key = directory / "key"
        words = ["ssh-keygen", "-q", "-t", payload.key_type, "-N", "", "-C", payload.comment]
        scripting.check([*words, "-f", str(key)], "ssh-keygen could not create a key")
        return Result(key.read_text(), key.with_suffix(".pub").read_text().strip())
