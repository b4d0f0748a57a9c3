"""SSH servers of a stack file, as ssh is given them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..config.checks.existing import SshServer
from ..config.problems import Problem, SettingsError
from ..local import openssh, private_files, scripting, ssh_identity
from .ssh_key import stack_directory


def require_ssh() -> None:
    """Raise SettingsError, in the preview already, where ssh is not on PATH."""
    if not shutil.which("ssh"):
        fix = "install OpenSSH's client on the computer that runs Pulumi"
        raise SettingsError([Problem("machines", f"are reached by ssh, which is not on PATH: {fix}")])


def key_problems(path: str, server: SshServer) -> Iterator[Problem]:
    """Yield why ssh cannot use the private key of a server: the environment's, else its file."""
    if text := os.environ.get(openssh.KEY_VARIABLE):
        key, check = openssh.KEY_VARIABLE, partial(ssh_identity.text_problem, text)
    elif server.private_key:
        key = f"{path}.privateKey"
        check = partial(ssh_identity.problem, server.private_key, server.host)
    else:
        return
    try:
        problem = check()
    except scripting.Failed as error:
        problem = str(error)
    if problem:
        yield Problem(key, problem)


def hop_of(server: SshServer, *name: str) -> openssh.Hop:
    """Return a server as ssh is given it.

    name: of the link to its private key, which is the same whatever the key's path is.
    """
    identity = private_files.reference(stack_directory(), private_files.IDENTITIES, *name)
    key = server.private_key
    try:
        private_files.link(identity, Path(key).expanduser().absolute() if key else None)
    except OSError as error:
        raise SettingsError([Problem("/".join(name), str(error))]) from None
    return openssh.Hop(
        host=server.host,
        port=server.port,
        user=server.user,
        host_key=server.host_key,
        accept_any_host_key=server.accept_any_host_key,
        identity_file=identity,
    )
