"""What a plan says of each record: the sentences that reviewers read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.unit.tools.plan.plans import change, happens, plan
from tests.unit.tools.plan.samples import EVERYTHING, REFUSED, SERVICE
from tools.plan import compare, facts, machine_words, words
from tools.plan.lines import Section
from tools.plan.mesh_model import (
    Fact,
    Host,
    Opening,
    OpeningKind,
    Path,
    Port,
    ServicePicture,
    Versions,
)
from tools.plan.model import (
    Action,
    CostChange,
    Level,
    MachineChange,
    Mark,
    OpeningChange,
    Operation,
    PathChange,
    Pause,
    Plan,
    PlanError,
    PodsChange,
    Reason,
    ServiceChange,
    Verdict,
    VerificationPlan,
    VersionsChange,
)
from tools.plan.phrases import Phrase, listed, phrase

VERSION = Reason(key="version", before="1.30.0", after="1.31.0")


def plain(text: Phrase) -> str:
    return text.render(lambda value, _: value)


def lines(sections: Iterable[Section]) -> list[str]:
    return [plain(line.text) for section in sections for line in section.lines]


def of_workload(*machines: MachineChange) -> list[str]:
    """Return what is said of the machines of a workload."""
    return lines(words.sections(plan(change(*machines))))[1:]


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (replace(plan(), verdict=Verdict.NOTHING), "Nothing: no resource changes."),
        (plan(), "Safe: all workloads keep endpoints, and no Service or port is removed."),
        (
            replace(plan(replace(change(), pause=Pause.ALL)), verdict=Verdict.PAUSES),
            "Pauses: shop/web has no endpoint for a while.",
        ),
        (
            replace(
                plan(change(happens(Action.LEAVES), happens(Action.LEAVES, "web-2"))),
                verdict=Verdict.LEAVES,
            ),
            "Leaves: 2 machines leave the mesh: web-1, web-2.",
        ),
        (
            replace(
                plan(replace(change(happens(Action.LEAVES)), mark=Mark.REMOVED)),
                verdict=Verdict.LEAVES,
                services=(
                    ServiceChange(name="a", namespace="shop", mark=Mark.REMOVED, before=SERVICE),
                ),
            ),
            "Leaves: 1 machine leaves the mesh: web-1; 1 workload is removed: shop/web; "
            "1 Service is removed: shop/a.",
        ),
        (
            replace(
                plan(),
                verdict=Verdict.LEAVES,
                services=(
                    ServiceChange(
                        name="product",
                        namespace="shop",
                        mark=Mark.CHANGED,
                        before=SERVICE,
                        after=replace(SERVICE, ports=(Port(name="http", port=81, target=8080),)),
                    ),
                ),
            ),
            "Leaves: Service shop/product loses port 80.",
        ),
        (REFUSED, "Refused: the stack file has problems."),
        (
            replace(REFUSED, error=PlanError(kind="refused", lines=())),
            "Refused: the update fails before it changes anything.",
        ),
        (
            replace(REFUSED, error=PlanError(kind="preview", lines=())),
            "Refused: the preview failed.",
        ),
    ],
)
def test_the_verdict_is_one_line(changed: Plan, line: str) -> None:
    assert plain(words.verdict(changed)) == line


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_word_first(verdict: Verdict) -> None:
    line = plain(words.verdict(replace(plan(), verdict=verdict)))
    assert line.lower().startswith(verdict.value) and line.endswith(".")


def test_machines_with_one_cause_are_one_sentence() -> None:
    restarts = [happens(Action.RESTARTS, f"web-{n}", VERSION) for n in range(12)]
    assert of_workload(*restarts) == [
        "12 machines in network pods restart their agents: web-0, web-1, web-2, web-3, web-4, "
        "web-5, web-6, web-7 and 4 more, because of Istio's version (1.30.0 → 1.31.0)."
    ]


def test_machines_with_other_causes_are_other_sentences() -> None:
    machines = [
        happens(Action.RESTARTS, "web-1", VERSION),
        happens(Action.RESTARTS, "web-2", Reason(key="rotation", before="0", after="1")),
        replace(happens(Action.RESTARTS, "web-3", VERSION), network="far"),
        happens(Action.LEAVES, "web-4"),
    ]
    assert [line.partition(":")[0] for line in of_workload(*machines)] == [
        "1 machine in network pods leaves the mesh",
        "1 machine in network pods restarts its agent",
        "1 machine in network pods restarts its agent",
        "1 machine in network far restarts its agent",
    ]


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        (happens(Action.JOINS), "1 machine in network pods joins: web-1."),
        (
            happens(Action.REJOINS, "web-1", Reason(key="rotation", before="0", after="1")),
            "1 machine in network pods runs its join again: web-1, because of its setting rotation (0 → 1). "
            "The join stops an agent only where the machine differs.",
        ),
        (
            replace(happens(Action.REJOINS, "web-1", Reason(key="out-of-mesh")), certain=False),
            "1 machine in network pods runs its join again: web-1, because of its absence "
            "from the mesh. The join stops an agent only where the machine differs. "
            "Whether it does depends on the machine.",
        ),
        (
            replace(happens(Action.REGISTERS, "web-9"), before="web-1"),
            "1 machine in network pods restarts and registers again: web-9, until now web-1.",
        ),
        (
            replace(happens(Action.REPLACED), deleted=True),
            "1 machine in network pods is replaced by another: web-1. "
            "The former one is drained and deleted first.",
        ),
        (
            happens(Action.REPLACED),
            "1 machine in network pods is replaced by another: web-1. "
            "The former one leaves afterwards.",
        ),
        (
            replace(happens(Action.MOVES), other="shop/api"),
            "1 machine in network pods moves to another workload: web-1, to workload shop/api.",
        ),
        (
            replace(happens(Action.REGISTERS), other="shop/api"),
            "1 machine in network pods restarts and registers again: web-1, from workload shop/api.",
        ),
        (
            replace(happens(Action.LEAVES), deleted=True),
            "1 machine in network pods leaves the mesh: web-1. It is drained first. "
            "The machine itself is deleted.",
        ),
        (
            replace(happens(Action.LEAVES), drained=False),
            "1 machine in network pods leaves the mesh: web-1. It is not drained.",
        ),
        (
            happens(
                Action.RESTARTS,
                "web-1",
                Reason(key="machine-type", before="small", after="large"),
                Reason(key="template"),
            ),
            "1 machine in network pods restarts its agent: web-1, because of its machine type "
            "(small → large). The machine itself stops and starts again.",
        ),
        (
            happens(Action.FORGOTTEN),
            "1 machine in network pods is given up: web-1. Nothing connects to it any more.",
        ),
        (
            replace(happens(Action.REPLACED, "fleet"), host=Host.GROUP, count=2, deleted=True),
            "Instance group fleet, at least 2 machines, in network pods replaces all its machines. "
            "It replaces a few at a time, and new ones join first.",
        ),
    ],
)
def test_what_happens_to_a_machine_is_said(machine: MachineChange, line: str) -> None:
    assert of_workload(machine) == [line]


def test_waves_pauses_and_pods_are_said() -> None:
    changed = replace(
        change(),
        restarts=8,
        at_once=2,
        waves=4,
        seconds=160,
        pause=Pause.MACHINES,
        pods=PodsChange(before=None, after=3, replaced=True),
    )
    assert lines(words.sections(plan(changed)))[1:] == [
        "At most 2 agents are stopped at once, in 4 waves: about 3 minutes in all.",
        "None of its machines answers for a while; its pods do.",
        "Pods: none → 3.",
        "All its pods are replaced, one after another.",
    ]


@pytest.mark.parametrize(
    ("skew", "line"),
    [
        (None, "Skew: unknown, because a version is unknown."),
        (0, "Skew: proxies have the control plane's minor version."),
        (1, "Skew: proxies are up to 1 minor version behind the control plane."),
        (-2, "Skew: proxies are up to 2 minor versions ahead of the control plane."),
    ],
)
def test_the_skew_is_said(skew: int | None, line: str) -> None:
    versions = VersionsChange(before=Versions(), after=Versions(), skew=skew)
    assert lines(words.sections(replace(plan(), versions=versions))) == [line]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("fail", "fail", ["The update verifies web; a failure fails the update."]),
        (
            "fail",
            "warn",
            [
                "Mode: a failure fails the update → a failure is a warning.",
                "The update verifies web; a failure is a warning.",
            ],
        ),
        (
            "fail",
            "none",
            [
                "Mode: a failure fails the update → verification does not run.",
                "The update verifies nothing.",
            ],
        ),
    ],
)
def test_the_verification_is_said(before: str, after: str, expected: list[str]) -> None:
    verification = VerificationPlan(before=before, after=after, runs=("web",))
    assert lines(words.sections(replace(plan(), verification=verification))) == expected


def test_workloads_whose_failure_is_a_warning_are_named() -> None:
    verification = VerificationPlan(
        before="fail", after="some", warned=("web",), runs=("shop", "web")
    )
    assert lines(words.sections(replace(plan(), verification=verification))) == [
        "Mode: a failure fails the update → a failure fails the update, or is a warning.",
        "The update verifies shop, web; a failure fails the update, or is a warning.",
        "A failure of web is a warning.",
    ]


def test_what_only_the_update_knows_is_not_promised() -> None:
    verification = VerificationPlan(before="fail", after="fail", may_run=("web",))
    assert lines(words.sections(replace(plan(), verification=verification))) == [
        "It also verifies web if values that are still unknown change."
    ]
    join = Operation(op="update", type="a", name="web-1-join")
    changed = replace(plan(), operations=(join, join, replace(join, certain=False)))
    assert plain(words.operations(changed.operations)) == "2 updated, 1 may be updated"
    assert [plain(line.text) for line in words.resources(changed)][2] == (
        "web-1-join (a): may be updated"
    )


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (Path.DIRECT, Path.GATEWAY, "From network a to b: direct → through a gateway."),
        (None, Path.NONE, "From network a to b: no such networks → no path."),
        (Path.GATEWAY, None, "From network a to b: through a gateway → no such networks."),
    ],
)
def test_a_path_is_said(before: Path | None, after: Path | None, line: str) -> None:
    path = PathChange(source="a", target="b", before=before, after=after)
    assert lines(words.sections(replace(plan(), paths=(path,)))) == [line]
    moved = replace(path, workload="web")
    assert lines(words.sections(replace(plan(), paths=(moved,)))) == [f"Workload web. {line}"]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("STRICT", None, "Mutual TLS of shop: STRICT → as the mesh has it."),
        (None, "STRICT", "Mutual TLS of shop: as the mesh has it → STRICT."),
        ("STRICT", "PERMISSIVE", "Mutual TLS of shop: STRICT → PERMISSIVE."),
    ],
)
def test_mutual_tls_is_said(before: str | None, after: str | None, line: str) -> None:
    sides = [
        Opening(kind=OpeningKind.MUTUAL_TLS, name="shop", mode=mode) if mode else None
        for mode in (before, after)
    ]
    change = OpeningChange(
        kind=OpeningKind.MUTUAL_TLS,
        name="shop",
        mark=Mark.CHANGED,
        before=sides[0],
        after=sides[1],
    )
    assert lines(words.sections(replace(plan(), openings=(change,)))) == [line]


HEADLESS = replace(SERVICE, headless=True)
THEIRS = replace(SERVICE, existing=True)


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            SERVICE,
            HEADLESS,
            "It is deleted and created again, because its cluster IP comes or goes.",
        ),
        (None, HEADLESS, "It is headless: the cluster's DNS gives clients its pods alone."),
        (
            SERVICE,
            THEIRS,
            "It belongs to others: the update uses it, and neither changes nor deletes it.",
        ),
        (THEIRS, None, "It belongs to others, so it stays in the cluster."),
        (THEIRS, SERVICE, "It belonged to others. The program owns it from now on."),
        (
            SERVICE,
            replace(SERVICE, annotations=(Fact(key="owner", value="a"),)),
            "Annotation owner: none → a.",
        ),
        (
            SERVICE,
            replace(SERVICE, ports=(replace(SERVICE.ports[0], protocol="http2"),)),
            "Port http: 80 to 8080 of the endpoints → 80 to 8080 of the endpoints as http2.",
        ),
    ],
)
def test_what_becomes_of_a_service_is_said(
    before: ServicePicture | None, after: ServicePicture | None, line: str
) -> None:
    changed = ServiceChange(
        name="product", namespace="shop", mark=Mark.CHANGED, before=before, after=after
    )
    assert line in lines(words.sections(replace(plan(), services=(changed,))))


def test_a_service_that_is_replaced_is_in_the_verdict() -> None:
    changed = ServiceChange(
        name="product", namespace="shop", mark=Mark.CHANGED, before=SERVICE, after=HEADLESS
    )
    pausing = replace(plan(), verdict=Verdict.PAUSES, services=(changed,))
    assert plain(words.verdict(pausing)) == "Pauses: Service shop/product is replaced."


def test_what_a_firewall_admits_is_said() -> None:
    rule = Opening(
        kind=OpeningKind.FIREWALL, name="far", to="web", sources=("10.0.0.0/8",), ports=("tcp:80",)
    )
    change = OpeningChange(kind=rule.kind, name="far", mark=Mark.ADDED, after=rule)
    world = replace(change, before=rule, after=replace(rule, sources=(), world=True))
    closed = replace(change, before=rule, after=None)
    changed = replace(plan(), openings=(change, world, closed))
    assert lines(words.sections(changed)) == [
        "Firewall rule far opens: 10.0.0.0/8, to web, on tcp:80.",
        "Firewall rule far changes: 10.0.0.0/8, to web, on tcp:80 → any source, to web, on tcp:80, that is the whole internet.",
        "Firewall rule far closes: 10.0.0.0/8, to web, on tcp:80.",
    ]


@pytest.mark.parametrize("level", Level)
def test_a_plan_names_its_level(level: Level) -> None:
    first = words.origin(replace(plan(), level=level))[0]
    assert plain(first).startswith(f"Level {level.value}: ")


def test_a_plan_says_why_it_has_no_higher_level() -> None:
    assert plain(words.origin(EVERYTHING)[-1]) == (
        "Level live is not available: kubectl is not on PATH: install it"
    )


def test_a_plan_says_what_it_compared() -> None:
    base, head = 40 * "a", 40 * "b"
    assert (
        plain(words.origin(replace(plan(), base=base, head=head))[1])
        == "Compared: aaaaaaaaaaaa with bbbbbbbbbbbb."
    )
    changed = f"{base}+"
    assert (
        plain(words.origin(replace(plan(), base=base, head=changed))[1])
        == "Compared: aaaaaaaaaaaa with aaaaaaaaaaaa and what is not committed."
    )


def test_every_reason_has_its_words() -> None:
    """A key in the source of the facts without words would be shown as it is."""
    import inspect

    source = inspect.getsource(facts) + inspect.getsource(compare)
    keys = set(re.findall(r'Reason\(\s*key="([a-z-]+)"', source))
    keys |= set(re.findall(r'^ +"([a-z]+(?:-[a-z]+)*)": ', source, re.MULTILINE))
    assert len(keys) > 25
    assert keys <= {*machine_words.REASONS}


def test_values_are_apart_from_words() -> None:
    sentence = phrase("{} leaves {}", "a{}b", phrase("network {}", "c"))
    assert sentence.render(lambda text, _: f"<{text}>") == "<a{}b> leaves network <c>"
    assert (
        listed(["a", "b", "c"], shown=2).render(lambda text, _: f"<{text}>")
        == "<a>, <b> and 1 more"
    )


def test_a_phrase_takes_as_many_values_as_it_has_places() -> None:
    with pytest.raises(ValueError, match="takes 1 values, not 2"):
        phrase("{}", "a", "b")


@pytest.mark.parametrize(
    ("cost", "line"),
    [
        ((253.6, 253.4), "US$ 254 → 253 a month (-1), "),
        ((253.2, 253.4), "US$ 253 → 253 a month (by less than 1), "),
        ((1000, 2500), "US$ 1,000 → 2,500 a month (+1,500), "),
    ],
)
def test_a_difference_of_costs_is_that_of_the_numbers_shown(
    cost: tuple[float, float], line: str
) -> None:
    before, after = cost
    same = CostChange(before=before, after=after, most_before=before, most_after=after)
    [shown] = lines(words.sections(replace(plan(), cost=same)))
    assert shown.startswith(line)


@pytest.mark.parametrize(
    ("most", "unpriced", "shown"),
    [
        (
            (400, 900),
            (),
            [
                "At most US$ 400 → 900 a month (+500), with all nodes and machines that autoscalers may add."
            ],
        ),
        (
            (300, 300),
            ("n2-highmem-128",),
            [
                "US$ 253 → 253 a month without n2-highmem-128, whose prices are unknown.",
                "At most US$ 300 → 300 a month, with all nodes and machines that autoscalers may add.",
            ],
        ),
    ],
)
def test_what_autoscalers_may_add_is_in_a_line_of_its_own(
    most: tuple[float, float], unpriced: tuple[str, ...], shown: list[str]
) -> None:
    cost = CostChange(
        before=253, after=253, most_before=most[0], most_after=most[1], unpriced=unpriced
    )
    assert list(lines(words.sections(replace(plan(), cost=cost)))) == shown
