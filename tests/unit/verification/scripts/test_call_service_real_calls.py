"""What proves a call, and what must not: the script with real sockets, a real Envoy with certificates, and real applications.

Each claim has a negative run for each kind of port, in each way of a call. A Job addresses an endpoint, or
calls through a gateway. A machine calls by name, also through a gateway. Left out is what runs the same code:

- `tls` by name and through gateways: script and proxies treat it as `tcp`.
- A foreign identity by name and through gateways, and an expired certificate through gateways: the caller's
  proxy refuses both as another identity.
- A silent application for ports of bytes: a connection that stays open is proof there.
- 404 and 503 of the application for `http2`: its answers come as those of `http`, by the caller's own proxy. For
  `grpc` any status of an application passes.
- Routes, subsets, detection of protocols and retries belong to the caller's own proxy, so to calls by name.
- An endpoint that a gateway leaves out: no caller notices it. The machine's own counter does, alike for requests
  and for connections.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import grpc
import pytest

from components import shell
from components.verification.evidence import Call, Plaintext, parse
from tests.support import applications, envoys
from tests.support.envoys import ALIAS, FOREIGN, IDENTITY, OTHER, Callee, Mesh, Routes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

PATIENCE_S = 200
"""Seconds for a proof, which a busy computer keeps."""
KINDS = ("http", "http2", "grpc", "tcp", "tls", "greets")
"""Protocols of ports; `greets` is one of TCP whose server speaks first."""
CHOSEN_KINDS = ("http", "http2", "grpc", "tcp", "greets")
"""Kinds of ports whose endpoint a proxy chooses."""
OF_HTTP = ("http", "http2", "grpc")
FAULTS = {
    "nothing listens at the endpoint": "closed",
    "packets to it are dropped": "dropped",
    "nothing listens behind its proxy": "no application",
    "its application is silent": "silent",
    "it refuses the caller's certificate": "root",
    "it has another identity": "identity",
    "it is of a foreign trust domain": "foreign",
    "its certificate has expired": "expired",
    "an AuthorizationPolicy denies": "denies",
    "it takes plaintext alone": "plaintext",
}
FAULTS_BY_NAME = [fault for fault in FAULTS.values() if fault != "foreign"]
FAULTS_THROUGH_GATEWAYS = ["no gateway", *(fault for fault in FAULTS_BY_NAME if fault != "expired")]
MANY = (1, 10, 100, 300)
ANYWHERE = {"endpoints": "-", "ranges": "127.0.0.0/8"}
"""Columns of a target whose endpoint may be any one."""
BY_NAME: Mapping[str, object] = {"listener": 0, "setup": "is_identified() { :; }"}
"""How a machine runs the script. Istio's clusters are dynamic ones, and those of this Envoy are not."""


def kinds_of(fault: str, kinds: Sequence[str]) -> list[str]:
    """Return the kinds of ports that a fault is one for."""
    return [kind for kind in kinds if fault != "silent" or kind in OF_HTTP]


@dataclass(frozen=True)
class Shown:
    """What one run of the script has shown: rows by the Service's port and endpoint, causes, and the exit status."""

    calls: dict[tuple[int, str], Call]
    errors: str
    code: int


@dataclass(frozen=True)
class World:
    """A mesh, its callees by name, and an endpoint to which packets are dropped."""

    mesh: Mesh
    callees: dict[str, Callee]
    dropped: str

    def endpoint(self, name: str) -> str:
        """Return the endpoint of a callee."""
        return _endpoint(self.callees, self.dropped, name)

    def rows(self, *targets: str, **options: object) -> tuple[dict[tuple[int, str], Call], str, int]:
        """Return the rows by the Service's port and endpoint, what was printed of causes, and the exit status."""
        done = self.mesh.verify(*targets, **options)  # type: ignore[arg-type]
        return {(row.port, row.endpoint): row for row in parse(done.stdout).calls}, done.stderr, done.returncode

    def each(self, targets: Sequence[str], **options: object) -> list[Shown]:
        """Call each target by a run of its own, all at once: most of their time they listen to silence."""
        with ThreadPoolExecutor(len(targets)) as pool:
            return [Shown(*shown) for shown in pool.map(partial(self.rows, **options), targets)]

    def through(self, service: Callee, **columns: str) -> str:
        """Return a target that is behind the gateway of a Service."""
        return self.mesh.target(service, endpoints="-", gateways=gateway_of(service), **columns)


def _variants(stack: ExitStack, kind: str, base: Callee) -> dict[str, Callee]:
    """Return what is wrong with an endpoint, by fault, and what is not."""
    start = stack.enter_context
    variants = {
        "closed": replace(base, closed=True),
        "dropped": replace(base, closed=True),
        "no application": replace(base, application=start(applications.nothing())),
        "silent": replace(base, application=start(applications.of_bytes(applications.wait_for_more))),
        "root": replace(base, root="other"),
        "identity": replace(base, identity=OTHER),
        "foreign": replace(base, identity=FOREIGN),
        "alias": replace(base, identity=ALIAS),
        "expired": replace(base, expired=True),
        "denies": replace(base, denies=True),
        "plaintext": replace(base, plaintext=True),
    }
    callees = {fault: _at_free_ports(callee, f"{kind}, {fault}") for fault, callee in variants.items()}
    start(applications.nothing(callees["closed"].port))
    return callees


