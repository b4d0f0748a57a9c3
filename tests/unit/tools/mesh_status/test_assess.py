"""What is shown: the mesh as a table, as JSON and as a drawing, without a secret in any of them.

A wanted change of a golden file is written down by the command of `UPDATE`, and reviewed as its diff.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from components import config, names, versions
from components.config import reader
from components.config.stack import Settings
from components.verification import evidence
from tests.unit.tools.mesh_status import meshes
from tools.lab import paths
from tools.mesh_status import assess, cli, pulumi, read, read_cluster, read_state, render_json, render_svg, render_table, svg_layout, verify
from tools.mesh_status.__main__ import main
from tools.mesh_status.model import Call, Mesh, Verification, Workload, worst_health
from tools.mesh_status.read_machines import MachineReport

GOLDEN = Path(__file__).parent / "golden"
DRAWN = paths.ROOT / "docs" / "status.svg"
"""What the documents show is what the tests hold."""
NAMES: tuple[meshes.Name, ...] = ("single", "broken", "multi")


def tables(mesh: Mesh, width: int = 100) -> str:
    output = io.StringIO()
    render_table.show(mesh, Console(file=output, width=width, highlight=False, markup=False, emoji=False))
    return output.getvalue()


UPDATE = "UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/unit/tools/mesh_status/test_assess.py"
SHOWN: dict[str, Callable[[Mesh], str]] = {"txt": tables, "json": render_json.text, "svg": render_svg.draw}


@pytest.mark.parametrize("kind", SHOWN)
@pytest.mark.parametrize("name", NAMES)
def test_the_mesh_is_shown_as_reviewed(name: meshes.Name, kind: str) -> None:
    file, now = DRAWN if (name, kind) == ("multi", "svg") else GOLDEN / f"{name}.{kind}", SHOWN[kind](meshes.mesh(name))
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(now)
    assert now == file.read_text(), f"{file.name} changed; if it should, write it down with {UPDATE}"


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_comes_out(name: meshes.Name) -> None:
    facts = meshes.facts(name)
    assert meshes.CANARIES[1] in json.dumps(meshes.recorded(name, "export"))
    mesh = assess.mesh(facts, Verification(error="it failed"))
    shown = [show(mesh) for show in SHOWN.values()]
    for text in (*shown, repr(facts), repr(mesh)):
        assert not [canary for canary in meshes.CANARIES if canary in text]
        assert "PRIVATE KEY" not in text and "eyJ" not in text


@pytest.mark.parametrize("name", NAMES)
def test_tables_fit_100_columns(name: meshes.Name) -> None:
    lines = tables(meshes.mesh(name)).splitlines()
    assert max(map(len, lines)) <= 100 and not [line for line in lines if line.endswith(" ") or "\x1b" in line]
    for entry in meshes.facts(name).state.machines.values():
        assert any(entry.entry in line for line in lines), "a WorkloadEntry's name is on one line"


@pytest.mark.parametrize("name", NAMES)
def test_the_drawing_is_plain_and_has_its_text_as_text(name: meshes.Name) -> None:
    mesh, text = meshes.mesh(name), render_svg.draw(meshes.mesh(name))
    root = ElementTree.fromstring(text)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "style", "defs", "marker", "path", "rect", "circle", "text"}
    assert not re.search(r"<script|\bon\w+=|href|@import|url\(http", text)
    assert "prefers-color-scheme:dark" in text
    words = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {endpoint.name for workload in mesh.workloads for endpoint in workload.endpoints} <= words
    assert {f"Network {network.name}" for network in mesh.networks} <= words
    assert render_svg.draw(mesh) == text


def test_names_are_escaped_and_cut() -> None:
    mesh = replace(meshes.mesh("single"), id="<lab> & " + "x" * 100)
    root = ElementTree.fromstring(render_svg.draw(mesh))
    title = next(element.text for element in root.iter() if element.get("class") == "text title")
    assert title and title.startswith("Mesh <lab> & x") and title.endswith("…")


def test_nothing_overlaps_in_a_drawing_of_many() -> None:
    mesh = meshes.mesh("multi")
    product = next(each for each in mesh.workloads if each.name == "product")
    machine = product.endpoints[0]

    def large(name: str) -> Workload:
        others = [replace(machine, name=f"{name}-{number}", address=f"172.31.26.{number}") for number in range(34)]
        return replace(
            product,
            name=name,
            services={f"{name}.shop": (80,)},
            endpoints=(*others, replace(others[0], name=f"{name}-x", health="unhealthy")),
        )

    many = replace(mesh, workloads=tuple(map(large, "abc")))
    drawing = svg_layout.arrange(many, 56)
    cards = list(dict.fromkeys(drawing.cards.values()))
    for number, one in enumerate(cards):
        for other in cards[:number]:
            apart = (
                one.x >= other.x + other.width
                or other.x >= one.x + one.width
                or one.y >= other.y + other.height
                or other.y >= one.y + one.height
            )
            assert apart, f"{one.title} and {other.title} overlap"
    assert drawing.cards["machine/a-x"].title == "a-x", "what is not healthy is always shown"
    assert [card.title for card in cards if card.title.endswith(" more")] == ["27 more"] * 3
    assert max(card.y + card.height for card in cards) < drawing.height


def test_edges_are_callers_and_endpoints_not_their_product() -> None:
    mesh = meshes.mesh("multi")
    drawing = svg_layout.arrange(mesh, 56)
    pairs = {(call.caller, call.endpoint) for call in mesh.calls}
    assert len(drawing.edges) == len({call.caller for call in mesh.calls}) + len({call.endpoint for call in mesh.calls}) + len(
        mesh.gateway_traffic
    )
    assert len(pairs) == 13 and sum(edge.through for edge in drawing.edges) == 3 + 4


def test_calls_to_what_is_gone_are_left_out() -> None:
    mesh = meshes.mesh("single")
    gone = Call(
        caller="machine gone",
        caller_identity="",
        service="gone.shop.svc.cluster.local:80",
        endpoint="10.9.9.9:80",
        identity="",
        path="direct",
        answers=1,
    )
    with_gone = svg_layout.arrange(replace(mesh, calls=(*mesh.calls, gone)), 56)
    assert len(with_gone.edges) == len(svg_layout.arrange(mesh, 56).edges)


def test_the_worst_health_counts() -> None:
    assert worst_health([]) == "healthy"
    assert worst_health(["healthy", "unknown", "missing", "unhealthy"]) == "unhealthy"
    assert worst_health(["healthy", "unknown", "missing"]) == "missing"
    assert meshes.mesh("single").health == meshes.mesh("multi").health == "healthy"
    assert meshes.mesh("single", cluster=read_cluster.Cluster(problem="no answer")).health == "unknown"


def test_a_cluster_that_left_the_range_of_its_istio_is_named() -> None:
    """As a release channel of GKE does. The mesh is as healthy as it was."""
    facts = meshes.facts("single")
    istio = assess.mesh(facts).control_plane.version
    assert versions.minor(istio) == "1.31"
    for kubernetes, remarks in (
        ("v1.35.4+k3s1", ()),
        ("", ()),
        ("v1.38.0-gke.1", ("the cluster has Kubernetes v1.38.0-gke.1; Istio 1.31 supports Kubernetes 1.32 to 1.37: upgrade Istio (docs/how-to/upgrades.md)",)),
        ("v1.31.9", ("the cluster has Kubernetes v1.31.9; Istio 1.31 supports Kubernetes 1.32 to 1.37: upgrade the cluster",)),
    ):  # fmt: skip
        mesh = assess.mesh(replace(facts, cluster=replace(facts.cluster, kubernetes=kubernetes)))
        assert (mesh.health, mesh.advice) == ("healthy", remarks)


def test_what_the_state_lacks_is_missing() -> None:
    facts = meshes.facts("single")
    without = {name: machine for name, machine in facts.state.machines.items() if name != "ledger-1"}
    mesh = assess.mesh(replace(facts, state=replace(facts.state, machines=without), cluster=replace(facts.cluster, services=frozenset())))
    ledger = next(each for each in mesh.workloads if each.name == "ledger")
    declared = next(each for each in ledger.endpoints if each.name == "ledger-1")
    assert (declared.health, declared.network) == ("missing", "pods")
    assert any(each.name == "ledger-172.31.26.131-pods" and each.health == "healthy" for each in ledger.endpoints), "joined by itself"
    assert "the Service ledger is not in the cluster: run `pulumi refresh` and `pulumi up`" in ledger.advice


@pytest.mark.parametrize("mesh_network", ["pods", "named-by-the-mesh", ""])
def test_each_network_needs_its_own_machines_of_groups(mesh_network: str) -> None:
    """Machines with a registration count for none. The mesh may name the pods' network otherwise."""
    facts = meshes.facts("single")
    assert isinstance(facts.settings, Settings)
    fleet = config.load(reader.read_file("fleet")).instance_groups["product-fleet"]
    groups = {"product-fleet": fleet, "product-far": fleet.model_copy(update={"network": "far"})}
    settings = facts.settings.model_copy(update={"machines": {**facts.settings.machines, **groups}})
    state = replace(facts.state, facts=replace(facts.state.facts, network=mesh_network))

    def advice(*entries: read_cluster.Entry) -> list[str]:
        cluster = replace(facts.cluster, entries=(*facts.cluster.entries, *entries))
        mesh = assess.mesh(replace(facts, settings=settings, state=state, cluster=cluster))
        product = next(each for each in mesh.workloads if each.name == "product")
        assert product.health == ("missing" if product.advice else "healthy")
        return [each.partition(" are ")[0] for each in product.advice]

    def entry(number: int, network: str, registration: str = "") -> read_cluster.Entry:
        address = f"192.0.2.{number}"
        name = names.entry_name("product", address, network)
        return read_cluster.Entry(name, "shop", "product", address, network, healthy=True, registration=registration)

    near = [entry(number, mesh_network) for number in range(4)]
    few = "{} of at least 2 machines of its instance groups in the network far".format
    assert advice(*near) == [few(0)]
    assert advice(*near, entry(5, "far"), entry(6, "far", "0123")) == [few(1)]
    assert advice(*near, entry(5, "far"), entry(6, "far")) == []


