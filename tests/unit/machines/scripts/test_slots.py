"""How many agents of a workload are stopped at once: decisions, limits, and the id of an update."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from components.local import scripting
from components.local.conversation import Ended
from components.machines.scripts import slot_decision, slot_lease, slots
from components.machines.scripts.slot_decision import Situation, SlotRequest, Verdict
from components.names import SLOTS_ANNOTATION

MACHINES = frozenset({"m1", "m2", "m3", "m4"})


def situation(
    limit: int,
    healthy: str = "m1 m2 m3 m4",
    holders: str = "",
    joined: str = "m1 m2 m3 m4",
    serving: bool | None = None,
) -> Situation:
    """Describe a moment; the agent that is to be stopped is that of m1, if nothing else is said."""
    sets = [frozenset(names.split()) for names in (joined, healthy, holders)]
    return Situation(limit, sets[0], sets[1], sets[2], "m1" in healthy if serving is None else serving)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (situation(1), Verdict.TAKE),
        (situation(1, holders="m2"), Verdict.WAIT),
        (situation(2, holders="m2"), Verdict.TAKE),
        (situation(2, holders="m2 m3"), Verdict.WAIT),
        # Machines that are out of the mesh take slots, but stop no join below the bound.
        (situation(1, healthy="m1 m2 m3"), Verdict.WAIT),
        (situation(2, healthy="m1 m2 m3"), Verdict.TAKE),
        (situation(2, healthy="m1 m2 m3", holders="m2"), Verdict.WAIT),
        # A holder whose agent is stopped counts once.
        (situation(2, healthy="m1 m3 m4", holders="m2"), Verdict.TAKE),
        # A machine that is out of the mesh waits for nothing, whatever the others do.
        (situation(1, healthy="m2 m3 m4"), Verdict.REPAIR),
        (situation(1, healthy="m2", holders="m3 m4"), Verdict.REPAIR),
        (situation(1, healthy="", holders=""), Verdict.REPAIR),
        # The agent of a host that another machine had: m1 is out of the mesh by its name alone.
        (situation(1, healthy="m2 m3 m4", serving=True), Verdict.TAKE),
        (situation(1, healthy="m3 m4", holders="m2", serving=True), Verdict.WAIT),
        (situation(1, healthy="m1 m2 m3 m4", holders="m2", serving=False), Verdict.REPAIR),
        # A machine that is new was never in the mesh, so it is not missed.
        (situation(1, healthy="m1 m2", joined="m1 m2"), Verdict.TAKE),
        # A slot that a killed join of this machine left is its slot again.
        (situation(1, holders="m1"), Verdict.TAKE),
        (situation(1, healthy="m2 m3 m4", holders="m1"), Verdict.TAKE),
        (situation(1, healthy="m1", holders="m1 m2"), Verdict.TAKE),
    ],
)
def test_a_join_takes_a_slot_or_waits(now: Situation, verdict: Verdict) -> None:
    assert slot_decision.decide(now, "m1") is verdict


def test_no_order_of_joins_takes_more_machines_out_of_the_mesh_than_the_limit() -> None:
    """Many random histories: joins begin and end, machines die and come back."""
    chance = random.Random(20)
    for limit, _ in itertools.product((1, 2, 3), range(100)):
        dead: set[str] = set()
        holders: set[str] = set()
        for _ in range(60):
            machine = chance.choice(sorted(MACHINES))
            match chance.choice(["ask", "ask", "ask", "end", "die", "come back"]):
                case "ask":
                    healthy = MACHINES - dead - holders
                    now = Situation(limit, MACHINES, healthy, frozenset(holders), machine in healthy)
                    out_of_mesh = len(MACHINES - healthy)
                    if slot_decision.decide(now, machine) is Verdict.WAIT:
                        assert out_of_mesh >= limit
                        continue
                    holders.add(machine)
                    assert len(dead | holders) <= max(limit, out_of_mesh)
                case "end":
                    holders.discard(machine)
                case "die":
                    dead.add(machine)
                case _:
                    dead.discard(machine)


def test_every_join_gets_a_slot_in_the_end() -> None:
    for limit in (1, 2, 3):
        waiting = sorted(MACHINES)
        rounds = 0
        while waiting:
            holders: frozenset[str] = frozenset()
            for machine in list(waiting):
                now = Situation(limit, MACHINES, MACHINES - holders, holders, serving=True)
                if slot_decision.decide(now, machine) is Verdict.TAKE:
                    holders |= {machine}
                    waiting.remove(machine)
            rounds += 1
        assert rounds == -(-len(MACHINES) // limit)


@pytest.mark.parametrize(
    ("text", "machines", "limit"),
    [
        *[("25%", 3, 1), ("25%", 4, 1), ("25%", 7, 1), ("25%", 8, 2), ("25%", 10, 2)],
        *[("1%", 10, 1), ("100%", 5, 5), ("50%", 5, 2), ("25%", 0, 1), ("1", 10, 1), ("3", 2, 3)],
    ],
)
def test_a_percentage_is_rounded_down_to_at_least_one(text: str, machines: int, limit: int) -> None:
    assert slot_decision.limit_of(text, machines) == limit


def entry_of(name: str, registration: str, health: str = "True") -> dict[str, Any]:
    return {
        "kind": "WorkloadEntry",
        "metadata": {
            "name": name,
            "labels": {"istio-vm-mesh/machine": "m2", "istio-vm-mesh/registration": registration},
            "annotations": {"istio.io/autoRegistrationGroup": "product"},
        },
        "status": {"conditions": [{"type": "Healthy", "status": health}]},
    }


def without_labels(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry as another tool registers it, or after a person removed its labels."""
    return {**entry, "metadata": {key: value for key, value in entry["metadata"].items() if key != "labels"}}


