"""What proves a call, and what must not: the script with real sockets, a real Envoy with certificates, and real applications."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
FAULTS = {
    "nothing listens at the endpoint": "closed",
    "nothing listens behind its proxy": "no application",
    "it refuses the caller's certificate": "root",
    "it has another identity": "identity",
    "it is of a foreign trust domain": "foreign",
    "its certificate has expired": "expired",
    "an AuthorizationPolicy denies": "denies",
    "it takes plaintext alone": "plaintext",
}


@dataclass(frozen=True)
class World:
    """A mesh, and its callees by name."""

    mesh: Mesh
    callees: dict[str, Callee]

    def rows(self, *targets: str, **options: object) -> tuple[dict[tuple[int, str], Call], str, int]:
        """Return the rows by the Service's port and endpoint, what was printed of causes, and the exit status."""
        done = self.mesh.verify(*targets, **options)  # type: ignore[arg-type]
        return {(row.port, row.endpoint): row for row in parse(done.stdout).calls}, done.stderr, done.returncode


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
    protocols = {kind: "tcp" if kind == "greets" else kind for kind in KINDS}
    callees = [Callee(name=kind, protocol=protocols[kind], application=port) for kind, port in listening.items()]
    for kind, port in listening.items():
        base = Callee(name=f"{kind}, ", protocol=protocols[kind], application=port)
        variants = {
            "closed": replace(base, closed=True),
            "no application": replace(base, application=start(applications.nothing())),
            "root": replace(base, root="other"),
            "identity": replace(base, identity=OTHER),
            "foreign": replace(base, identity=FOREIGN),
            "alias": replace(base, identity=ALIAS),
            "expired": replace(base, expired=True),
            "denies": replace(base, denies=True),
            "plaintext": replace(base, plaintext=True),
        }
        for name, callee in variants.items():
            port = start(applications.nothing(envoys.free_port())) if callee.closed else envoys.free_port()
            ports = {"port": port, "service_port": envoys.free_port()}
            callees.append(replace(callee, name=f"{kind}, {name}", **ports))  # type: ignore[arg-type]
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
    return callees


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One Envoy for all of these tests."""
    with ExitStack() as stack:
        callees = {callee.name: callee for callee in _callees(stack)}
        away = {"match": {"prefix": "/"}, "redirect": {"host_redirect": "elsewhere.example.com"}}
        abort = {"match": {"prefix": "/"}, "direct_response": {"status": 503}}
        routes = Routes(
            routes={"fault": [abort], "redirect": [away]},
            subsets={"subset": {"v1": callees["subset"].endpoints(1)}},
            endpoints={name: callees[name].endpoints(2) for name in ("subset", "unhealthy")},
            unhealthy=frozenset(callees["unhealthy"].endpoints(2)[1:]),
        )
        yield World(stack.enter_context(envoys.running(tmp_path_factory.mktemp("mesh"), list(callees.values()), routes)), callees)


def test_each_kind_of_port_is_proved_by_an_answer(world: World) -> None:
    calls, errors, code = world.rows(*(world.mesh.target(world.callees[kind]) for kind in KINDS), timeout_s=PATIENCE_S)
    assert code == 0, errors
    kinds = {"greets": "bytes", "tcp": "open", "tls": "open"}
    for kind in KINDS:
        callee = world.callees[kind]
        row = calls[callee.service_port, callee.endpoints()[0]]
        assert (row.verdict, row.how, row.peer, row.kind) == ("proved", "addressed", f"{IDENTITY} {ALIAS}", kinds.get(kind, "response"))
        assert calls[callee.service_port, ""].verdict == "proved", "its name leads there"


def test_while_the_trust_domain_is_changed_an_identity_of_the_former_one_is_proof(world: World) -> None:
    callees = [world.callees[f"{kind}, alias"] for kind in KINDS]
    calls, errors, _ = world.rows(*map(world.mesh.target, callees), timeout_s=PATIENCE_S)
    assert {calls[each.service_port, each.endpoints()[0]].verdict for each in callees} == {"proved"}, errors


@pytest.mark.parametrize("fault", FAULTS)
def test_no_kind_of_port_is_proved_where(world: World, fault: str) -> None:
    broken = [world.callees[f"{kind}, {FAULTS[fault]}"] for kind in KINDS]
    calls, errors, code = world.rows(*map(world.mesh.target, broken))
    assert code == 1 and errors
    verdicts = {callee.name: calls[callee.service_port, callee.endpoints()[0]].verdict for callee in broken}
    assert set(verdicts.values()) == {"failed"}, verdicts
    words = {
        "closed": "it takes ",
        "identity": "its certificate is not one of",
        "foreign": f"its certificate is not one of {IDENTITY} or {ALIAS}: ",
        "denies": "AuthorizationPolicy",
        "root": "certificate",
        "expired": "its certificate is not valid at the caller's time",
    }
    for callee in broken:
        cause = calls[callee.service_port, callee.endpoints()[0]].cause
        # A silent server does not answer a handshake at all.
        if FAULTS[fault] == "plaintext" and callee.application != world.callees["tcp"].application:
            assert "it answers in plaintext: does a PeerAuthentication" in cause, (callee.name, cause)
        assert words.get(FAULTS[fault], "no answer from") in cause, (callee.name, cause)


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
    target = world.mesh.target(callee, path=path, expect=expect, endpoints="-", ranges="127.0.0.0/8")
    setup = "is_identified() { :; }"
    calls, errors, code = world.rows(target, timeout_s=PATIENCE_S if is_proof else 0, listener=0, setup=setup)
    assert ((calls[callee.service_port, ""].verdict == "proved"), code) == (is_proof, int(not is_proof)), errors


def test_a_status_that_a_user_allows_is_no_proof_where_a_proxy_sent_it(world: World) -> None:
    denied, absent = world.callees["http, denies"], world.callees["http, no application"]
    targets = [world.mesh.target(denied, expect="403"), world.mesh.target(absent, expect="503")]
    calls, _, code = world.rows(*targets)
    assert code == 1
    assert {calls[each.service_port, each.endpoints()[0]].verdict for each in (denied, absent)} == {"failed"}
    by_name = [world.mesh.target(denied, expect="403", endpoints="-"), world.mesh.target(absent, expect="503", endpoints="-")]
    calls, _, code = world.rows(*by_name, listener=0, setup="is_identified() { :; }")
    assert code == 1
    assert {calls[each.service_port, ""].verdict for each in (denied, absent)} == {"failed"}


def test_by_name_too_an_allowed_status_of_the_application_is_proof(world: World) -> None:
    callee = world.callees["http"]
    target = world.mesh.target(callee, path="/404", expect="404", endpoints="-", ranges="127.0.0.0/8")
    calls, errors, code = world.rows(target, timeout_s=PATIENCE_S, listener=0, setup="is_identified() { :; }")
    assert (code, calls[callee.service_port, callee.endpoints()[0]].verdict) == (0, "proved"), errors


@pytest.mark.parametrize("name", ["OK", "UNAVAILABLE"])
def test_any_status_of_an_application_of_grpc_passes(world: World, name: str) -> None:
    callee = world.callees[name]
    calls, errors, _ = world.rows(world.mesh.target(callee), timeout_s=PATIENCE_S)
    assert calls[callee.service_port, callee.endpoints()[0]].verdict == "proved", errors
    target = world.mesh.target(callee, endpoints="-", ranges="127.0.0.0/8")
    calls, errors, code = world.rows(target, timeout_s=PATIENCE_S, listener=0, setup="is_identified() { :; }")
    assert (code, calls[callee.service_port, callee.endpoints()[0]].verdict) == (0, "proved"), errors


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("echo", "proved"),
        ("tell_time", "proved"),
        ("stream", "proved"),
        ("hang_up_at_a_line", "proved"),
        ("HTTP/2 alone", "proved"),
        ("hang_up", "failed"),
        ("echo, denies", "failed"),
        ("stream, denies", "failed"),
    ],
)
def test_what_a_server_of_bytes_may_do(world: World, name: str, verdict: str) -> None:
    """One that hangs up at the first byte that is tried is asked with another."""
    callee = world.callees[name]
    calls, errors, _ = world.rows(world.mesh.target(callee), timeout_s=PATIENCE_S if verdict == "proved" else 0)
    assert calls[callee.service_port, callee.endpoints()[0]].verdict == verdict, errors


@pytest.mark.parametrize("path", ["/", "/grpc"])
def test_an_answer_that_is_none_of_grpc_is_no_proof(world: World, path: str) -> None:
    """A server of HTTP/2 answers every path with 200, and a page may have a line as of trailers."""
    callee = world.callees["http2"]
    calls, errors, _ = world.rows(world.mesh.target(callee, protocol="grpc", path=path), timeout_s=1)
    row = calls[callee.service_port, callee.endpoints()[0]]
    assert row.verdict == "failed" and "it answers, but not by gRPC" in row.cause, errors
    target = world.mesh.target(callee, protocol="grpc", path=path, endpoints="-", ranges="127.0.0.0/8")
    calls, errors, code = world.rows(target, listener=0, setup="is_identified() { :; }")
    assert (code, calls[callee.service_port, ""].verdict) == (1, "failed"), "a machine that calls by name"
    assert "it answers, but not by gRPC" in errors


@pytest.mark.parametrize("is_machine", [False, True])
def test_the_probes_headers_are_in_calls_by_name_too(world: World, is_machine: bool) -> None:
    callee = world.callees["headers"]
    options = {"endpoints": "-", "ranges": "127.0.0.0/8"} if is_machine else {}
    setup = "is_identified() { :; }\nHEADERS='x-probe: yes'"
    calls, errors, code = world.rows(
        world.mesh.target(callee, **options), timeout_s=PATIENCE_S, listener=0 if is_machine else None, setup=setup
    )
    assert (code, calls[callee.service_port, ""].verdict) == (0, "proved"), errors


@pytest.mark.parametrize("name", ["fault", "redirect"])
def test_routes_of_others_fail_no_machine_that_calls_by_name(world: World, name: str) -> None:
    callee = world.callees[name]
    target = world.mesh.target(callee, endpoints="-", ranges="127.0.0.0/8")
    calls, errors, code = world.rows(target, listener=0, setup="is_identified() { :; }")
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
        target = mesh.target(callee, endpoints="-", ranges="127.0.0.0/8")
        done = mesh.verify(target, timeout_s=0 if is_plain else PATIENCE_S, listener=0, setup=setup)
    rows = {row.endpoint: row.verdict for row in parse(done.stdout).calls}
    expected = {"": "failed"} if is_plain else {"": "proved", callee.endpoints()[0]: "proved"}
    assert (rows, done.returncode) == (expected, int(is_plain)), done.stderr
    assert ("is called without mutual TLS for" in done.stderr) is is_plain, done.stderr


@pytest.mark.parametrize("denies", [False, True])
def test_a_connection_that_a_machines_proxy_holds_back_proves_nothing(world: World, denies: bool) -> None:
    """One that detects the port's protocol waits for more bytes after these two, and tries no endpoint."""
    callee = world.callees["detected, denies" if denies else "detected"]
    target = world.mesh.target(callee, endpoints="-", ranges="127.0.0.0/8")
    first_bytes = "'0' 'P'" if denies else r"'0' 'P' '\x10'"
    setup = f"is_identified() {{ :; }}\nFIRST_BYTES=({first_bytes})"
    calls, errors, code = world.rows(target, timeout_s=0 if denies else PATIENCE_S, listener=0, setup=setup)
    assert (code, calls[callee.service_port, ""].verdict) == ((1, "failed") if denies else (0, "proved")), errors
    assert ((callee.service_port, callee.endpoints()[0]) in calls) is not denies


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_machine_that_calls_by_name_proves_what_its_proxy_chose(world: World, kind: str) -> None:
    callee = world.callees[kind]
    setup = "is_identified() { :; }"
    target = world.mesh.target(callee, endpoints="-", ranges="127.0.0.0/8")
    calls, errors, code = world.rows(target, timeout_s=PATIENCE_S, listener=0, setup=setup)
    assert code == 0, errors
    row = calls[callee.service_port, callee.endpoints()[0]]
    assert (row.verdict, row.how, row.kind) == ("proved", "by-chance", "open" if kind == "tcp" else "response")