def test_a_service_of_others_that_is_missing_is_not_ours_to_create() -> None:
    """A refresh and an update would leave it away."""
    facts = meshes.facts("single")
    assert isinstance(facts.settings, Settings)
    ledger = facts.settings.workloads["ledger"]
    services = {name: service.model_copy(update={"existing": True}) for name, service in ledger.services.items()}
    workloads = {**facts.settings.workloads, "ledger": ledger.model_copy(update={"services": services})}
    settings = facts.settings.model_copy(update={"workloads": workloads})
    mesh = assess.mesh(replace(facts, settings=settings, cluster=replace(facts.cluster, services=frozenset())))
    advice = next(each.advice for each in mesh.workloads if each.name == "ledger")
    assert advice == ("the Service ledger is not in the cluster: the stack file has it as `existing`: create it, then run `pulumi up`",)


def test_a_gateways_machine_joins_again_by_the_key_of_its_network() -> None:
    facts = meshes.facts("multi")
    reports = {name: replace(seen, files=("/etc/x",)) for name, seen in facts.reports.items() if name in ("far-gateway-1", "product-1")}
    mesh = assess.mesh(replace(facts, reports=reports))
    advice = {each.name: each.advice for workload in mesh.workloads for each in workload.endpoints}
    assert "raise `networks.far.gateway.rotation` in the stack file" in advice["far-gateway-1"][0]
    assert "raise `machines.product-1.rotation` in the stack file" in advice["product-1"][0]