def _at_free_ports(callee: Callee, name: str) -> Callee:
    return replace(callee, name=name, port=envoys.free_port(), service_port=envoys.free_port())


def _callees(stack: ExitStack) -> list[Callee]:
    start = stack.enter_context
    pages, silent = start(applications.http()), start(applications.of_bytes(applications.wait_for_more))
    listening = {
        "http": pages,
        "http2": pages,
        "grpc": start(applications.of_grpc()),
        "tcp": silent,
        "tls": silent,
        "greets": start(applications.of_bytes(applications.greet)),
    }
    callees = []
    for kind, port in listening.items():
        base = Callee(name=kind, protocol="tcp" if kind == "greets" else kind, application=port)
        callees += [base, *_variants(stack, kind, base).values()]
        callees += [_at_free_ports(base, f"{kind}, member {each}") for each in range(5)]
    for talk in (applications.echo, applications.tell_time, applications.stream, applications.hang_up_at_a_line, applications.hang_up):
        port = start(applications.of_bytes(talk))
        callees.append(Callee(name=talk.__name__, protocol="tcp", application=port))
        callees.append(Callee(name=f"{talk.__name__}, denies", protocol="tcp", application=port, denies=True))
    callees += [
        Callee(name=f"detected{', denies' * denies}", protocol="tcp", application=silent, detected=True, denies=denies)
        for denies in (False, True)
    ]
    callees.append(Callee(name="HTTP/2 alone", protocol="tcp", application=listening["grpc"]))
    callees.append(Callee(name="headers", protocol="http", application=start(applications.http(needs="x-probe"))))
    for status in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE):
        callees.append(Callee(name=status.name, protocol="grpc", application=start(applications.of_grpc(status))))
    callees += [Callee(name=name, protocol="http", application=pages) for name in ("fault", "redirect", "subset", "unhealthy")]
    callees += [
        Callee(name=f"{kind}, many {count}", protocol=kind, application=listening[kind]) for kind in ("http", "tcp") for count in MANY
    ]
    return callees


@dataclass(frozen=True)
class Services:
    """Services that have endpoints of others, or a gateway alone.

    names: each as a callee that is not there itself.
    endpoints: by name. members: what is behind a gateway, by its address; one without an entry does not listen.
    """

    names: dict[str, Callee]
    endpoints: dict[str, list[str]]
    members: dict[str, list[str]]

    def add(self, name: str, protocol: str, endpoints: Sequence[str]) -> Callee:
        """Add a Service that has these endpoints."""
        port = envoys.free_port()
        self.names[name] = Callee(name=name, protocol=protocol, application=port, closed=True, port=port, service_port=port)
        self.endpoints[name] = list(endpoints)
        return self.names[name]

    def add_gateway(self, name: str, protocol: str, members: Sequence[str]) -> None:
        """Add a Service, and a gateway before these endpoints; without any, nothing listens there."""
        gateway = gateway_of(self.add(name, protocol, []))
        self.endpoints[name] = [gateway]
        if members:
            self.members[gateway] = list(members)


def gateway_of(service: Callee) -> str:
    """Return the address of the gateway of a Service."""
    return envoys.gateway_address(service.port)


def _endpoint(callees: Mapping[str, Callee], dropped: str, name: str) -> str:
    return dropped if name.endswith(", dropped") else callees[name].endpoints()[0]


