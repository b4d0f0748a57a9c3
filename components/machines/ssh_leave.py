"""What the OpenSSH client of the machine that runs Pulumi needs to reach a machine."""

from __future__ import annotations

from .. import shell
from ..config.existing import SshMachine
from .bootstrap import leave_script

TIME_LIMIT_S = 120  # of what runs on the machine


def known_hosts(machine: SshMachine) -> str:
    """Lines for a known_hosts file; "" where the stack accepts any host key of the machine.

    OpenSSH looks a host on port 22 up by its name alone, and on any other port as `[name]:port` (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
    """
    hops = [hop for hop in (machine, machine.bastion) if hop and hop.host_key]
    hosts = [hop.host if hop.port == 22 else f"[{hop.host}]:{hop.port}" for hop in hops]
    return "\n".join(f"{host} {hop.host_key}" for host, hop in zip(hosts, hops, strict=True)) if machine.host_key else ""


def leave_over_ssh_script(name: str, machine: SshMachine, private_key: str) -> str:
    """The script that has a machine leave the mesh over SSH. Holds the private key: a secret as a whole."""
    bastion = machine.bastion
    variables: dict[str, str | int] = {
        "MACHINE": name,
        "HOST": machine.host,
        "PORT": machine.port,
        "SSH_USER": machine.user,
        "COMMAND": shell.REMOTE,
        "KNOWN_HOSTS": known_hosts(machine),
        "KEY_BASE64": shell.b64encode(private_key if private_key.endswith("\n") else f"{private_key}\n"),
        "BASTION": f"{bastion.user}@{bastion.host}" if bastion else "",
        "BASTION_PORT": bastion.port if bastion else 22,
        "LEAVE_BASE64": shell.b64encode(shell.run_as_root(leave_script(name), TIME_LIMIT_S)),
    }
    return shell.local_script("machines/leave-over-ssh", variables)