REQUEST = SlotRequest("shop", "product", "m2", "r2", "product-m2", "an-update")


@pytest.mark.parametrize(
    ("entry", "stops", "serves"),
    [
        (entry_of("product-m2", "r2"), "", True),
        (entry_of("product-m2", "r2", "False"), "r2", False),
        (entry_of("product-m2", "of-before"), "of-before", True),
        # The address of all machines changes in one update: their agents serve by the old ones.
        (entry_of("product-192.0.2.2", "of-before"), "of-before", True),
        (entry_of("product-192.0.2.2", "of-another"), "of-before", False),
        (entry_of("product-192.0.2.2", "of-before"), "", False),
        (entry_of("product-192.0.2.2", ""), "", False),
        # Clients are led to an entry without labels of this program, too.
        (without_labels(entry_of("product-m2", "r2")), "", True),
        (without_labels(entry_of("product-m2", "r2", "False")), "", False),
        (without_labels(entry_of("product-192.0.2.2", "r2")), "", False),
    ],
)
def test_the_agent_that_is_stopped_is_known_by_its_registration_too(entry: dict[str, Any], stops: str, serves: bool) -> None:
    lease: dict[str, Any] = {"metadata": {"annotations": {}}}
    request = replace(REQUEST, stops=stops)
    assert slot_decision.situation_of(lease, [entry], frozenset(), request).serving is serves