def _services(callees: Mapping[str, Callee], dropped: str) -> Services:
    """Return, for each fault, a gateway before the endpoint that has it, alone and beside one that answers."""
    services, endpoint_of = Services({}, {}, {}), partial(_endpoint, callees, dropped)
    for kind in CHOSEN_KINDS:
        protocol, answers = callees[kind].protocol, endpoint_of(kind)
        services.add(f"{kind}, both", protocol, [answers, endpoint_of(f"{kind}, denies")])
        services.add(f"{kind}, half dropped", protocol, [answers, dropped])
        services.add_gateway(f"{kind}, five", protocol, [endpoint_of(f"{kind}, member {each}") for each in range(5)])
        for fault in FAULTS_THROUGH_GATEWAYS:
            broken = [] if fault == "no gateway" else [endpoint_of(f"{kind}, {fault}")]
            services.add_gateway(f"{kind}, {fault}, alone", protocol, broken)
            services.add_gateway(f"{kind}, {fault}, of two", protocol, broken and [answers, *broken])
    return services


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One Envoy for all of these tests."""
    with ExitStack() as stack:
        callees = {callee.name: callee for callee in _callees(stack)}
        dropped = f"127.0.0.1:{stack.enter_context(applications.dropped())}"
        services = _services(callees, dropped)
        away = {"match": {"prefix": "/"}, "redirect": {"host_redirect": "elsewhere.example.com"}}
        abort = {"match": {"prefix": "/"}, "direct_response": {"status": 503}}
        routes = Routes(
            routes={"fault": [abort], "redirect": [away]},
            subsets={"subset": {"v1": callees["subset"].endpoints(1)}},
            endpoints={
                **{name: callees[name].endpoints(2) for name in ("subset", "unhealthy")},
                **{(name := f"{kind}, many {count}"): callees[name].endpoints(count) for kind in ("http", "tcp") for count in MANY},
                **{f"{kind}, dropped": [dropped] for kind in KINDS},
                **services.endpoints,
            },
            gateways=services.members,
            unhealthy=frozenset(callees["unhealthy"].endpoints(2)[1:]),
        )
        callees |= services.names
        mesh = stack.enter_context(envoys.running(tmp_path_factory.mktemp("mesh"), list(callees.values()), routes))
        yield World(mesh, callees, dropped)


def test_each_kind_of_port_is_proved_by_an_answer(world: World) -> None:
    kinds = {"greets": "bytes", "tcp": "open", "tls": "open"}
    callees = [world.callees[kind] for kind in KINDS]
    for callee, shown in zip(callees, world.each([*map(world.mesh.target, callees)], timeout_s=PATIENCE_S), strict=True):
        assert shown.code == 0, shown.errors
        row = shown.calls[callee.service_port, callee.endpoints()[0]]
        kind = kinds.get(callee.name, "response")
        assert (row.verdict, row.how, row.peer, row.kind) == ("proved", "addressed", f"{IDENTITY} {ALIAS}", kind)
        assert shown.calls[callee.service_port, ""].verdict == "proved", "its name leads there"


def test_one_run_shows_each_target(world: World) -> None:
    callees = [world.callees[name] for name in ("http", "http, denies", "grpc")]
    calls, errors, code = world.rows(*map(world.mesh.target, callees))
    assert (code, "AuthorizationPolicy" in errors) == (1, True)
    assert [calls[each.service_port, each.endpoints()[0]].verdict for each in callees] == ["proved", "failed", "proved"], errors


def test_while_the_trust_domain_is_changed_an_identity_of_the_former_one_is_proof(world: World) -> None:
    callees = [world.callees[f"{kind}, alias"] for kind in KINDS]
    for callee, shown in zip(callees, world.each([*map(world.mesh.target, callees)], timeout_s=PATIENCE_S), strict=True):
        assert (shown.code, {row.verdict for row in shown.calls.values()}) == (0, {"proved"}), (callee.name, shown.errors)


WORDS = {
    "closed": "it takes ",
    "dropped": "it takes no connection (timeout;",
    "identity": "its certificate is not one of",
    "foreign": f"its certificate is not one of {IDENTITY} or {ALIAS}: ",
    "denies": "AuthorizationPolicy",
    "root": "certificate",
    "expired": "its certificate is not valid at the caller's time",
    "plaintext": "it answers in plaintext: does a PeerAuthentication",
}
"""Of causes, by fault."""


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_no_kind_of_port_is_proved_where(world: World, fault: str) -> None:
    """A pod has no privileges to look for itself whether an endpoint takes connections."""
    broken = [world.callees[f"{kind}, {fault}"] for kind in kinds_of(fault, KINDS)]
    targets = [world.mesh.target(each, endpoints=world.endpoint(each.name), **patience(fault)) for each in broken]
    done = world.each(targets, setup="as_proxy() { return 1; }")
    assert proofs(broken, done) == {}
    for callee, shown in zip(broken, done, strict=True):
        (row,) = (row for row in shown.calls.values() if row.endpoint)
        # A silent server does not answer a handshake at all.
        is_silent = fault == "plaintext" and callee.application == world.callees["tcp"].application
        words = "no answer from" if is_silent else WORDS.get(fault, "no answer from")
        assert words in row.cause and row.cause in shown.errors, (callee.name, row.cause, shown.errors)


def proofs(callees: Sequence[Callee], done: Sequence[Shown]) -> dict[str, list[str]]:
    """Return the endpoints that were proved, by the callee's name, with "success" where the run ended so."""
    proved = [[row.endpoint for row in shown.calls.values() if row.verdict == "proved"] for shown in done]
    ends = [[] if shown.code else ["success"] for shown in done]
    return {callee.name: [*rows, *end] for callee, rows, end in zip(callees, proved, ends, strict=True) if rows or end}


def patience(fault: str) -> dict[str, str]:
    """Return the column of a target that has the seconds for an answer, where there will be none."""
    return {"timeout": "1"} if fault == "silent" else {}


