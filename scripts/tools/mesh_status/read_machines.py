"""Reads the machines: one SSH connection each, over which root runs one short script that changes nothing."""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from components import shell
from components.local import openssh
from components.names import XDS_PORT

from . import ssh
from .read_state import Machine

PARALLEL = 8
"""Machines that are connected to at the same time."""
PROGRESS_S = 5.0
NAMED = 5
"""Machines that a line of progress names."""


@dataclass(frozen=True)
class Certificate:
    """The certificate that the agent holds; the times are by the clock of its issuer."""

    begins: datetime
    ends: datetime
    identity: str


@dataclass(frozen=True)
class MachineReport:
    """What was read from a machine. `problem` is why nothing could be read; then all else is empty.

    `offset` is by how many seconds its clock is ahead of this one's. `unit` is systemd's ActiveState, "" without the unit; `active` and `up`
    are seconds since the unit became active and since the boot. `gateway` is whether the east-west gateway accepts connections of machines.
    `redirection` is what is missing of the rules that redirect traffic to the agent. `files` are those that differ from what the join wrote.
    """

    problem: str = ""
    offset: float = 0.0
    unit: str = ""
    restarts: int = 0
    active: int | None = None
    up: int | None = None
    agent: str = ""
    envoy: str = ""
    ready: bool = False
    certificate: Certificate | None = None
    token_expires: datetime | None = None
    gateway: bool | None = None
    redirection: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def probe(machines: Iterable[Machine], gateway: str, gateway_port: int = XDS_PORT) -> dict[str, MachineReport]:
    """Look at the machines that have a connection, in parallel. One that cannot be looked at is a row with its reason.

    Standard error names the machines that have not answered, every `PROGRESS_S` seconds.
    """
    with ThreadPoolExecutor(PARALLEL) as pool:
        pending = {each.name: pool.submit(_probe, each.target, gateway, gateway_port) for each in machines if each.target}
        while late := wait(pending.values(), PROGRESS_S).not_done:
            print(_progress([name for name, report in pending.items() if report in late]), file=sys.stderr, flush=True)
        return {name: report.result() for name, report in pending.items()}


def _progress(late: Sequence[str]) -> str:
    further = f" and {len(late) - NAMED} more" if len(late) > NAMED else ""
    return f"Waiting for machines over SSH: {', '.join(late[:NAMED])}{further}"


def _probe(target: openssh.Target, gateway: str, gateway_port: int) -> MachineReport:
    script = shell.read_script("machines/lib") + Path(__file__).with_name("probe.sh").read_text()
    text = shell.run_as_root(shell.assignments({"GATEWAY": gateway, "GATEWAY_PORT": gateway_port}) + script)
    try:
        done = ssh.run(target, text)
    except ssh.SshError as failure:
        return MachineReport(problem=str(failure))
    if done.code:
        reason = "; ".join(done.error.strip().splitlines())[:200] or f"code {done.code}"
        return MachineReport(problem=f"looking at it as root failed on it: {reason}")
    return parse(done.output, done.started, done.ended)


def parse(output: str, started: float, ended: float) -> MachineReport:
    """Take apart what the script printed.

    started, ended: this computer's time before and after the connection. A clock that shows a time
        between the two is right.
    """
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    time = float(values.get("time") or started)
    return MachineReport(
        offset=time - min(max(time, started), ended),
        unit=values.get("ActiveState", "") if values.get("LoadState") == "loaded" else "",
        restarts=int(values.get("NRestarts") or 0),
        active=_number(values.get("active")),
        up=_number(values.get("up")),
        agent=values.get("agent", "").partition("-")[0],
        envoy=values.get("envoy", ""),
        ready=values.get("ready") == "200",
        certificate=certificate(values.get("certificate", "")),
        token_expires=datetime.fromtimestamp(int(values["token"]), UTC) if values.get("token") else None,
        gateway={"yes": True, "no": False}.get(values.get("gateway", "")),
        redirection=tuple(filter(None, values.get("redirection", "").split(";"))),
        files=tuple(filter(None, values.get("files", "").split(";"))),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def certificate(encoded: str) -> Certificate | None:
    """Return the first certificate of a PEM file in base64, or None where there is none."""
    try:
        first = x509.load_pem_x509_certificates(base64.b64decode(encoded))[0]
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, IndexError, binascii.Error, x509.ExtensionNotFound):
        return None
    identities = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Certificate(first.not_valid_before_utc, first.not_valid_after_utc, identities[0] if identities else "")
