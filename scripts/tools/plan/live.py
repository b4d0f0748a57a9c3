"""The level LIVE: what the world has, besides the state of a stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from tools.mesh_status import assess, pulumi, read
from tools.mesh_status.model import Endpoint, Mesh

from . import differences, preview
from .model import LiveFinding, LiveKind

CERTIFICATE_S = 6 * 3600
"""Seconds before its end from which a certificate is reported.

An agent renews its certificate at half of 24 hours, so one that is nearer to its end was not.
"""

MOST_PATHS = 5
"""Properties that a finding names."""


class NotLiveError(Exception):
    """The world cannot be read: one sentence with cause and fix."""


def findings(stack: str) -> tuple[LiveFinding, ...]:
    """Return what differs from what should be: drift, unhealthy machines, certificates.

    Raises NotLiveError. A machine or a cluster that does not answer is a finding.
    """
    variables = pulumi.environment()
    try:
        mesh = assess.mesh(read.facts(variables, stack))
        return (*of_mesh(mesh), *drift(refreshed(variables, stack)))
    except pulumi.StackError as error:
        raise NotLiveError(str(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        # A state, a cluster or a CLI of another version has another form.
        sentence = f"what was read has another form than expected: {error!r}"
        raise NotLiveError(f"{sentence}. Update Pulumi, or see ./scripts/status") from None


def of_mesh(mesh: Mesh) -> tuple[LiveFinding, ...]:
    """Return the findings of what `./scripts/status` shows."""
    found_in_mesh: list[LiveFinding] = []
    if mesh.control_plane.health != "healthy":
        sentence = (
            " ".join(mesh.control_plane.advice)
            or f"the control plane is {mesh.control_plane.health}"
        )
        found_in_mesh.append(_unhealthy("istiod", sentence))
    for network in mesh.networks:
        gateway = network.gateway
        if gateway and gateway.health != "healthy":
            found_in_mesh.append(
                _unhealthy(
                    gateway.name, " ".join(gateway.advice) or f"the gateway is {gateway.health}"
                )
            )
    for workload in mesh.workloads:
        found_in_mesh += [
            _unhealthy(f"{workload.namespace}/{workload.name}", sentence)
            for sentence in workload.advice
        ]
        for endpoint in workload.endpoints:
            found_in_mesh += _of_endpoint(endpoint, mesh.read)
    return tuple(found_in_mesh)


def _unhealthy(subject: str, sentence: str) -> LiveFinding:
    return LiveFinding(kind=LiveKind.UNHEALTHY, subject=subject, text=sentence)


def _of_endpoint(endpoint: Endpoint, now: datetime) -> Iterator[LiveFinding]:
    if endpoint.health != "healthy":
        yield _unhealthy(
            endpoint.name, " ".join(endpoint.advice) or f"it is {endpoint.health}: {endpoint.state}"
        )
    ends = endpoint.certificate_ends
    if ends and ends - now < timedelta(seconds=CERTIFICATE_S):
        when = ends.isoformat(timespec="minutes")
        sentence = (
            f"its certificate ended at {when}" if ends <= now else f"its certificate ends at {when}"
        )
        yield LiveFinding(kind=LiveKind.CERTIFICATE, subject=endpoint.name, text=sentence)


def refreshed(variables: Mapping[str, str], stack: str) -> str:
    """Return what `pulumi refresh` would change, as JSON. Raises NotLiveError."""
    command = ["pulumi", "refresh", "--preview-only", "--json", "--stack", stack, *pulumi.QUIET]
    try:
        done = pulumi.run(command, variables)
    except FileNotFoundError:
        raise NotLiveError("pulumi is not on PATH: install it") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise NotLiveError(
            f"the drift cannot be read: {lines[-1] if lines else 'pulumi gave no reason'}"
        )
    return done.stdout


def drift(text: str) -> tuple[LiveFinding, ...]:
    """Return the findings of a refresh. text: what Pulumi prints as JSON.

    What was added beside the inputs of this program is of others, and no drift.
    """
    listed = []
    for before, after in preview.refreshed(text):
        if before.is_component or before.read:
            continue
        if after is None:
            listed.append(LiveFinding(kind=LiveKind.DRIFT, subject=before.name, text="it is gone"))
            continue
        lines = differences.differences(before.inputs, after.inputs)
        paths = [path for path, was, _ in lines if was is not None]
        if paths:
            sentence = f"it differs in {', '.join(paths[:MOST_PATHS])}"
            listed.append(LiveFinding(kind=LiveKind.DRIFT, subject=before.name, text=sentence))
    return tuple(listed)