@pytest.mark.parametrize(
    ("path", "expect", "is_proof"),
    [("/404", "200-399", False), ("/503", "200-399", False), ("/404", "404", True), ("/503", "500-599", True), ("/moved", "200-399", True)],
)
def test_a_status_of_the_application_is_judged(world: World, path: str, expect: str, is_proof: bool) -> None:
    callee = world.callees["http"]
    calls, _, code = world.rows(world.mesh.target(callee, path=path, expect=expect), timeout_s=PATIENCE_S if is_proof else 0)
    row = calls[callee.service_port, callee.endpoints()[0]]
    assert ((row.verdict == "proved"), code) == (is_proof, int(not is_proof))
    assert is_proof or f"{path} returns {path[1:]}: set verify.path" in row.cause
    target = world.mesh.target(callee, path=path, expect=expect, **ANYWHERE)
    calls, errors, code = world.rows(target, timeout_s=PATIENCE_S if is_proof else 0, **BY_NAME)
    assert ((calls[callee.service_port, ""].verdict == "proved"), code) == (is_proof, int(not is_proof)), errors


def test_a_status_that_a_user_allows_is_no_proof_where_a_proxy_sent_it(world: World) -> None:
    denied, absent = world.callees["http, denies"], world.callees["http, no application"]
    targets = [world.mesh.target(denied, expect="403"), world.mesh.target(absent, expect="503")]
    calls, _, code = world.rows(*targets)
    assert code == 1
    assert {calls[each.service_port, each.endpoints()[0]].verdict for each in (denied, absent)} == {"failed"}
    by_name = [world.mesh.target(denied, expect="403", endpoints="-"), world.mesh.target(absent, expect="503", endpoints="-")]
    calls, _, code = world.rows(*by_name, **BY_NAME)
    assert code == 1
    assert {calls[each.service_port, ""].verdict for each in (denied, absent)} == {"failed"}


def test_by_name_too_an_allowed_status_of_the_application_is_proof(world: World) -> None:
    callee = world.callees["http"]
    target = world.mesh.target(callee, path="/404", expect="404", **ANYWHERE)
    calls, errors, code = world.rows(target, timeout_s=PATIENCE_S, **BY_NAME)
    assert (code, calls[callee.service_port, callee.endpoints()[0]].verdict) == (0, "proved"), errors


@pytest.mark.parametrize("name", ["OK", "UNAVAILABLE"])
def test_any_status_of_an_application_of_grpc_passes(world: World, name: str) -> None:
    callee = world.callees[name]
    calls, errors, _ = world.rows(world.mesh.target(callee), timeout_s=PATIENCE_S)
    assert calls[callee.service_port, callee.endpoints()[0]].verdict == "proved", errors
    target = world.mesh.target(callee, **ANYWHERE)
    calls, errors, code = world.rows(target, timeout_s=PATIENCE_S, **BY_NAME)
    assert (code, calls[callee.service_port, callee.endpoints()[0]].verdict) == (0, "proved"), errors


@pytest.mark.parametrize(
    ("verdict", "names"),
    [
        ("proved", ["echo", "tell_time", "stream", "hang_up_at_a_line", "HTTP/2 alone"]),
        ("failed", ["hang_up", "echo, denies", "stream, denies"]),
    ],
)
def test_what_a_server_of_bytes_may_do(world: World, verdict: str, names: list[str]) -> None:
    """One that hangs up at the first byte that is tried is asked with another."""
    callees = [world.callees[name] for name in names]
    targets = [*map(world.mesh.target, callees)]
    for callee, shown in zip(callees, world.each(targets, timeout_s=PATIENCE_S if verdict == "proved" else 0), strict=True):
        assert shown.calls[callee.service_port, callee.endpoints()[0]].verdict == verdict, (callee.name, shown.errors)


@pytest.mark.parametrize("path", ["/", "/grpc"])
def test_an_answer_that_is_none_of_grpc_is_no_proof(world: World, path: str) -> None:
    """A server of HTTP/2 answers every path with 200, and a page may have a line as of trailers."""
    callee = world.callees["http2"]
    calls, errors, _ = world.rows(world.mesh.target(callee, protocol="grpc", path=path), timeout_s=1)
    row = calls[callee.service_port, callee.endpoints()[0]]
    assert row.verdict == "failed" and "it answers, but not by gRPC" in row.cause, errors
    target = world.mesh.target(callee, protocol="grpc", path=path, **ANYWHERE)
    calls, errors, code = world.rows(target, **BY_NAME)
    assert (code, calls[callee.service_port, ""].verdict) == (1, "failed"), "a machine that calls by name"
    assert "it answers, but not by gRPC" in errors


@pytest.mark.parametrize("is_machine", [False, True])
def test_the_probes_headers_are_in_calls_by_name_too(world: World, is_machine: bool) -> None:
    callee = world.callees["headers"]
    options = ANYWHERE if is_machine else {}
    setup = "is_identified() { :; }\nHEADERS='x-probe: yes'"
    calls, errors, code = world.rows(
        world.mesh.target(callee, **options), timeout_s=PATIENCE_S, listener=0 if is_machine else None, setup=setup
    )
    assert (code, calls[callee.service_port, ""].verdict) == (0, "proved"), errors


