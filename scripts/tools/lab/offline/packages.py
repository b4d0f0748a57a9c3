"""The sidecar's Debian package, Istio's own or one with its layout, and the server inside the lab
from which machines download it.
"""

from __future__ import annotations

import ipaddress
import json

from tools.steps import Step, StepError

from .. import paths
from ..engine import Engine
from . import cache, images, programs, versions

CONTAINER = "istio-vm-mesh-packages"
PORT = 18731
PATH = f"/{versions.ISTIO}/istio-sidecar.deb"
"""Beside it is its checksum, with `.sha256` behind the name and in the format of sha256sum."""

# As `deb/fpm` in tools/packaging/packaging.mk of Istio.
CONTROL = f"""\
Package: istio-sidecar
Version: {versions.ISTIO}
Architecture: amd64
Maintainer: istio@istio.io
Depends: iproute2, iptables, sudo, hostname
Section: default
Priority: optional
Homepage: http://istio.io
Description: Istio Sidecar
"""
CONFFILES = "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json\n/var/lib/istio/envoy/sidecar.env\n"

IMAGE = images.Image(
    f"istio-vm-mesh/packages:{versions.ISTIO}",
    "packages",
    "base",
    {
        "package/usr/local/bin/envoy": "envoy",
        "package/usr/local/bin/pilot-agent": "pilot-agent",
        "package/usr/local/bin/istio-start.sh": "istio-packaging:common/istio-start.sh",
        "package/lib/systemd/system/istio.service": "istio-packaging:common/istio.service",
        "package/var/lib/istio/envoy/sidecar.env": "istio-packaging:common/sidecar.env",
        "package/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": "istio-packaging:common/envoy_bootstrap.json",
        "package/DEBIAN/postinst": "istio-packaging:postinst.sh",
    },
    {"package/DEBIAN/control": CONTROL, "package/DEBIAN/conffiles": CONFFILES},
)
"""The server with the package in it, so that neither needs a directory of the machine."""
OFFICIAL_IMAGE = images.Image(
    IMAGE.name,
    "packages-official",
    "base",
    {f"srv{PATH}{suffix}": f"{images.SIDECAR}:istio-sidecar.deb{suffix}" for suffix in ("", ".sha256")},
)
"""The same server with Istio's own package."""


def serve(step: Step, engine: Engine, tools: programs.Tools) -> str:
    """Build the package and serve it to machines; return its URL. A running server with the same
    package is left alone.

    The package's SHA-256 is in the lab's directory afterwards, where stack files name it.

    It listens only on the address that containers know as host.docker.internal, not on the
    machine's others.
    """
    _make(step, engine, tools)
    address = _address(engine.docker("network", "inspect", "--format", "{{json .IPAM.Config}}", "bridge"))
    wanted = f"{engine.docker('image', 'inspect', '--format', '{{.Id}}', IMAGE.name)} {address}"
    state = '{{.State.Running}} {{.Image}} {{index .Config.Labels "address"}}'
    with cache.locked(cache.Key("the package server", "", ""), step.note):
        if engine.attempt("inspect", "--format", state, CONTAINER).stdout.decode().strip() != f"true {wanted}":
            stop(engine)
            options = ["--detach", "--name", CONTAINER, "--network", "host", "--restart", "unless-stopped", "--label", f"address={address}"]
            engine.docker("run", *options, IMAGE.name, f"{address}:{PORT}")
    fetch = ["curl", "--fail", "--silent", "--retry", "20", "--retry-delay", "1", "--retry-connrefused", "--retry-max-time", "20"]
    answer = engine.attempt("exec", CONTAINER, *fetch, f"http://{address}:{PORT}{PATH}.sha256")
    if answer.returncode:
        reason = engine.attempt("logs", "--tail", "1", CONTAINER).stderr.decode().strip()
        raise StepError(
            f"the package server does not answer on {address}:{PORT}{f': {reason}' if reason else ''}",
            f"free port {PORT} on {address}",
            show_log=False,
        )
    paths.PACKAGE_DIGEST.write_bytes(answer.stdout)
    step.summary = f"http://host.docker.internal:{PORT}{PATH}"
    return step.summary


def _make(step: Step, engine: Engine, tools: programs.Tools) -> None:
    """Make the server's image, with Istio's own package if it is wanted and can be had."""
    built, publishers = images.usable(engine, IMAGE), tools.publishers
    package = publishers.get(step, images.SIDECAR) if publishers and (publishers.required or not built) else None
    if package:
        images.make(step, engine, tools, [OFFICIAL_IMAGE], {images.SIDECAR: package.path.parent})
    elif not images.usable(engine, OFFICIAL_IMAGE):
        images.make(step, engine, tools, [IMAGE])


def stop(engine: Engine) -> None:
    """Remove the server; its image stays."""
    engine.attempt("rm", "--force", "--volumes", CONTAINER)


def _address(configuration: str) -> str:
    """The address of the machine on Docker's default bridge, from the network's IPAM
    configuration: the first of the range if it names none.
    """
    for entry in json.loads(configuration) or []:
        subnet = ipaddress.ip_network(entry["Subnet"])
        if subnet.version == 4:
            return str(entry.get("Gateway") or next(subnet.hosts()))
    raise StepError("Docker's default bridge has no IPv4 range", "remove `bridge: none` from the engine's configuration", show_log=False)
