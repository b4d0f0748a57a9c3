"""The SSH key of a stack, with which the program reaches the machines that it makes."""

from __future__ import annotations

from typing import NamedTuple

import pulumi
from pulumi_command import local

from .. import shell


class SshKey(NamedTuple):
    """A key pair; `private` is secret."""

    private: pulumi.Output[str]
    public: pulumi.Output[str]


def ssh_key() -> SshKey:
    """Make the stack's SSH key, once; it lives in the state, encrypted, and in no file."""
    made = local.Command(
        "ssh-key",
        create=shell.LOCAL,
        stdin=shell.local_script("machines/ssh-key", {}),
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(additional_secret_outputs=["stdout"]),
    )
    results = made.stdout.apply(shell.parse_results)
    return SshKey(
        private=results.apply(lambda found: shell.b64decode(found["private"])),
        public=pulumi.Output.unsecret(results.apply(lambda found: shell.b64decode(found["public"]).strip())),
    )