@pytest.mark.parametrize("name", ["fault", "redirect"])
def test_routes_of_others_fail_no_machine_that_calls_by_name(world: World, name: str) -> None:
    callee = world.callees[name]
    target = world.mesh.target(callee, **ANYWHERE)
    calls, errors, code = world.rows(target, **BY_NAME)
    row = calls[callee.service_port, ""]
    assert (code, row.verdict, row.object) == (0, "failed", "VirtualService or DestinationRule of localhost"), errors
    assert "the caller's own proxy answers calls" in errors


@pytest.mark.parametrize(("name", "by_name"), [("fault", "failed"), ("redirect", "failed"), ("subset", "proved")])
def test_routes_of_others_break_no_proof(world: World, name: str, by_name: str) -> None:
    callee = world.callees[name]
    endpoints = callee.endpoints(2)
    calls, errors, code = world.rows(world.mesh.target(callee, endpoints=",".join(endpoints[: 2 if name == "subset" else 1])))
    assert code == 0, errors
    assert calls[callee.service_port, endpoints[0]].verdict == "proved"
    assert calls[callee.service_port, ""].verdict == by_name
    assert (by_name == "failed") == ("what do its routes do with them?" in errors)


def test_an_unhealthy_endpoint_is_no_proof_though_it_answers(world: World) -> None:
    """Proxies of newer versions of Istio have unhealthy endpoints, too, and choose none of them."""
    callee = world.callees["unhealthy"]
    endpoints = callee.endpoints(2)
    calls, errors, code = world.rows(world.mesh.target(callee, endpoints=",".join(endpoints)), timeout_s=2)
    assert code == 1 and f"was not given the endpoint {endpoints[1]}" in errors
    assert [calls[callee.service_port, each].verdict for each in endpoints] == ["proved", "failed"]


@pytest.mark.parametrize("is_plain", [False, True])
def test_a_subset_that_is_called_in_plaintext_proves_no_identity(tmp_path: Path, is_plain: bool) -> None:
    """Other clusters of the Service have the identity, and routes lead no call to them."""
    with ExitStack() as stack:
        port = stack.enter_context(applications.http())
        callee = Callee(name="subset", protocol="http", application=port, plaintext=is_plain)
        plaintext = frozenset({"subset"} if is_plain else ())
        routes = Routes(subsets={"subset": {"v1": callee.endpoints()}}, plaintext=plaintext)
        mesh = stack.enter_context(envoys.running(tmp_path, [callee], routes))
        # Istio's clusters are dynamic ones.
        setup = 'eval "real_$(declare -f direct_curl)"\ndirect_curl() { real_direct_curl "${@//dynamic_active/static}"; }'
        target = mesh.target(callee, **ANYWHERE)
        done = mesh.verify(target, timeout_s=0 if is_plain else PATIENCE_S, listener=0, setup=setup)
    rows = {row.endpoint: row.verdict for row in parse(done.stdout).calls}
    expected = {"": "failed"} if is_plain else {"": "proved", callee.endpoints()[0]: "proved"}
    assert (rows, done.returncode) == (expected, int(is_plain)), done.stderr
    assert ("is called without mutual TLS for" in done.stderr) is is_plain, done.stderr


@pytest.mark.parametrize("denies", [False, True])
def test_a_connection_that_a_machines_proxy_holds_back_proves_nothing(world: World, denies: bool) -> None:
    """One that detects the port's protocol waits for more bytes after these two, and tries no endpoint."""
    callee = world.callees["detected, denies" if denies else "detected"]
    target = world.mesh.target(callee, **ANYWHERE)
    first_bytes = "'0' 'P'" if denies else r"'0' 'P' '\x10'"
    setup = f"is_identified() {{ :; }}\nFIRST_BYTES=({first_bytes})"
    calls, errors, code = world.rows(target, timeout_s=0 if denies else PATIENCE_S, listener=0, setup=setup)
    assert (code, calls[callee.service_port, ""].verdict) == ((1, "failed") if denies else (0, "proved")), errors
    assert ((callee.service_port, callee.endpoints()[0]) in calls) is not denies


def test_a_machine_that_calls_by_name_proves_what_its_proxy_chose(world: World) -> None:
    callees = [world.callees[kind] for kind in CHOSEN_KINDS]
    kinds = {"greets": "bytes", "tcp": "open"}
    targets = [world.mesh.target(each, **ANYWHERE) for each in callees]
    for callee, shown in zip(callees, world.each(targets, timeout_s=PATIENCE_S, **BY_NAME), strict=True):
        assert shown.code == 0, shown.errors
        row = shown.calls[callee.service_port, callee.endpoints()[0]]
        assert (row.verdict, row.how) == ("proved", "by-chance")
        assert shown.calls[callee.service_port, ""].kind == kinds.get(callee.name, "response")


