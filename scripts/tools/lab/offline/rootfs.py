"""Debian root file systems, made by mmdebstrap from the archives that this machine itself uses, and imported into the engine as base images."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterable

from tools.steps import Step, StepError

from .. import paths
from ..engine import Engine
from . import cache, debian

SUITE = "bookworm"
GUEST_SUITE = "trixie"
"""The suite of the virtual machine's disk: a newer kernel, systemd and Docker than this machine's."""
_SYSTEMD = ("systemd", "systemd-sysv", "dbus", "bash", "ca-certificates", "curl", "iproute2", "iptables", "procps")
_MACHINE = (*_SYSTEMD, "openssh-server", "sudo", "systemd-resolved")
PACKAGES = {
    # For Istio's images; busybox serves the sidecar's package.
    "base": ("bash", "busybox", "ca-certificates", "curl", "iproute2", "iptables", "procps"),
    "machine": _MACHINE,
    # As machines are after years: a firewall, and the shell that its administrator likes.
    "lived-in": (*_MACHINE, "fish", "nftables"),
    # As Google's images of Debian are: the guest agent and OS Login, and Python for what stands in
    # for Google's metadata server.
    "compute-engine": (*_MACHINE, "google-compute-engine-oslogin", "google-guest-agent", "python3"),
    # As images/base/Dockerfile of kind, less its network storage and rootless parts, plus what it builds from source.
    "node": (
        *(*_SYSTEMD, "conntrack", "ethtool", "jq", "kmod", "libseccomp2", "mount", "nftables", "socat", "util-linux"),
        *("containerd", "containernetworking-plugins", "runc"),
    ),
    # As a virtual machine's disk is: with a kernel, and with Docker for its application.
    "guest": (*_MACHINE, "docker-cli", "docker.io", "initramfs-tools", "linux-image-cloud-amd64", "udev", "zstd"),
    # What makes that disk, and runs the virtual machine.
    "qemu": ("bash", "e2fsprogs", "iproute2", "qemu-system-x86", "qemu-utils"),
}
"""The packages of each root file system, besides the essential ones; recommended packages are left out."""

_OPTIONS = (
    "--variant=minbase",
    # As Debian's installer does it; otherwise the package usrmerge does it later, with all of Perl.
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "info", "locale")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    # The settings of the machine that builds do not belong into an image.
    '--customize-hook=rm -f "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/etc/apt/apt.conf.d/99mmdebstrap',
)


def suite(kind: str) -> str:
    """Return the Debian that a root file system is of."""
    return GUEST_SUITE if kind == "guest" else SUITE


def name(kind: str) -> str:
    """Return the image that holds a root file system."""
    return f"istio-vm-mesh/debian:{kind}"


def inputs(kind: str) -> str:
    """Return what identifies a root file system: changes when its packages or the way it is made
    change.
    """
    return cache.digest([suite(kind), PACKAGES[kind], _OPTIONS])


def make(step: Step, engine: Engine, kinds: Iterable[str], label: str) -> None:
    """Make root file systems, all at the same time, and import them with their inputs as `label`."""
    kinds = list(kinds)
    debian.ensure(step, ["mmdebstrap"])
    targets = _apt("indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI) $(COMPONENT)", "Created-By: Packages")
    options = [*_OPTIONS, *(f"--aptopt={option}" for option in _access(_apt_config()))]
    unfinished = paths.cache() / paths.UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rootfs-", dir=unfinished) as directory:
        commands = []
        for kind in kinds:
            output = [suite(kind), f"{directory}/{kind}.tar", *_archives(targets, suite(kind))]
            commands.append(shlex.join(["mmdebstrap", *options, f"--include={','.join(PACKAGES[kind])}", *output]))
        # One shell, so that all of them end when the lab is interrupted.
        background = "".join(f'{command} & all="$all $!"\n' for command in commands)
        with step.part(f"Debian root file systems ({', '.join(kinds)})"):
            step.run(
                ["bash", "-c", f'{background}for one in $all; do wait "$one" || failed=1; done; exit "${{failed:-0}}"'],
                progress=lambda line: f"mmdebstrap: {line.removeprefix('I: ')}" if line.startswith("I: ") else None,
                hint="see to it that apt-get can download from this machine's Debian archives",
            )
            for kind in kinds:
                change = f"LABEL {label}={inputs(kind)}"
                engine.run(step, "import", "--change", change, f"{directory}/{kind}.tar", name(kind))


def _apt(*arguments: str) -> str:
    return subprocess.run(["apt-get", *arguments], capture_output=True, text=True, check=False).stdout


def _apt_config() -> str:
    return subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout


def _archives(targets: str, suite: str) -> list[str]:
    """Lines for sources.list: this machine's Debian archives, for a suite.

    `targets` has a line `origin codename address component` per package index of apt.
    Raises StepError if there is no Debian archive among them.
    """
    lines: dict[str, None] = {}
    for target in targets.splitlines():
        origin, codename, address, component = target.split(" ")
        if origin == "Debian" and component == "main" and (kind := re.fullmatch(r"[a-z]+(|-updates|-security)", codename)):
            lines[f"deb {address} {suite}{kind[1]} main"] = None
    if not any(line.endswith(f" {suite} main") for line in lines):
        raise StepError("apt has no Debian archive on this machine", "add one to apt's sources and run `apt-get update`", show_log=False)
    return list(lines)


def _access(configuration: str) -> list[str]:
    """The settings by which this machine's apt reaches its archives (proxy, certificates), from the output of `apt-config dump`."""
    return [line for line in configuration.splitlines() if re.match(r'Acquire::https?(::[^ ]+)? "[^"]', line)]
