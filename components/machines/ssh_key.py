"""The SSH key with which a program reaches the machines that it creates."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from .. import commands
from ..local import private_files
from ..names import PROJECT
from .scripts import create_ssh_key, remove_ssh_key


@dataclass(frozen=True)
class SshKey:
    """A key pair.

    file: the reference of the private key's file. public: the public key. resource: its resource.
    """

    file: pulumi.Output[str]
    public: pulumi.Output[str]
    resource: pulumi.Resource


def stack_directory() -> str:
    """Return `<organization>/<project>/<stack>`, which private files of this stack are under."""
    organization = pulumi.get_organization() or "organization"
    return f"{organization}/{pulumi.get_project()}/{pulumi.get_stack()}"


def ssh_key(name: str, key_type: str = "ed25519") -> SshKey:
    """Create an SSH key, once.

    name: the resource's name, and the private file's. key_type: "ed25519" or "ecdsa".

    The private key is in the state of this resource, encrypted, and in a private file of the user
    who runs the program. It is an input of no other resource.
    """
    file = private_files.reference(stack_directory(), name)
    command = commands.local_command(
        name,
        commands.Script(create_ssh_key, create_ssh_key.Payload(comment=PROJECT, key_type=key_type)),
        # Nothing creates another key: the machines have this one.
        pulumi.ResourceOptions(ignore_changes=["create", "stdin"]),
        delete=commands.Script(remove_ssh_key, remove_ssh_key.Payload(file)),
        options=commands.CommandOptions(secret_result=True, quiet=True),
    )
    pair = commands.result(command, create_ssh_key.Result)

    def written(key: create_ssh_key.Result) -> str:
        private_files.write(file, key.private)
        return file

    return SshKey(
        file=pulumi.Output.unsecret(pair.apply(written)),
        public=pulumi.Output.unsecret(pair.apply(lambda key: key.public)),
        resource=command,
    )