@pytest.mark.parametrize("fault", FAULTS_BY_NAME)
def test_a_machine_that_calls_by_name_proves_nothing_where(world: World, fault: str) -> None:
    """Neither where an endpoint must answer, nor where any answer is enough, as without pods."""
    broken = [world.callees[f"{kind}, {fault}"] for kind in kinds_of(fault, CHOSEN_KINDS)] * 2
    wanted = [ANYWHERE] * (len(broken) // 2) + [{"endpoints": "-"}] * (len(broken) // 2)
    targets = [world.mesh.target(each, **columns, **patience(fault)) for each, columns in zip(broken, wanted, strict=True)]
    done = world.each(targets, **BY_NAME)
    for half in (done[: len(done) // 2], done[len(done) // 2 :]):
        assert proofs(broken[: len(half)], half) == {}
    for callee, shown, columns in zip(broken, done, wanted, strict=True):
        assert [*shown.calls] == [(callee.service_port, "")], "no endpoint has a row"
        is_named = "it takes no connection (refused;" in shown.errors
        # By HTTP without an endpoint that must answer, the cause is the status of the proxy.
        assert is_named == (fault == "closed") or (callee.name.startswith(OF_HTTP) and columns != ANYWHERE), (callee.name, shown.errors)


def test_requests_that_wait_for_a_connection_of_others_are_not_answered_by_routes(world: World) -> None:
    """Requests of HTTP/2 share a connection. One that others began is no attempt of these, and its failure answers them."""
    callee = world.callees["http2, dropped"]
    cluster = f"outbound|{callee.service_port}||{envoys.SERVICE}"
    with socket.create_connection(("127.0.0.1", callee.service_port)) as other:
        attempts = world.mesh.counters(cluster)["cx_total"]
        other.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        wait_until(lambda: world.mesh.counters(cluster)["cx_total"] > attempts, description="the proxy tries the endpoint")
        calls, errors, code = world.rows(world.mesh.target(callee, timeout="30", **ANYWHERE), **BY_NAME)
    assert (code, calls[callee.service_port, ""].object) == (1, f"Service {envoys.SERVICE}"), errors


def test_of_two_endpoints_the_one_that_denies_is_not_proved_by_the_other(world: World) -> None:
    """Both have connections and responses, and a caller by name does not see whose failed."""
    services = [world.callees[f"{kind}, both"] for kind in CHOSEN_KINDS]
    targets = [world.mesh.target(each, **ANYWHERE) for each in services]
    for service, shown in zip(services, world.each(targets, timeout_s=3, **BY_NAME), strict=True):
        (denies,) = world.callees[service.name.replace("both", "denies")].endpoints()
        proved = {row.endpoint for row in shown.calls.values() if row.verdict == "proved"}
        assert shown.code == 1 and denies not in proved, service.name


@pytest.mark.parametrize("kind", ["tcp", "greets"])
def test_of_two_endpoints_one_whose_connections_hang_is_not_proved_by_the_other(world: World, kind: str) -> None:
    """The caller's own proxy accepts all of them, and connects to one for 10 s."""
    service = world.callees[f"{kind}, half dropped"]
    calls, errors, code = world.rows(world.mesh.target(service, **ANYWHERE), **BY_NAME)
    assert (code, calls[service.service_port, ""].verdict, len(calls)) == (1, "failed", 1), errors
    assert f"no answer from {world.dropped} for" in errors


def test_by_name_too_an_unhealthy_endpoint_is_no_proof(world: World) -> None:
    callee = world.callees["unhealthy"]
    healthy, _ = callee.endpoints(2)
    calls, errors, code = world.rows(world.mesh.target(callee, **ANYWHERE), timeout_s=PATIENCE_S, **BY_NAME)
    assert (code, {endpoint for _, endpoint in calls}) == (0, {healthy, ""}), errors
    calls, errors, code = world.rows(world.mesh.target(callee, endpoints="-", ranges="127.0.1.2/32"), **BY_NAME)
    assert code == 1 and "was given no endpoint in 127.0.1.2/32" in errors


def test_a_caller_without_a_certificate_is_refused_unless_plaintext_is_answered(world: World) -> None:
    """A server of bytes may wait for more, and be silent. An application without a proxy answers by itself."""
    results = {"": "refused", ", plaintext": "answered", ", closed": "unreachable"}
    kinds = ("http", "grpc", "tcp", "greets")
    expected = {
        **{world.endpoint(f"{kind}{name}"): result for kind in kinds for name, result in results.items()},
        **{f"127.0.0.1:{world.callees[kind].application}": "answered" for kind in kinds},
        **{
            gateway_of(world.callees[f"http, {name}"]): result
            for name, result in {"five": "refused", "no gateway, alone": "unreachable"}.items()
        },
        world.dropped: "unreachable",
    }
    text = shell.remote_script("verification/plaintext-probe", {"ENDPOINTS": " ".join(expected), "SNI": "x", "SCHEME": "http"})
    done = envoys.run_text(text)
    assert {*parse(done).plaintext} == {Plaintext(*each) for each in expected.items()}


@pytest.mark.parametrize(("plaintext", "result"), [(False, "refused"), (True, "answered")])
def test_an_application_that_ends_tls_answers_strangers_where_its_proxy_lets_them(tmp_path: Path, plaintext: bool, result: str) -> None:
    with ExitStack() as stack:
        certificate = envoys.Authority(tmp_path, "application").issue(IDENTITY)
        port = stack.enter_context(applications.http(certificate=certificate))
        callee = Callee(name="https", protocol="tls", application=port, plaintext=plaintext)
        stack.enter_context(envoys.running(tmp_path, [callee]))
        variables = {"ENDPOINTS": callee.endpoints()[0], "SNI": "x", "SCHEME": "https"}
        done = envoys.run_text(shell.remote_script("verification/plaintext-probe", variables))
    assert parse(done).plaintext == (Plaintext(callee.endpoints()[0], result),)


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_a_machines_own_counter_shows_that_it_was_called(world: World, protocol: str) -> None:
    callee, idle = world.callees[protocol], world.callees[f"{protocol}, no application"]
    world.rows(world.mesh.target(callee), world.mesh.target(idle), timeout_s=2)
    inbound = f"{callee.port}\t{protocol}\n{idle.port}\t{protocol}"
    calls, errors, code = world.rows(inbound=inbound, listener=0)
    # In this Envoy the cluster's port is the application's; on a machine both are one.
    assert code == 1 and f"no call from a pod has reached port {idle.port}" in errors
    assert calls[callee.port, ""].answers > 0 and calls[idle.port, ""].verdict == "failed"


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_a_machines_own_calls_are_no_proof_that_it_was_called(tmp_path: Path, protocol: str) -> None:
    """Its proxy may choose the machine itself. A proof that is repeated must not count the calls of the first one."""
    with ExitStack() as stack:
        start = applications.http() if protocol == "http" else applications.of_bytes(applications.wait_for_more)
        callee = Callee(name="machine", protocol=protocol, application=stack.enter_context(start))
        mesh = stack.enter_context(envoys.running(tmp_path, [callee]))

        def prove() -> tuple[int, list[str]]:
            target = mesh.target(callee, endpoints="-", ranges="127.0.0.0/8")
            setup = "is_identified() { :; }"
            done = mesh.verify(target, timeout_s=PATIENCE_S, listener=0, inbound=f"{callee.port}\t{protocol}", setup=setup)
            return done.returncode, [row.verdict for row in parse(done.stdout).calls if not row.endpoint]

        assert [prove(), prove()] == [(1, ["failed", "failed"])] * 2
        assert mesh.verify(mesh.target(callee), timeout_s=PATIENCE_S).returncode == 0
        assert [prove(), prove()] == [(0, ["proved", "proved"])] * 2


def test_a_proof_may_come_long_after_the_calls(tmp_path: Path) -> None:
    """Envoy forgets calls alone that came before its proxy had the port from istiod, where the application has closed its connections."""
    with ExitStack() as stack:
        applied = [stack.enter_context(applications.of_bytes(applications.wait_for_more)) for _ in range(2)]
        late, early = (Callee(name=str(each), protocol="tcp", application=port, early=bool(each)) for each, port in enumerate(applied))
        mesh = stack.enter_context(envoys.running(tmp_path, [late, early]))
        assert mesh.verify(mesh.target(late), mesh.target(early), timeout_s=PATIENCE_S).returncode == 0

        def proved() -> list[bool]:
            # On a machine the ports are one: here the application's is another.
            calls = parse(mesh.verify(inbound=f"{late.port}\ttcp\n{early.application}\ttcp", listener=0).stdout).calls
            return [row.verdict == "proved" for row in calls]

        # Envoy forgets a port some seconds after its last connection, which a busy computer needs for a proof.
        with socket.create_connection(("127.0.0.1", early.service_port)):
            wait_until(lambda: mesh.counters(early.cluster).get("rq_total"), description="the connection is at the application")
            assert proved() == [True, True]
        wait_until(lambda: "rq_total" not in mesh.counters(early.cluster), description="Envoy has forgotten the early calls")
        assert proved() == [True, False]


def test_behind_a_gateway_enough_connections_are_made_to_meet_each_endpoint(world: World) -> None:
    """Each endpoint is a callee of its own: its counters show what reached it."""
    services = [world.callees[f"{kind}, five"] for kind in CHOSEN_KINDS]
    targets = [world.through(each, calls="29") for each in services]
    for service, shown in zip(services, world.each(targets, timeout_s=PATIENCE_S), strict=True):
        gateway = gateway_of(service)
        row = shown.calls[service.service_port, gateway]
        assert (row.how, row.verdict, shown.code) == ("by-chance", "proved", 0), (service.name, shown.errors)
        assert row.calls >= 29, "5 * (ln 5 + 4)"
        assert world.mesh.counters(f"gateway-{gateway}")["rq_total"] >= 29
        members = [world.callees[service.name.replace("five", f"member {each}")] for each in range(5)]
        assert all(world.mesh.counters(f"inbound|{each.port}||")["rq_total"] for each in members), service.name


@pytest.mark.parametrize("fault", FAULTS_THROUGH_GATEWAYS)
def test_no_kind_of_port_behind_a_gateway_is_proved_where_one_of_two(world: World, fault: str) -> None:
    """The other endpoint answers, and a caller does not see which of them it has met."""
    services = [world.callees[f"{kind}, {fault}, of two"] for kind in kinds_of(fault, CHOSEN_KINDS)]
    targets = [world.through(each, calls="10", **patience(fault)) for each in services]
    done = world.each(targets)
    proved = {name: endpoints for name, endpoints in proofs(services, done).items() if endpoints != [""]}
    assert proved == {}, "the other endpoint may be all that a call by the name meets"
    for service, shown in zip(services, done, strict=True):
        row = shown.calls[service.service_port, gateway_of(service)]
        assert row.cause in shown.errors, (row.cause, shown.errors)


def test_behind_a_gateway_rounds_with_a_failure_are_repeated_and_are_no_proof(world: World) -> None:
    services = [world.callees[f"{kind}, {fault}, of two"] for kind in ("http", "tcp") for fault in ("closed", "denies")]
    for service, shown in zip(services, world.each([world.through(each, calls="10") for each in services], timeout_s=3), strict=True):
        row = shown.calls[service.service_port, gateway_of(service)]
        assert (shown.code, row.verdict) == (1, "failed"), (service.name, shown.errors)
        assert row.calls > 10 or not row.answers, "2 * (ln 2 + 4), once a single call was answered"
        carried = world.mesh.counters(f"gateway-{gateway_of(service)}")
        assert (carried["cx_total"] > carried["rq_total"]) == ("closed" in service.name), "a gateway reports connections, and no attempts"


def test_a_machine_that_calls_through_a_gateway_proves_the_gateway(world: World) -> None:
    services = [world.callees[f"{kind}, five"] for kind in CHOSEN_KINDS]
    for service, shown in zip(services, world.each([*map(world.through, services)], timeout_s=PATIENCE_S, **BY_NAME), strict=True):
        assert shown.code == 0, (service.name, shown.errors)
        assert shown.calls[service.service_port, gateway_of(service)].verdict == "proved", service.name


@pytest.mark.parametrize("fault", FAULTS_THROUGH_GATEWAYS)
def test_a_machine_that_calls_through_a_gateway_proves_nothing_where(world: World, fault: str) -> None:
    services = [world.callees[f"{kind}, {fault}, alone"] for kind in kinds_of(fault, CHOSEN_KINDS)]
    targets = [world.through(each, **patience(fault)) for each in services]
    done = world.each(targets, **BY_NAME)
    assert proofs(services, done) == {}
    assert all([*shown.calls] == [(service.service_port, "")] for service, shown in zip(services, done, strict=True)), (
        "no gateway has a row"
    )


@pytest.mark.parametrize("is_machine", [False, True])
def test_a_gateway_that_the_proxy_was_not_given_is_no_proof(world: World, is_machine: bool) -> None:
    """It leads to an endpoint that answers, and clients are not led to it."""
    service, other = world.callees["http, five"], gateway_of(world.callees["http2, five"])
    target = world.mesh.target(service, endpoints="-", gateways=f"{gateway_of(service)},{other}", calls="1,1")
    calls, errors, code = world.rows(target, timeout_s=3, **BY_NAME if is_machine else {})
    assert code == 1 and f"was not given the endpoint {other}" in errors
    assert f"was not given the endpoint {gateway_of(service)}" not in errors
    proved = {endpoint for (_, endpoint), row in calls.items() if row.verdict == "proved"}
    assert other not in proved
    assert is_machine or gateway_of(service) in proved


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_many_endpoints_are_all_verified_by_few_calls(world: World, kind: str) -> None:
    callees = {count: world.callees[f"{kind}, many {count}"] for count in MANY}
    targets = [world.mesh.target(callee, endpoints=",".join(callee.endpoints(count))) for count, callee in callees.items()]
    for (count, callee), shown in zip(callees.items(), world.each(targets, timeout_s=PATIENCE_S), strict=True):
        rows = [row for row in shown.calls.values() if row.endpoint]
        assert shown.code == 0, shown.errors
        assert [row.endpoint for row in rows] == callee.endpoints(count) and {row.verdict for row in rows} == {"proved"}
        assert {row.answers for row in rows} == {1}, "which has answered is not called again"