def test_endpoints_are_in_the_stacks_network_where_the_mesh_has_no_name_for_it() -> None:
    """Machines of the stack, one that joined by itself, one that the stack file lacks, and pods."""
    facts = meshes.facts("single")
    assert isinstance(facts.settings, Settings)
    machines = {name: replace(each, entry=each.entry.removesuffix("-pods")) for name, each in facts.state.machines.items()}
    entries = tuple(replace(each, name=each.name.removesuffix("-pods"), network="") for each in facts.cluster.entries)
    pods = {name: tuple(replace(pod, network="") for pod in each) for name, each in facts.cluster.pods.items()}
    without = facts.settings.model_copy(
        update={"machines": {name: each for name, each in facts.settings.machines.items() if name != "product-1"}}
    )
    del machines["ledger-1"]
    state = replace(facts.state, machines=machines, facts=replace(facts.state.facts, network=""))
    mesh = assess.mesh(replace(facts, settings=without, state=state, cluster=replace(facts.cluster, entries=entries, pods=pods)))
    assert [each.name for each in mesh.networks] == [mesh.network] == ["pods"]
    assert {endpoint.network for workload in mesh.workloads for endpoint in workload.endpoints} == {"pods"}


def test_a_verification_that_is_behind_is_said() -> None:
    product = joined(meshes.facts("single"), timedelta(minutes=1), "another")
    assert product.advice == ("product-1 joined or changed after it was verified last: run `./scripts/status --verify`",)
    assert product.health == "healthy"


