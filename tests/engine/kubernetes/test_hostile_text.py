"""Every text of a stack file is refused, or harmless in whatever reads it: the records say where texts are.

A field that is added is tried without a change here, if the stacks below hold its record.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from components import config, shell
from components.config.problems import SettingsError
from components.config.record import Record
from components.config.stack import Settings
from components.machines.scripts import create_ssh_key
from tests.engine.kubernetes.test_manifests import refusal
from tests.support import harness
from tests.support.control_plane import ControlPlane
from tests.support.real_parsers import Parsers
from tests.support.stack_texts import Raw, Text, fields_with_text, texts

HOSTILE = (
    "a" * 64,
    "a" * 63,
    "$(touch x)",
    "$(x)",
    "';x;'",
    ";x&",
    "`touch x`",
    "a; touch x #",
    "a'; touch x; '",
    'a"; touch x; "',
    "a\ntouch x\n",
    "a && touch x",
    "a | touch x",
    "-x",
    "-oProxyCommand=touch x",
    "a\0b",
    "a\x1b[31mb",
    "a\ud800b",
    "%h%n%%",
    "${IFS}",
    "é漢字\u2028",
    "",
    "a b",
    "a\\",
    "{{.ID}}",
    "a: b # c",
    "a-",
    "a..",
    "../a",
    "A",
    "1",
)
MOST = 6
"""How many texts that a place accepts are tried in what reads them: the first ones of HOSTILE."""


def with_all_records() -> dict[str, Raw]:
    """Return stacks that hold every record of the settings at least once, each map with a key."""
    stacks = {name: harness.configuration(name) for name in ("lab-multi-network", "existing", "fleet", "multi-network")}
    lab, existing, google = stacks["lab-multi-network"], stacks["existing"], stacks["multi-network"]
    workload = lab["workloads"]["product"]
    workload["services"]["product"] |= {
        "annotations": {"example.com/team": "shop"},
        "selector": {"app": "product"},
        "appProtocols": {"http": "http"},
    }
    workload["imagePullSecrets"] = ["registry"]
    workload["probe"]["http"]["headers"] = {"X-Probe": "text"}
    workload["labels"] |= {"version": "v1"}
    workload["pods"] |= {"labels": {"tier": "web"}, "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "512Mi"}}}
    lab["namespaces"] = {"shop": {"labels": {"example.com/team": "shop"}, "annotations": {"example.com/owner": "shop"}}}
    values = lab["mesh"]["values"]
    values["base"] = {"note": "text"}
    istiod = values["istiod"]
    istiod["meshConfig"] |= {"trustDomain": "example.com", "rootNamespace": "istio-system"}
    istiod["meshConfig"]["defaultConfig"]["proxyMetadata"] |= {"EXAMPLE": "text"}
    istiod["global"] |= {"hub": "registry.example.com/istio", "tag": "1.31.0", "variant": "debug", "imagePullSecrets": ["istio"]}
    istiod["global"]["trustBundleName"] = "roots"
    istiod["global"]["proxy"] |= {"clusterDomain": "example.internal", "image": "proxyv2"}
    existing["workloads"]["billing"]["services"]["billing"]["annotations"] = {"example.com/team": "billing"}
    google["google"]["ssh"] = {"via": "bastion", "cidrs": ["10.0.0.0/24"], "bastion": {"host": "bastion.example.com"}}
    google["google"]["labels"] = {"team": "shop"}
    google["google"]["vpcs"] = {"far": {"existing": "projects/net-host/global/networks/far"}}
    google["google"]["subnets"]["far"]["existing"] = "projects/net-host/regions/europe-west1/subnetworks/far"
    return stacks


def accepted(raw: Raw) -> bool:
    """Return whether a stack file is accepted; what it is refused with names its keys."""
    try:
        config.load(raw)
    except SettingsError as error:
        assert all(problem.path and str(problem).isprintable() for problem in error.problems), error
        return False
    return True


def tried(place: Text) -> Iterator[str]:
    """Yield the texts that a place is given: alone, and behind what is there."""
    for hostile in HOSTILE:
        if hostile and not hostile.strip("a"):
            # Each place has another one, so that they can be names of one stack.
            letters = f"a{crc32(repr(place.path).encode()):08x}" * 8
            yield letters[: len(hostile)]
            yield (place.present + letters)[: len(hostile)]
            continue
        yield hostile
        yield place.present + hostile


def accepted_texts(raw: Raw, place: Text) -> list[str]:
    """Return what a place of a stack file accepts, the most dangerous first."""
    hostile = (text for text in dict.fromkeys(tried(place)) if text != place.present)
    return list(islice((text for text in hostile if accepted(place.change(raw, text))), MOST))


def together(raw: Raw) -> Iterator[tuple[Raw, dict[str, str]]]:
    """Yield stack files in which as many places as possible hold a text that they accept, until each was there.

    With each comes what its places hold.
    """
    waiting = [(place, accepted_texts(raw, place)) for place in texts(Settings, raw)]
    waiting.sort(key=lambda each: each[0].renames)
    while waiting := [(place, queue) for place, queue in waiting if queue]:
        changed, held = raw, {}
        for place, queue in waiting:
            candidate = place.change(changed, queue[0])
            if candidate != changed and accepted(candidate):
                changed = candidate
                held[f"{place.field} {'.'.join(map(str, place.path))}"] = queue.pop(0)
        assert held, [(place.field, queue) for place, queue in waiting]
        yield changed, held


@pytest.fixture
def parsers(strict: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parsers]:
    """Readers of all that is declared; the program runs in a directory of its own."""
    readers = Parsers(tmp_path, lambda manifest: refusal(strict, manifest, namespace), monkeypatch)
    monkeypatch.chdir(tmp_path)
    yield readers
    readers.close()


@cache
def key() -> str:
    """Return a private key that ssh reads."""
    return create_ssh_key.run(create_ssh_key.Payload("test")).private


def harm(parsers: Parsers, raw: Raw) -> list[str]:
    """Return what is wrong with what a stack file declares."""
    write_files(raw)
    return list(parsers.problems(harness.run(raw)))


def write_files(raw: Raw) -> None:
    """Write the files that a stack file names: private keys, and a package's digest."""
    if digest := raw["mesh"].get("package", {}).get("sha256"):
        Path(digest).write_text("0" * 64)
    servers = [*raw["machines"].values(), raw.get("google", {}).get("ssh", {})]
    for server in [*servers, *(each.get("bastion", {}) for each in servers)]:
        if "privateKey" in server:
            Path(server["privateKey"]).write_text(key())
            Path(server["privateKey"]).chmod(0o600)


