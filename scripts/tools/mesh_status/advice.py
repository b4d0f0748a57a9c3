"""What is wrong with a machine or a pod, and what to do: pure functions over what was read.

Every sentence continues the name of the thing ("machine product-1: ..."), names what is wrong, and names the fix.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from components.names import XDS_PORT
from components.versions import numbers

from . import read_cluster, read_state
from .model import Health, worst_health
from .read_machines import MachineReport

BACKDATED = timedelta(minutes=2)
"""By how much istiod dates certificates back, for clocks that are behind (istio/istio: security/pkg/pki/util/generate_cert.go)."""
CLOCK_TOLERANCE = 60.0
"""Seconds."""
OVERDUE = 0.4
"""The part of a certificate's life that is left when it should have been renewed: the agent does so at half of it (SECRET_GRACE_PERIOD_RATIO)."""


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """All that was read about a machine. `declared` is whether the stack file has it, `cluster_answers` whether `entry` means anything.

    `report` is None where it cannot be reached by SSH. `identities` are the workload's, that of the mesh's trust domain first.
    `control_plane` is the version of istiod, `stated_version` that of `mesh.version` where it does not decide about istiod's.
    `rotation` is the key of the stack file that has the machine join again.
    """

    name: str
    state: read_state.Machine | None
    entry: read_cluster.Entry | None
    report: MachineReport | None
    declared: bool = True
    cluster_answers: bool = True
    identities: tuple[str, ...] = ()
    control_plane: str = ""
    stated_version: str = ""
    rotation: str = ""
    gateway: str = ""
    gateway_port: int = XDS_PORT


Finding = tuple[Health, list[str]]


def duration(time: timedelta | float) -> str:
    """Return a duration in words: `40 s`, `12 min`, `3 h`, `5 days`."""
    seconds = abs(time.total_seconds() if isinstance(time, timedelta) else time)
    for unit, size, up_to in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < up_to:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def machine(facts: MachineFacts, now: datetime) -> Finding:
    """Return the health of a machine, and what to do about it, the most important first."""
    if not facts.state:
        return "missing", ["is in the stack file and not in the stack yet: run `pulumi up`"]
    health, advice = _entry(facts, now)
    if facts.report:
        more, reasons = _report(facts, facts.report, now)
        # What was read from the machine explains the state of its entry.
        health, advice = worst_health([health, more]), [*reasons, *advice]
    if facts.state.forgotten:
        advice.append(
            "is given up by `forget: true`: nothing connects to it; take it out of the stack file, and the next `pulumi up` keeps it out"
        )
    elif not facts.state.joined:
        health, advice = worst_health([health, "missing"]), [*advice, "its join has not succeeded yet: run `pulumi up`"]
    if not facts.declared:
        advice.append("is no longer in the stack file: the next `pulumi up` removes it")
    return health, advice


def _entry(facts: MachineFacts, now: datetime) -> Finding:
    """The health by the WorkloadEntry."""
    entry = facts.entry
    if not facts.cluster_answers:
        return "unknown", []
    if not entry:
        silent = not facts.report or facts.report.problem or not facts.report.ready
        where = "" if silent else " though its proxy is ready: see `journalctl --unit istio-vm-mesh` on it"
        return "missing", [f"is not registered: there is no WorkloadEntry {facts.state.entry if facts.state else ''}{where}"]
    if entry.disconnected:
        return "unhealthy", [f"its agent has had no connection to istiod for {duration(now - entry.disconnected)}"]
    if entry.healthy is None:
        return "unknown", ["no result of its probe has reached istiod yet"]
    if not entry.healthy:
        why = f" ({entry.message.strip()})" if entry.message.strip() else ""
        return "unhealthy", [f"its probe fails{why}: is the application running on it, and on the probe's port?"]
    return "healthy", []


def _report(facts: MachineFacts, seen: MachineReport, now: datetime) -> Finding:
    """The health by the report of the machine itself."""
    if seen.problem:
        advice = [seen.problem]
        if not _is_connected(facts):
            advice.append(
                "when it is back, it needs `pulumi up` if it was away for longer than its certificate lived (24 h unless the mesh sets another lifetime)"
            )
        return "unknown", advice
    if not seen.unit:
        return "unhealthy", [f"Istio's agent is not installed on it: {rejoin_hint(facts)}"]
    checks = [
        _certificate(seen, now),
        _unit(seen),
        check_gateway(facts, seen),
        _identity(facts, seen),
        _proxy(seen),
        _redirection(seen),
    ]
    advice = [text for text in checks if text]
    health: Health = "unhealthy" if advice else "healthy"
    hints = [
        _renewal(seen, now),
        _files(facts, seen),
        _clock(seen),
        _alias(facts, seen),
        version(seen.agent, facts.control_plane, _version_cure(facts, seen)),
    ]
    return health, [*advice, *(text for text in hints if text)]


def _is_connected(facts: MachineFacts) -> bool:
    return bool(facts.entry and not facts.entry.disconnected)


def rejoin_hint(facts: MachineFacts) -> str:
    """Return how a machine is made to join again: by itself in the next update where it is out of the mesh, else by rotation."""
    if not facts.declared:
        return "the next `pulumi up` removes it"
    if not _is_connected(facts):
        return "run `pulumi up`"
    return f"raise `{facts.rotation}` in the stack file and run `pulumi up`"