@pytest.mark.parametrize(
    ("after", "revision"),
    [
        (-timedelta(seconds=5), "another"),  # verified after the join: by a first update, or by --verify
        (timedelta(minutes=1), ""),  # a plain update that joined again and changed nothing
    ],
)
def test_nobody_is_told_to_verify_what_was_verified_just_now(after: timedelta, revision: str) -> None:
    assert joined(meshes.facts("single"), after, revision).advice == ()


def test_no_verification_is_advised_right_after_one_that_failed() -> None:
    facts = meshes.facts("single")
    facts = replace(facts, state=replace(facts.state, unproven=("no answer from 10.0.0.9:80",)))
    failed = Verification(error="machine product-1: no answer")
    assert joined(facts, timedelta(minutes=1), "another", failed).advice == ()
    assert assess.mesh(facts, failed).advice == ("the last verification warned: no answer from 10.0.0.9:80",)


def joined(facts: assess.Facts, after: timedelta, revision: str, verification: Verification | None = None) -> Workload:
    """The workload product, whose machine product-1 joined a time after it was verified; as the same one where `revision` is empty."""
    machine, verified = facts.state.machines["product-1"], facts.state.workloads["product"].verified
    assert verified
    again = replace(machine, joined=verified + after, revision=revision or machine.revision)
    machines = {**facts.state.machines, "product-1": again}
    mesh = assess.mesh(replace(facts, state=replace(facts.state, machines=machines)), verification)
    return next(each for each in mesh.workloads if each.name == "product")


def test_the_age_of_the_proof_is_that_of_the_oldest() -> None:
    facts = meshes.facts("single")
    product = replace(facts.state.workloads["product"], verified=facts.read - timedelta(hours=5))
    state = replace(facts.state, workloads={**facts.state.workloads, "product": product})
    assert "verified 5 h ago: healthy" in tables(assess.mesh(replace(facts, state=state))).splitlines()[0]
    never = {name: replace(each, verified=None) for name, each in facts.state.workloads.items()}
    assert "never verified: healthy" in tables(assess.mesh(replace(facts, state=replace(facts.state, workloads=never)))).splitlines()[0]


def test_warnings_of_the_last_verification_are_shown_as_warnings() -> None:
    """The state has evidence of verifications that succeeded alone. Such a cause says nothing of the mesh's health."""
    facts = meshes.facts("single")
    assert assess.mesh(facts).advice == ()
    causes = ("no answer from 10.0.0.9:80; look at machine product-1", "calls by the name are answered by none")
    mesh = assess.mesh(replace(facts, state=replace(facts.state, unproven=causes)))
    warnings = tuple(f"the last verification warned: {cause}" for cause in causes)
    assert mesh.advice == (*warnings, "when that is settled, `./scripts/status --verify` verifies again")
    assert mesh.health == "healthy"
    assert f"the last verification warned: {causes[0]}" in " ".join(tables(mesh).split())


def test_what_a_verification_left_out_needs_an_update() -> None:
    """To verify again would leave it out again: its join, or its gateway, runs in an update alone."""
    exported = meshes.recorded("single", "export")
    outputs = next(each["outputs"] for each in exported["deployment"]["resources"] if each["type"] == "pulumi:pulumi:Stack")
    causes = [f"machine product-2 is missing: its join {evidence.FAILED_IN_UPDATE}", "pod x is not called: its address is none of IPv4"]
    left_out = [{"verdict": "failed", "endpoints": [{"cause": cause, "object": "x"}]} for cause in causes]
    outputs["verification"] = json.dumps({"product": {"calls": left_out}})
    mesh = meshes.mesh("single", state=read_state.parse(exported))
    assert mesh.advice == (
        "machine product-2 is missing: its join failed, and the last verification left it out: run `pulumi up`, which verifies too",
        "the last verification warned: pod x is not called: its address is none of IPv4",
        "when that is settled, `./scripts/status --verify` verifies again",
    )
    assert mesh.health == "healthy"


def test_a_gateway_that_is_not_ours_is_judged_by_who_reaches_it() -> None:
    facts = meshes.facts("single")
    cluster = replace(facts.cluster, gateway=(), gateway_addresses=())

    def health(of_stack: bool, reached: bool | None) -> str:
        reports = {"product-1": replace(facts.reports["product-1"], gateway=reached)}
        state = replace(facts.state, own_gateway=of_stack)
        gateway = assess.mesh(replace(facts, state=state, cluster=cluster, reports=reports)).networks[0].gateway
        return gateway.health if gateway else ""

    assert [health(False, True), health(False, False), health(False, None), health(True, True)] == [
        "healthy",
        "unhealthy",
        "unknown",
        "missing",
    ]


