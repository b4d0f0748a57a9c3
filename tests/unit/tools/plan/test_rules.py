"""Each rule is broken by what it names, by nothing near it, and not where its reason is given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.config import load_file, reader
from components.config.rules import DisabledRules, Rules
from tests.unit.tools.plan.changes import config_of, described
from tests.unit.tools.plan.plans import MESH, change, happens, machine, mesh, plan, workload
from tools.plan import render_markdown
from tools.plan.compare import compare
from tools.plan.mesh_model import MeshPicture, Opening, OpeningKind, Versions
from tools.plan.model import Action, Mark, Pause, Plan, VersionsChange
from tools.plan.picture import decode
from tools.plan.resources import CLUSTER_CHECK, UNKNOWN
from tools.plan.rule_words import rule
from tools.plan.rules import admits_internet, broken_rules, fails

WEB = MESH.workloads[0]
LEAVES = happens(Action.LEAVES)


def opened(kind: OpeningKind, *sources: str, world: bool = False, mode: str = "") -> MeshPicture:
    opening = Opening(kind=kind, name="door", sources=sources, world=world, mode=mode)
    return replace(MESH, openings=(opening,))


def versions(control_plane: str, machines: str = "", pods: str = "") -> MeshPicture:
    side = Versions(control_plane=control_plane, machines=machines, pods=pods)
    return replace(MESH, versions=side)


def on_kubernetes(istio: str, kubernetes: str) -> MeshPicture:
    return replace(MESH, versions=Versions(control_plane=istio, kubernetes=kubernetes))


def upgraded(before: str, after: str) -> Plan:
    old, new = (Versions(control_plane=each, machines=each, pods=each) for each in (before, after))
    changed = VersionsChange(before=old, after=new)
    return replace(plan(picture=versions(after, after, after)), versions=changed)


BROKEN = {
    "machine-with-a-public-address": (
        "publicAddress",
        plan(picture=mesh(workload("web", machine("web-1", "34.1.2.3")))),
    ),
    "machine-with-a-public-ipv6-address": (
        "publicAddress",
        plan(picture=mesh(workload("web", machine("web-1", "2600:1900::1")))),
    ),
    "public-address": ("publicAddress", plan(picture=opened(OpeningKind.PUBLIC_ADDRESS))),
    "open-firewall": ("openToWorld", plan(picture=opened(OpeningKind.FIREWALL, "0.0.0.0/0"))),
    "open-in-two-halves": (
        "openToWorld",
        plan(picture=opened(OpeningKind.FIREWALL, "0.0.0.0/1", "128.0.0.0/1")),
    ),
    "open-load-balancer": (
        "openToWorld",
        plan(picture=opened(OpeningKind.LOAD_BALANCER, world=True)),
    ),
    "open-to-ipv6": ("openToWorld", plan(picture=opened(OpeningKind.FIREWALL, "::/0"))),
    "workload-without-mutual-tls": (
        "plaintext",
        plan(picture=mesh(replace(WEB, strict=False))),
    ),
    "permissive": (
        "plaintext",
        plan(picture=opened(OpeningKind.MUTUAL_TLS, mode="PERMISSIVE", world=True)),
    ),
    "cluster-without-protection": (
        "deletionProtection",
        plan(picture=replace(MESH, protected=False)),
    ),
    "everything-restarts": ("allAtOnce", plan(replace(change(), pause=Pause.ALL))),
    "last-machine-leaves": (
        "allAtOnce",
        plan(change(LEAVES), picture=mesh(workload("web"))),
    ),
    "last-machine-moves": (
        "allAtOnce",
        plan(change(happens(Action.MOVES)), picture=mesh(workload("web"))),
    ),
    "given-up-machine-goes": ("leaveWithoutDrain", plan(change(replace(LEAVES, drained=False)))),
    "replaced-without-drain": (
        "leaveWithoutDrain",
        plan(change(replace(happens(Action.REPLACED), drained=False))),
    ),
    "machines-two-behind": ("versionSkew", plan(picture=versions("1.31.0", "1.29.5"))),
    "machines-ahead": ("versionSkew", plan(picture=versions("1.30.2", "1.31.0"))),
    "pods-ahead": ("versionSkew", plan(picture=versions("1.30.2", "1.30.2", "1.31.0"))),
    "another-major-version": ("versionSkew", plan(picture=versions("2.0.0", "1.31.0"))),
    "upgrade-of-two-minors": ("versionSkew", upgraded("1.29.0", "1.31.0")),
    "downgrade": ("versionSkew", upgraded("1.31.0", "1.30.0")),
    "kubernetes-that-istio-does-not-support": (
        "kubernetesVersion",
        plan(picture=on_kubernetes("1.31.0", "1.38")),
    ),
    "shared-identity": (
        "sharedIdentity",
        plan(picture=mesh(WEB, replace(WEB, name="api", machines=()))),
    ),
}

KEPT = {
    "nothing-changes": plan(),
    "no-picture": plan(picture=None),
    "private-addresses": plan(
        picture=mesh(
            *(
                workload(f"w{n}", machine(f"m{n}", text))
                for n, text in enumerate(
                    ("10.0.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "", "web.internal")
                )
            )
        )
    ),
    "private-sources": plan(
        picture=opened(OpeningKind.FIREWALL, "10.0.0.0/8", "fc00::/7", "35.191.0.0/16", "nodes")
    ),
    "gateway-of-istio": plan(picture=opened(OpeningKind.GATEWAY, world=True)),
    "strict": plan(picture=opened(OpeningKind.MUTUAL_TLS, mode="STRICT")),
    "no-such-protection": plan(picture=replace(MESH, protected=None)),
    "pods-answer": plan(replace(change(), pause=Pause.MACHINES)),
    "one-machine-leaves": plan(change(LEAVES)),
    "last-machine-leaves-pods": plan(
        change(LEAVES), picture=mesh(replace(workload("web"), replicas=1))
    ),
    "workload-is-removed": plan(
        replace(change(LEAVES), mark=Mark.REMOVED, pause=Pause.ALL), picture=mesh()
    ),
    "workload-is-new": plan(replace(change(), mark=Mark.ADDED, pause=Pause.ALL)),
    "given-up-but-not-gone": plan(change(replace(happens(Action.FORGOTTEN), drained=False))),
    "machines-one-behind": plan(picture=versions("1.31.0", "1.30.5", "1.31.0")),
    "patches-differ": plan(picture=versions("1.31.0", "1.31.4")),
    "supported-kubernetes": plan(picture=on_kubernetes("1.31.0", "1.37")),
    "kubernetes-that-nothing-reads": plan(picture=on_kubernetes("1.31.0", "")),
    "kubernetes-of-a-mesh-that-nothing-reads": plan(picture=on_kubernetes("", "1.38")),
    "adopted": plan(picture=versions("", "1.29.0")),
    "private-build": plan(picture=versions("latest", "1.29.0")),
    "upgrade-of-one-minor": upgraded("1.30.0", "1.31.0"),
    "destroy": replace(
        plan(
            replace(change(replace(LEAVES, drained=False)), mark=Mark.REMOVED),
            picture=replace(MESH, protected=False),
        ),
        destroy=True,
    ),
}


@pytest.mark.parametrize(("key", "broken"), BROKEN.values(), ids=BROKEN)
def test_a_rule_is_broken_and_names_what_breaks_it(key: str, broken: Plan) -> None:
    [first] = {each.rule: each for each in broken_rules(broken, Rules())}.values()
    assert (first.rule, first.excepted) == (key, "")
    assert first.subject
    assert "Rule " not in rule(first).render(lambda text, _: text), "its sentence is missing"


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_what_is_near_a_rule_does_not_break_it(kept: Plan) -> None:
    assert broken_rules(kept, Rules()) == ()


@pytest.mark.parametrize(("key", "broken"), BROKEN.values(), ids=BROKEN)
def test_a_reason_disables_its_rule_alone_and_is_shown(key: str, broken: Plan) -> None:
    for name in DisabledRules.model_fields.values():
        rules = Rules(disabled=DisabledRules.model_validate({name.alias: "edge"}))
        result = broken_rules(broken, rules)
        assert fails(result) == (name.alias != key)
        assert {each.rule for each in result if each.excepted} == {name.alias}


@pytest.mark.parametrize(
    ("former", "new"),
    [
        ({}, True),
        ({"plaintext": "edge"}, False),
        ({"plaintext": "an older reason"}, True),
        ({"openToWorld": "edge"}, True),
        (None, False),
    ],
)
def test_a_rule_that_the_change_disables_stands_first(
    former: dict[str, str] | None, new: bool
) -> None:
    planned = plan(picture=mesh(replace(WEB, strict=False)))
    broken = broken_rules(planned, Rules(disabled=DisabledRules(plaintext="edge")), former)
    assert not fails(broken)
    assert [each.new for each in broken] == [new]
    shown = render_markdown.text(replace(planned, broken=broken), limit=10_000)
    line = "- `plaintext`: `edge`"
    assert shown.startswith(f"### ⚠️ This change disables 1 rule\n\n{line}\n") == new
    assert shown.count(line) == 1


def test_a_cluster_that_its_release_channel_upgraded_is_named_whatever_changes() -> None:
    """By the version that the look at the cluster has read."""
    listed = described("fleet", config_of("fleet")).resources

    def on(kubernetes: str) -> MeshPicture:
        looks = {
            each.name: replace(each, inputs={**each.inputs, "kubernetes": kubernetes})
            for each in listed
            if each.type == CLUSTER_CHECK
        }
        assert looks
        return decode("fleet", [looks.get(each.name, each) for each in listed])

    upgraded_cluster = compare(on("1.37"), on("1.38"), ())
    [broken] = broken_rules(upgraded_cluster, Rules())
    assert broken.rule == "kubernetesVersion"
    assert broken.facts == ("Kubernetes 1.38", "Istio 1.31 supports Kubernetes 1.32 to 1.37")
    assert "Kubernetes: `1.37` → `1.38`." in render_markdown.text(upgraded_cluster, limit=10_000)
    for first_reading in (
        compare(on(UNKNOWN), on("1.37"), ()),
        compare(on("1.37"), on("1.37"), ()),
    ):
        assert first_reading.versions is None and broken_rules(first_reading, Rules()) == ()


def test_every_rule_has_a_case() -> None:
    keys = {field.alias for field in DisabledRules.model_fields.values()}
    assert {key for key, _ in BROKEN.values()} == keys


@pytest.mark.parametrize(
    ("cidrs", "open_"),
    [
        (["0.0.0.0/0"], True),
        (["8.0.0.0/7"], True),
        (["10.0.0.0/8"], False),
        (["35.0.0.0/8"], False),
        (["64.0.0.0/3", "96.0.0.0/3"], True),
        (["2000::/3"], True),
        (["2600:1900::/28"], False),
        (["not a CIDR", ""], False),
        ([], False),
    ],
)
def test_cidrs_that_are_the_internet(cidrs: list[str], open_: bool) -> None:
    assert admits_internet(cidrs) == open_


@pytest.mark.parametrize("stack", reader.stacks())
def test_the_stacks_of_this_repository_break_no_rule(stack: str) -> None:
    after = described(stack, config_of(stack)).mesh(stack)
    created = compare(MeshPicture(stack=stack), after, ())
    assert after.workloads and after.openings
    for each in (created, compare(after, after, ())):
        assert broken_rules(each, load_file(stack).rules) == ()