def test_the_stacks_hold_every_text_of_the_records() -> None:
    held = {text.field for raw in with_all_records().values() for text in texts(Settings, raw)}
    assert fields_with_text(Settings) - held == set(), "add them to with_all_records"


@pytest.mark.parametrize("stack", sorted(with_all_records()))
def test_every_text_is_refused_or_harmless(parsers: Parsers, stack: str) -> None:
    raw = with_all_records()[stack]
    assert accepted(raw) and harm(parsers, raw) == []
    rendered = 0
    for changed, held in together(raw):
        assert harm(parsers, changed) == [], held
        rendered += len(held)
    assert rendered > 50


def namespace_with_label(text: str) -> dict[str, Any]:
    """Return a namespace with a label."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "it", "labels": {"text": text}}}


class Canary(Record):
    """A record whose text nothing checks."""

    text: str


def script(text: str) -> str:
    """Return a script for machines that begins with an assignment."""
    return f"TEXT={text}\n{shell.read_script('machines/lib')}"


@pytest.mark.parametrize(
    ("type_", "inputs", "harmful"),
    [
        ("command:local:Command", lambda text: {"delete": f"docker rm {text}"}, {"$(touch x)", "`touch x`", "a; touch x #", "-x"}),
        ("command:local:Command", lambda text: {"delete": shlex.join(["docker", "rm", text])}, {"-x", "-oProxyCommand=touch x"}),
        ("command:local:Command", lambda text: {"delete": shlex.join(["docker", "rm", "--", f"a{text}"])}, set()),
        ("gcp:a:A", lambda text: {"metadata": {"startup-script": script(text)}}, {"$(touch x)", "$(x)", "a; touch x #", ";x&"}),
        ("gcp:a:A", lambda text: {"metadata": {"startup-script": script(f"'{text}'")}}, {"a'; touch x; '", "';x;'"}),
        ("gcp:a:A", lambda text: {"metadata": {"startup-script": script(shlex.quote(text))}}, set()),
        ("kubernetes:v1:Namespace", namespace_with_label, {"a" * 64, "$(touch x)", "a b"}),
    ],
    ids=["command", "option", "operand", "script", "quotes", "quoted", "label"],
)
def test_a_field_that_nothing_checks_or_quotes_is_reported(
    parsers: Parsers, type_: str, inputs: Callable[[str], dict[str, Any]], harmful: set[str]
) -> None:
    """The canary is tried because its record says so, and what is harmful of it is seen."""
    raw = {"text": "a"}
    (place,) = texts(Canary, raw)
    assert place.field == "Canary.text"
    reported = set()
    for text in set(HOSTILE) - {"a\0b", "a\ud800b"}:
        node = harness.Node(type_, "it", inputs(place.change(raw, text)["text"]), {"name": "a"}, "")
        if list(parsers.problems(harness.Run({"it": node}, {}, frozenset()))):
            reported.add(text)
    assert reported >= harmful and (harmful or not reported)
