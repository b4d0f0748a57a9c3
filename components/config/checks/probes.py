"""Rules for the requests that ask a workload: its probe, and the calls that verify it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...grammar import is_url_path
from ..problems import Problem
from ..workload import HTTP_PROTOCOLS, HttpProbe, Probe, WorkloadSettings, WorkloadVerification

# A verification has 30 minutes (components/verification/component.py): rounds of longer calls
# would not end in them.
_LONGEST_CALL_S = 60
# k8s.io/apimachinery: validation.IsHTTPHeaderName.
_HEADER = re.compile(r"[-A-Za-z0-9]+")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")


def check_probe(path: str, probe: Probe, workload: WorkloadSettings) -> Iterator[Problem]:
    """Yield what is wrong with the probe of a workload's health."""
    if (probe.http is None) == (probe.tcp is None):
        yield Problem(path, "give exactly one of http and tcp")
    elif probe.port not in workload.ports.values():
        ports = ", ".join(map(str, workload.ports.values()))
        yield Problem(path, f"port {probe.port} is none of the workload's ports ({ports})")
    numbers = {
        "period": probe.period,
        "timeout": probe.timeout,
        "failureThreshold": probe.failure_threshold,
    }
    for key, number in numbers.items():
        if number < 1:
            yield Problem(f"{path}.{key}", f"must be at least 1; got {number}")
    if probe.http:
        yield from _check_http(f"{path}.http", probe.http)


def check_verify(
    path: str, verify: WorkloadVerification, workload: WorkloadSettings
) -> Iterator[Problem]:
    """Yield what is wrong with how a workload is verified.

    The ports of Services that are `existing`, and their protocols, are in the cluster alone.
    """
    if not 1 <= verify.timeout <= _LONGEST_CALL_S:
        what = f"must be from 1 to {_LONGEST_CALL_S}; got {verify.timeout}"
        yield Problem(f"{path}.timeout", what)
    if verify.path is not None and not re.fullmatch(r"/[!-~]*", verify.path):
        yield Problem(
            f"{path}.path",
            "must begin with '/' and consist of visible ASCII characters, the others as %XX; "
            f"got {verify.path!r}",
        )
    offered = workload.offered_ports
    if verify.port is not None and verify.port not in workload.ports.values():
        ports = ", ".join(map(str, workload.ports.values()))
        yield Problem(f"{path}.port", f"{verify.port} is none of the workload's ports ({ports})")
        return
    if workload.existing_services:
        return
    if verify.port is not None and not any(each.target == verify.port for each in offered):
        yield Problem(
            f"{path}.port",
            f"no Service with a cluster IP leads to {verify.port}, so no client could call it: "
            "add it to `ports` of one, or name another port",
        )
        return
    called = workload.verified_port
    if called and workload.ends_tls and called.protocol not in ("tls", "tcp"):
        yield Problem(
            f"{path.removesuffix('.verify')}.probe.http.scheme",
            f"the application ends TLS, and Istio takes port {called.target} for "
            f"{called.protocol}, so no proxy could read its bytes: begin the port's name with "
            "'https'",
        )
    stated = {"path": verify.path is not None, "expectStatus": bool(verify.expect_status)}
    for key, is_stated in stated.items():
        if is_stated and (called is None or called.protocol not in HTTP_PROTOCOLS):
            is_called = "nothing is called"
            if called:
                is_called = f"port {called.target} is called as {called.protocol}"
            yield Problem(
                f"{path}.{key}",
                f"is of HTTP, and {is_called}: leave it out, or name a port of HTTP",
            )


def _check_http(path: str, http: HttpProbe) -> Iterator[Problem]:
    if not http.path.startswith("/"):
        yield Problem(f"{path}.path", f"must begin with '/'; got {http.path!r}")
    elif not is_url_path(http.path):
        yield Problem(
            f"{path}.path",
            f"{http.path!r} is not the path of a URL: write a space as %20, and so on",
        )
    for name, value in http.headers.items():
        if not _HEADER.fullmatch(name):
            yield Problem(
                f"{path}.headers",
                f"{name!r} is not a name of a header: use letters, digits and '-'",
            )
        elif not _HEADER_VALUE.fullmatch(value):
            yield Problem(
                f"{path}.headers.{name}", "expected printable characters of ASCII, in one line"
            )
    if len({name.lower() for name in http.headers}) < len(http.headers):
        yield Problem(f"{path}.headers", "names a header twice: case makes no difference")