class Outage:
    """An API server that does not answer for a while, in a time that only sleeping passes.

    m1 holds the slot. It renews its record every 20 s, except while nothing answers, until `END`.
    """

    SILENT = (5, 58)
    END = 120

    def __init__(self) -> None:
        self.now = 0.0
        self.annotations = {"istio-vm-mesh/machines": "m1,m2", "istio-vm-mesh/max-unavailable": "1"}
        self.taken: float | None = None

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def call(self, *words: str, stdin: bytes = b"", timeout_s: float | None = None) -> scripting.Done:
        begin, end = self.SILENT
        if begin < self.now < end:
            return scripting.Done(1, b"", b"connection refused")
        if words[0] == "replace":
            self.taken = self.now if self.taken is None else self.taken
            return scripting.Done(0, stdin, b"")
        # Its first renewal after the outage is up to 20 s late.
        renewal = 0 if self.now < end + 20 else int(self.now // 20)
        record = {"process": "of-m1", "update": "another", "repairs": False, "renewal": renewal}
        holders = {"m1": record} if self.now < self.END else {}
        slots_text = json.dumps({"holders": holders, "halts": {}})
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "product-slots", "annotations": {**self.annotations, SLOTS_ANNOTATION: slots_text}},
        }
        return scripting.Done(0, json.dumps({"items": [lease, entry_of("product-m2", "r2")]}).encode(), b"")


def test_no_slot_becomes_free_because_nobody_could_renew_it(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Outage()
    monkeypatch.setattr(slots, "sleep", api.sleep)
    monkeypatch.setattr(slots, "monotonic", lambda: api.now)
    with slots.slot(api, REQUEST, lambda _: None):
        assert api.taken is not None and api.taken >= api.END


class Api:
    """An API server with a Lease and entries, and a time that only pausing passes."""

    def __init__(self, *entries: dict[str, Any], machines: str = "m1,m2", holders: str = "") -> None:
        self.now, self.version = 0.0, 0
        self.entries = list(entries)
        record = {"process": "another", "update": "another", "repairs": False, "renewal": 0}
        self.annotations = {"istio-vm-mesh/machines": machines, "istio-vm-mesh/max-unavailable": "1"}
        self.hold(dict.fromkeys(holders.split(), record))

    def hold(self, holders: dict[str, Any]) -> None:
        """Write as another join."""
        self.annotations[SLOTS_ANNOTATION] = json.dumps({"holders": holders, "halts": {}})
        self.version += 1

    @property
    def holders(self) -> set[str]:
        return set(json.loads(self.annotations[SLOTS_ANNOTATION])["holders"])

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def call(self, *words: str, stdin: bytes = b"", timeout_s: float | None = None) -> scripting.Done:
        if words[0] == "replace":
            metadata = json.loads(stdin)["metadata"]
            if metadata["resourceVersion"] != self.version:
                return scripting.Done(1, b"", b"Error from server (Conflict)")
            self.annotations, self.version = metadata["annotations"], self.version + 1
        metadata = {"name": "product-slots", "annotations": self.annotations, "resourceVersion": self.version}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        answer = {"items": [lease, *self.entries]} if words[1].startswith(f"{slot_lease.LEASES},") else lease
        return scripting.Done(0, json.dumps(answer).encode(), b"")


UNREADABLE = "the annotation istio-vm-mesh/slots of the Lease .*product-slots cannot be read .*kubectl annotate .*istio-vm-mesh/slots-"
EDITED = {
    "no JSON": (SLOTS_ANNOTATION, "{", UNREADABLE),
    "another form": (SLOTS_ANNOTATION, "[]", UNREADABLE),
    "a key is missing": (SLOTS_ANNOTATION, '{"holders": {}}', UNREADABLE),
    "a later version's": (SLOTS_ANNOTATION, '{"holders": {"m1": {"process": "p", "update": "u", "zone": "z"}}, "halts": {}}', UNREADABLE),
    "no limit": ("istio-vm-mesh/max-unavailable", "some", "max-unavailable of the Lease product-slots .* was edited: run `pulumi refresh`"),
}


@pytest.mark.parametrize(("annotation", "text", "message"), EDITED.values(), ids=EDITED.keys())
def test_a_lease_that_a_person_edited_is_refused_by_name(annotation: str, text: str, message: str) -> None:
    """With the machine unchanged, and the Lease as it is."""
    api = Api()
    api.annotations[annotation] = text
    before = dict(api.annotations)
    with pytest.raises(scripting.Failed, match=message), slots.slot(api, REQUEST, lambda _: None):
        pytest.fail("it has no slot")
    assert api.annotations == before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Api], None]:
    return lambda api: monkeypatch.setattr(slots, "monotonic", lambda: api.now)