def _certificate(seen: MachineReport, now: datetime) -> str:
    if seen.certificate and seen.certificate.ends > now:
        return ""
    expires = seen.token_expires
    ended = f"its certificate ended {duration(now - seen.certificate.ends)} ago" if seen.certificate else "it has no certificate"
    if expires is None:
        return f"needs `pulumi up`: {ended}, and it has no token"
    if expires < now:
        return f"needs `pulumi up`: {ended}, and its token expired {duration(now - expires)} ago"
    return f"{ended}; its token is good for another {duration(expires - now)}, with which it gets one as soon as it reaches istiod"


def _unit(seen: MachineReport) -> str:
    match seen.unit:
        case "active" | "reloading" | "deactivating":
            return ""
        case "inactive":
            return "its agent is stopped: run `sudo systemctl start istio-vm-mesh` on it"
        case _:  # activating (between restarts) or failed
            return f"its agent does not stay up ({seen.restarts} restarts): `journalctl --unit istio-vm-mesh` on it has the cause"


def check_gateway(facts: MachineFacts, seen: MachineReport) -> str:
    if seen.gateway is not False:
        return ""
    return f"cannot reach the east-west gateway at {facts.gateway} port {facts.gateway_port}: check the gateway, and the firewall between the two"


def _identity(facts: MachineFacts, seen: MachineReport) -> str:
    if not seen.certificate or not facts.identities or seen.certificate.identity in facts.identities:
        return ""
    return f"its certificate is for {seen.certificate.identity} and not for {facts.identities[0]}: {rejoin_hint(facts)}"


def _alias(facts: MachineFacts, seen: MachineReport) -> str:
    if not facts.declared or not seen.certificate or seen.certificate.identity not in facts.identities[1:]:
        return ""
    return (
        f"its certificate is for {seen.certificate.identity}, which callers accept by the mesh's trustDomainAliases: "
        f"before you remove that alias, {rejoin_hint(facts)}"
    )


def _proxy(seen: MachineReport) -> str:
    return (
        "its proxy is not ready: `journalctl --unit istio-vm-mesh` on it has the cause" if seen.unit == "active" and not seen.ready else ""
    )


def _redirection(seen: MachineReport) -> str:
    if seen.unit != "active" or not seen.redirection:
        return ""
    return f"its redirection is not as it should be ({'; '.join(seen.redirection)}): `journalctl --unit istio-vm-mesh-redirect` on it has the cause"


def _renewal(seen: MachineReport, now: datetime) -> str:
    certificate = seen.certificate
    if not certificate or certificate.ends <= now:
        return ""
    left, lifetime = certificate.ends - now, certificate.ends - certificate.begins - BACKDATED
    if left >= OVERDUE * lifetime:
        return ""
    return f"has not renewed its certificate, which ends in {duration(left)}: does its agent reach istiod?"


def _files(facts: MachineFacts, seen: MachineReport) -> str:
    if not seen.files:
        return ""
    return f"differs from what its join wrote ({', '.join(seen.files)}): {rejoin_hint(facts)}"


def _clock(seen: MachineReport) -> str:
    if abs(seen.offset) <= CLOCK_TOLERANCE:
        return ""
    way = "ahead" if seen.offset > 0 else "behind"
    return f"its clock is {duration(seen.offset)} {way}: certificates need clocks that agree, let it run an NTP client"


def _version_cure(facts: MachineFacts, seen: MachineReport) -> str:
    if facts.stated_version and numbers(facts.stated_version) == numbers(seen.agent):
        return "set `mesh.version` to that one and run `pulumi up`"
    return "`pulumi up` installs the version of `mesh.version`"


def version(has: str, control_plane: str, cure: str) -> str:
    """About a proxy whose version is not the control plane's; "" where they agree or one is not known."""
    mine, theirs = numbers(has), numbers(control_plane)
    if not mine or not theirs or mine == theirs:
        return ""
    how = "older" if mine < theirs else "newer"
    return f"its agent {has} is {how} than the control plane {control_plane}: {cure}"


def kept_out(entry: read_cluster.Entry) -> str:
    """Return what is to be done about a machine that is given up, and kept out of the mesh by an entry of this program."""
    why = {"dead": "was dead when it was removed", "forgotten": "was forgotten when it was removed"}.get(entry.reason, "did not leave")
    return (
        f"machine {entry.quarantine} at {entry.address} {why} from {entry.stack}: the WorkloadEntry {entry.namespace}/{entry.name} keeps it out. "
        f"If its agent runs, it can still send requests, and renews its certificate as long as it reaches the east-west gateway. To settle "
        "it, stop the agent there (`systemctl disable --now istio-vm-mesh`) and delete that entry, or join a machine at this address"
    )


def pod(seen: read_cluster.Pod, control_plane: str) -> Finding:
    """Return the health of a pod, and what to do about it."""
    advice = [f"is not ready: {seen.problem}"] if not seen.ready else []
    if not seen.proxy:
        advice.append("has no sidecar, so it is not in the mesh: delete it, and its successor gets one (if its namespace injects sidecars)")
    health: Health = "unhealthy" if advice else "healthy"
    hint = version(seen.proxy, control_plane, "delete it, and its successor has that one")
    return health, [*advice, *([hint] if hint else [])]
