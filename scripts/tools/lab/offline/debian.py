"""Debian packages that the lab needs on the machine itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.process import Command
from tools.steps import Step, StepError

PROVIDES = {
    "ca-certificates": "update-ca-certificates",
    "curl": "curl",
    "dash": "dash",
    "docker.io": "dockerd",
    "fish": "fish",
    "gcc": "gcc",
    "iproute2": "ip",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "openssh-client": "ssh-keygen",
    "openssh-server": "sshd",
    "shellcheck": "shellcheck",
    "shfmt": "shfmt",
    "systemd": "systemd-analyze",
    "tcsh": "tcsh",
    "xz-utils": "xz",
    "zsh": "zsh",
}
"""The program that each package is wanted for: where the machine has it from elsewhere, the
package is not needed.
"""

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Written by istio-vm-mesh while it installs packages, so that their services are not started.\nexit 101\n"
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def missing(packages: Sequence[str]) -> list[str]:
    """Return those of the packages that this machine has neither as a package nor as the program
    that they are wanted for.
    """
    return [package for package in packages if not _installed(package)]


def _installed(package: str) -> bool:
    if (program := PROVIDES.get(package)) and shutil.which(program, path=_PATH):
        return True
    if not shutil.which("dpkg-query"):
        return False
    query = subprocess.run(["dpkg-query", "-W", "-f=${db:Status-Status}", package], capture_output=True, text=True, check=False)
    return query.stdout == "installed"


def ensure(step: Step, packages: Sequence[str]) -> None:
    """Install what is missing of the packages, without recommendations and without starting their
    services.

    Raises StepError, naming the packages, where this user or this machine cannot install them.
    """
    if POLICY.exists() and POLICY.read_text() == POLICY_TEXT:
        POLICY.unlink()  # left by a run that was killed
    if not (wanted := missing(packages)):
        return
    names = " ".join(wanted)
    if not shutil.which("apt-get"):
        raise StepError(f"programs are missing here: {names} (Debian's names)", "install them with this system's package manager")
    if os.geteuid() != 0:
        raise StepError(f"Debian packages are missing: {names}", f"run `sudo apt-get install --no-install-recommends {names}`")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *wanted]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = Command(command, env=environment)
    step.note(f"installing {names}")
    with _services_stay_off():
        if step.run(install, progress=_progress, check=False).code:
            # A run that was killed may have left packages half-installed.
            step.run(
                Command(["dpkg", "--configure", "--pending"], env=environment), hint="see to it that `dpkg --configure --pending` works"
            )
            # The lists are absent in a fresh image, or too old: then the files that they name are
            # gone.
            step.run(Command(["apt-get", "update"], env=environment), progress=_progress, hint="see to it that `apt-get update` works")
            step.run(install, progress=_progress, hint=f"see to it that `apt-get install {names}` works")
    if still := missing(wanted):
        raise StepError(f"apt-get installed {' '.join(still)}, but the programs are not there")


def _progress(line: str) -> str | None:
    return line if line.startswith(("Get:", "Unpacking ", "Setting up ")) else None


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """A policy for invoke-rc.d that forbids starting services, unless this machine has one of
    its own.
    """
    if POLICY.exists():
        yield
        return
    POLICY.write_text(POLICY_TEXT)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
