"""Where everything of the lab lives, and the environment in which Pulumi and the tools are called.

Standard library only: the launcher imports this module before the virtual environment exists.
"""

from __future__ import annotations

import os
from pathlib import Path

from tools import ROOT, VENV

LAB = ROOT / ".lab"
"""The working lab; ignored by git."""
BIN = LAB / "bin"
"""Links to the tools in use; first on PATH."""
HOME = LAB / "home"
"""PULUMI_HOME."""
STATE = LAB / "state"
"""Pulumi's file backend; mode 0700, because it holds keys and tokens."""
CHARTS = LAB / "charts"
"""Istio's charts as base/, istiod/ and gateway/."""
PACKAGE_DIGEST = LAB / "istio-sidecar.deb.sha256"
"""SHA-256 of the sidecar's package, which stack files of the lab name."""
GATEWAY_API = LAB / "gateway-api"
"""The Gateway API's CRDs."""
RUN = LAB / "run"
"""Files of running processes: locks, pids, sockets."""
TMP = RUN / "tmp"
"""TMPDIR of Pulumi and what it calls: kubeconfigs and image archives, which a killed run leaves,
go with the next command.
"""
DOCKER_HOST = RUN / "docker-host"
"""The address of the lab's own container engine, on one line; absent when the machine's engine
is used.
"""

LOCKS, UNFINISHED = ".locks", ".unfinished"
"""Directories in the cache: of its locks, and of what is being made."""

STACK = "lab"
PASSPHRASE = "lab"
"""Of the stack's secrets. Public on purpose: the state is protected by the mode of its
directory.
"""


def cache() -> Path:
    """Return the cache directory; it is shared by all checkouts and survives `down`.

    The variable names a directory that may hold other things, so the cache is a directory in it.
    """
    chosen = os.environ.get("ISTIO_VM_MESH_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return Path(chosen or Path.home() / ".cache").absolute() / "istio-vm-mesh"


def docker_host() -> str | None:
    """Return the DOCKER_HOST of the lab's own engine, None where the machine's engine is used."""
    try:
        return DOCKER_HOST.read_text().strip() or None
    except OSError:
        return None


def backend(directory: Path) -> str:
    """Return the address of Pulumi's file backend in `directory`.

    The backend writes a temporary file and renames it, so a killed CLI leaves the old state or the
    new one. Only files with attributes (`*.attrs`) are written in place. Nothing needs them, and
    with half of one the state cannot be read. So the backend writes none.
    """
    return f"file://{directory}?metadata=skip"


def pulumi_env() -> dict[str, str]:
    """Return the variables that Pulumi and the tools need, without PATH; `lab env` prints them."""
    variables = {
        "VIRTUAL_ENV": str(VENV),
        "PULUMI_HOME": str(HOME),
        "PULUMI_BACKEND_URL": backend(STATE),
        "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_ERROR_OUTPUT_STRING": "1",
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "1",
        # A join waits most of its time for its machine. The default is four for each processor.
        "PULUMI_PARALLEL": "32",
    }
    if host := docker_host():
        variables["DOCKER_HOST"] = host
    return variables


UNSET = ("SSH_AUTH_SOCK",)
"""Variables that must not reach Pulumi: an agent's keys would be offered before the one that the
stack names.
"""


def environment(**more: str) -> dict[str, str]:
    """Return the whole environment for Pulumi and the tools: this process's, with the lab's
    settings and PATH over it.
    """
    variables = {name: value for name, value in os.environ.items() if name not in UNSET}
    variables |= pulumi_env()
    variables["PATH"] = os.pathsep.join([str(BIN), str(VENV / "bin"), os.environ.get("PATH", os.defpath)])
    return variables | more