def test_the_same_trouble_of_several_machines_is_said_once() -> None:
    facts = meshes.facts("multi")
    away = {name: replace(seen, gateway=False) for name, seen in facts.reports.items()}
    text = tables(assess.mesh(replace(facts, reports=away)))
    assert "- machines product-1, product-2, product-3: cannot reach the east-west gateway at 172.31.26.2" in text


@pytest.mark.parametrize(
    ("options", "name", "failure", "code"),
    [
        ([], "single", None, cli.HEALTHY),
        (["--json"], "multi", None, cli.HEALTHY),
        (["--stack", "lab"], "broken", None, cli.NOT_HEALTHY),
        (["--verify"], "single", Verification(), cli.HEALTHY),
        (["--verify"], "single", Verification(error="machine product-1: no answer"), cli.NOT_HEALTHY),
        ([], "single", pulumi.StackError("`pulumi stack export` failed"), cli.UNREADABLE),
        ([], "single", KeyboardInterrupt(), cli.INTERRUPTED),
        (["--svg", "no such directory/mesh.svg"], "single", None, cli.UNREADABLE),
    ],
)
def test_exit_codes(
    options: list[str], name: meshes.Name, failure: object, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def facts(variables: object, stack: str | None) -> assess.Facts:
        if isinstance(failure, BaseException):
            raise failure
        return meshes.facts(name)

    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(read, "facts", facts)
    monkeypatch.setattr(verify, "run", lambda *arguments: failure)
    monkeypatch.setattr("sys.argv", ["status", *options])
    assert main() == code
    out, err = capsys.readouterr()
    if code == cli.UNREADABLE or code == cli.INTERRUPTED:
        assert not out and len(err.strip().splitlines()) == 1
    elif "--json" in options:
        assert json.loads(out)["health"] == "healthy"
    elif isinstance(failure, Verification) and failure.error:
        assert "The verification failed: machine product-1: no answer" in out


def test_a_wrong_command_line_is_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.parser().parse_args(["--colour"])
    assert raised.value.code == 2


FAILED = """\
Updating (lab):
@ updating....
 +- command:local:Command product-verification **replacing failed**
Diagnostics:
  command:local:Command (product-verification):
    error: Process exited with status 1: running "bash -s":
    entry\tproduct-1\tproduct-172.31.26.129-pods\t172.31.26.129:8080\tHealthy
    workload product: machine product-2 is unhealthy: its probe fails
  pulumi:pulumi:Stack (istio-vm-mesh-lab):
    error: update failed

Resources:
    45 unchanged
"""


def test_verifying_replaces_the_proofs_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[list[str]] = []
    answers = [(0, ""), (255, FAILED), (255, "error: ... --target ...")]
    monkeypatch.setattr(read_state, "read", lambda *arguments: meshes.facts("single").state)

    def update(variables: object, *arguments: str) -> tuple[int, str]:
        calls.append(list(arguments))
        return answers.pop(0)

    monkeypatch.setattr(pulumi, "update", update)
    results = [verify.run({}, name) for name in ("lab", None, None)]
    targets = [word.rpartition(":")[2] for word in calls[0] if word.startswith("--target-replace=urn:pulumi:lab::")]
    assert sorted(targets) == ["ledger-1-proof", "ledger-verification", "product-1-proof", "product-2-proof", "product-verification"]
    assert calls[0][:2] == ["--stack", "lab"] and "--stack" not in calls[1]
    assert [each.error for each in results[:2]] == ["", "workload product: machine product-2 is unhealthy: its probe fails"]
    assert "run `pulumi up`, which verifies too" in results[2].error


def test_a_stack_that_verifies_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_state, "read", lambda *arguments: replace(meshes.facts("single").state, proofs=()))
    with pytest.raises(pulumi.StackError, match="`verify` is none"):
        verify.run({}, None)


def test_an_unreachable_machine_is_a_row() -> None:
    mesh = meshes.mesh("single", reports={"product-1": MachineReport(problem="cannot be reached by SSH at 172.31.26.129: timed out")})
    product = next(each for each in mesh.workloads if each.name == "product")
    row = next(each for each in product.endpoints if each.name == "product-1")
    assert (row.health, row.state, row.advice) == ("unknown", "Healthy", ("cannot be reached by SSH at 172.31.26.129: timed out",))