@pytest.mark.parametrize("kind", ["http", "http2", "grpc", "tcp", "greets"])
@pytest.mark.parametrize("fault", ["closed", "no application", "root", "identity", "expired", "denies", "plaintext"])
def test_a_machine_that_calls_by_name_proves_nothing_where(world: World, kind: str, fault: str) -> None:
    callee = world.callees[f"{kind}, {fault}"]
    target = world.mesh.target(callee, endpoints="-", ranges="127.0.0.0/8")
    calls, errors, code = world.rows(target, listener=0, setup="is_identified() { :; }")
    assert code == 1
    assert ("it takes no connection (refused;" in errors) is (fault == "closed"), errors
    assert calls[callee.service_port, ""].verdict == "failed"
    assert callee.endpoints()[0] not in {endpoint for _, endpoint in calls}


@pytest.mark.parametrize("kind", ["http", "tcp", "grpc"])
def test_of_two_endpoints_the_one_that_denies_is_not_proved_by_the_other(tmp_path: Path, kind: str) -> None:
    """Both have connections and responses, and a caller by name does not see whose failed."""
    with ExitStack() as stack:
        starts: dict[str, Callable[[], AbstractContextManager[int]]] = {"http": applications.http, "grpc": applications.of_grpc}
        start = starts.get(kind, lambda: applications.of_bytes(applications.wait_for_more))
        answers = Callee(name="answers", protocol=kind, application=stack.enter_context(start()))
        denies = replace(answers, name="denies", denies=True, port=envoys.free_port(), service_port=envoys.free_port())
        endpoints = [*answers.endpoints(), *denies.endpoints()]
        mesh = stack.enter_context(envoys.running(tmp_path, [answers, denies], Routes(endpoints={"answers": endpoints})))
        target = mesh.target(answers, endpoints="-", ranges="127.0.0.0/8")
        done = mesh.verify(target, timeout_s=3, listener=0, setup="is_identified() { :; }")
        proved = {row.endpoint for row in parse(done.stdout).calls if row.verdict == "proved"}
    assert done.returncode == 1 and denies.endpoints()[0] not in proved, done.stdout


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_an_endpoint_that_drops_packets_takes_no_connection(tmp_path: Path, kind: str) -> None:
    """As one without a route back: a full backlog drops packets, too. A pod has no privileges to look for itself."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = full.getsockname()
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        endpoint = f"127.0.0.1:{address[1]}"
        callee = Callee(name="full", protocol=kind, application=envoys.free_port())
        mesh = stack.enter_context(envoys.running(tmp_path, [callee], Routes(endpoints={"full": [endpoint]})))
        target = mesh.target(callee, endpoints=endpoint)
        row = parse(mesh.verify(target, setup="as_proxy() { return 1; }").stdout).calls[0]
    assert row.verdict == "failed" and "it takes no connection (timeout;" in row.cause, row.cause


def test_a_caller_without_a_certificate_is_refused_unless_plaintext_is_answered(world: World) -> None:
    results = {"": "refused", ", plaintext": "answered", ", closed": "unreachable"}
    # A server of bytes may wait for more, and be silent.
    expected = {
        world.callees[f"{kind}{name}"].endpoints()[0]: result for kind in ("http", "tcp", "greets") for name, result in results.items()
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

        assert proved() == [True, True]
        wait_until(lambda: "rq_total" not in mesh.counters(early.cluster), description="Envoy has forgotten the early calls")
        assert proved() == [True, False]


@pytest.mark.parametrize(
    ("protocol", "fault"),
    [
        ("http", {}),
        ("http", {"closed": True}),
        ("http", {"identity": OTHER}),
        ("http", {"root": "other"}),
        ("http", {"denies": True}),
        ("http", {"plaintext": True}),
        ("tcp", {}),
        ("tcp", {"closed": True}),
        ("tcp", {"identity": OTHER}),
        ("tcp", {"root": "other"}),
        ("tcp", {"denies": True}),
    ],
)
def test_behind_a_gateway_enough_connections_are_made_to_meet_each_endpoint(tmp_path: Path, protocol: str, fault: dict[str, Any]) -> None:
    """Each endpoint is a callee of its own: its counters show what reached it. One that is broken fails the proof of all."""
    with ExitStack() as stack:
        application = applications.http() if protocol == "http" else applications.of_bytes(applications.wait_for_more)
        port = stack.enter_context(application)
        callees = [Callee(name=f"member {each}", protocol=protocol, application=port) for each in range(5)]
        callees[-1] = replace(callees[-1], **fault)
        gateway = envoys.free_port()
        address = f"127.0.0.1:{gateway}"
        routes = Routes(gateways={gateway: [each.endpoints()[0] for each in callees]}, endpoints={callees[0].name: [address]})
        mesh = stack.enter_context(envoys.running(tmp_path, callees, routes))
        done = mesh.verify(mesh.target(callees[0], endpoints="-", gateways=address, calls="29"), timeout_s=3 if fault else PATIENCE_S)
        row = parse(done.stdout).calls[0]
        assert (row.how, row.verdict, done.returncode) == ("by-chance", "failed" if fault else "proved", int(bool(fault))), done.stderr
        assert row.calls >= 29, "5 * (ln 5 + 4)"
        carried = mesh.counters(f"gateway-{gateway}")
        assert (carried["cx_total"] > carried["rq_total"]) == ("closed" in fault), "what a gateway reports are connections, and no attempts"
        if not fault:
            assert all(mesh.counters(f"inbound|{each.port}||")["rq_total"] for each in callees)


@pytest.mark.parametrize("protocol", ["http", "tcp"])
@pytest.mark.parametrize("count", [1, 10, 100, 300])
def test_many_endpoints_are_all_verified_by_few_calls(protocol: str, count: int, tmp_path: Path) -> None:
    with ExitStack() as stack:
        start = applications.http() if protocol == "http" else applications.of_bytes(applications.wait_for_more)
        callee = Callee(name="many", protocol=protocol, application=stack.enter_context(start))
        endpoints = callee.endpoints(count)
        mesh = stack.enter_context(envoys.running(tmp_path, [callee], Routes(endpoints={"many": endpoints})))
        done = mesh.verify(mesh.target(callee, endpoints=",".join(endpoints)), timeout_s=PATIENCE_S)
        rows = [row for row in parse(done.stdout).calls if row.endpoint]
        assert done.returncode == 0, done.stderr
        assert [row.endpoint for row in rows] == endpoints and {row.verdict for row in rows} == {"proved"}
        assert sum(row.calls for row in rows) <= 2 * count, "a busy computer may need a second one"