def test_a_wait_ends_with_what_it_is_for(clock: Callable[[Api], None]) -> None:
    """Nothing is written then: the slot stays another's, and this machine has none."""
    api = Api(entry_of("product-m2", "r2"), holders="m1")
    clock(api)

    def pause(seconds: float) -> None:
        api.pause(seconds)
        if api.now > 20:
            raise Ended

    before = dict(api.annotations)
    with pytest.raises(Ended), slots.slot(api, REQUEST, lambda _: None, pause):
        pytest.fail("it has no slot")
    assert api.annotations == before


@pytest.mark.parametrize("holder", ["", "m2"], ids=["it expired", "a later join of the machine has it"])
def test_a_machine_whose_slot_expired_while_it_joined_counts_from_then_on(holder: str) -> None:
    """It was out of the mesh, so it counts only once it has joined."""
    api = Api()
    with slots.slot(api, REQUEST, lambda _: None):
        assert api.holders == {"m2"} and "joined.istio-vm-mesh/m2" not in api.annotations
        api.hold({name: {"process": "later", "update": "another"} for name in holder.split()})
    assert api.annotations["joined.istio-vm-mesh/m2"] == "r2"
    assert api.holders == set(holder.split())


def test_a_machine_that_has_not_served_gives_its_slot_back_and_does_not_count() -> None:
    api = Api()
    with slots.slot(api, REQUEST, lambda _: None, is_joined=lambda: False):
        assert api.holders == {"m2"}
    assert "joined.istio-vm-mesh/m2" not in api.annotations and api.holders == set()


def test_a_slot_that_expired_while_its_join_failed_is_not_written_again() -> None:
    api = Api()
    with pytest.raises(scripting.Failed, match="not ready"), slots.slot(api, REQUEST, lambda _: None):
        api.hold({})
        raise scripting.Failed("not ready")
    assert "joined.istio-vm-mesh/m2" not in api.annotations and api.holders == set()


@pytest.mark.parametrize(
    ("others", "alone"),
    [
        ([], True),
        ([entry_of("product-m1", "r1")], False),
        ([entry_of("product-m1", "r1", "False")], True),
        ([without_labels(entry_of("product-of-another-tool", ""))], False),
        ([without_labels(entry_of("product-of-another-tool", "", "False"))], True),
    ],
)
def test_the_stop_of_the_one_agent_that_serves_is_known(others: list[dict[str, Any]], alone: bool) -> None:
    api = Api(entry_of("product-m2", "r2"), *others)
    with slots.slot(api, REQUEST, lambda _: None) as is_alone:
        assert is_alone is alone


@pytest.mark.parametrize(("holders", "verdict"), [("", Verdict.TAKE), ("m1", Verdict.WAIT)])
def test_agents_whose_entries_have_lost_their_labels_are_stopped_one_after_the_other(holders: str, verdict: Verdict) -> None:
    """Not all at once, as soon as a person removed the labels, and not never: none can be told from another."""
    annotations = {"istio-vm-mesh/machines": "m1,m2,m3", "istio-vm-mesh/max-unavailable": "1"}
    annotations |= {f"joined.istio-vm-mesh/{name}": "r" for name in ("m1", "m2", "m3")}
    now = slot_decision.situation_of(
        {"metadata": {"annotations": annotations}},
        [without_labels(entry_of(f"product-{name}", "r2")) for name in ("m1", "m2", "m3")],
        frozenset(holders.split()),
        REQUEST,
    )
    assert slot_decision.decide(now, "m2") is verdict


def test_an_agent_that_does_not_serve_pauses_nothing() -> None:
    with slots.slot(Api(), REQUEST, lambda _: None) as is_alone:
        assert not is_alone
