"""The SSH key of a stack, with which the program reaches the machines that it makes."""

from __future__ import annotations

from typing import NamedTuple

import pulumi

from .. import commands
from ..names import PROJECT, SSH_KEY
from .scripts import create_ssh_key


class SshKey(NamedTuple):
    """A key pair; `private` is secret."""

    private: pulumi.Output[str]
    public: pulumi.Output[str]


def ssh_key() -> SshKey:
    """Make the stack's SSH key, once; it lives in the state, encrypted, and in no file."""
    command = commands.local_command(
        SSH_KEY,
        commands.Script(create_ssh_key, create_ssh_key.Payload(comment=PROJECT)),
        # Nothing makes another key: the machines have this one.
        pulumi.ResourceOptions(ignore_changes=["create", "stdin"]),
        options=commands.CommandOptions(secret_result=True, quiet=True),
    )
    pair = commands.result(command, create_ssh_key.Result)
    return SshKey(
        private=pair.apply(lambda key: key.private),
        public=pulumi.Output.unsecret(pair.apply(lambda key: key.public)),
    )
