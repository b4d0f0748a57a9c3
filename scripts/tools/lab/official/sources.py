"""Gets publishers' artefacts where their servers answer.

Each server gets one request per run, all at the same time. A file that is incomplete, late, or
of another digest than its publisher states is not used.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import yaml

from tools.process import Command
from tools.steps import Step, StepError, seconds

from ..engine import Engine
from ..offline import cache
from ..offline.programs import Tool
from . import artefacts
from .artefacts import Artefact, Digests, Part

ANSWER_S = 3.0
"""Seconds within which a server must answer."""
STALL_S = 20.0
"""Seconds without a byte after which a download is given up."""
LONGEST_S = 600.0
"""Seconds for one file or image. To build any part takes no longer."""
STATEMENT_BYTES = 16_000_000
"""How long a file with digests may be. The index of Istio's charts has 1 MB."""
_CHUNK = 1 << 18
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A safe loader. The C parser takes a tenth of the time."""


class SourceError(Exception):
    """Why an artefact cannot be had, in one sentence without its URL."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds: for an answer, without a byte, for one file."""

    answer_s: float = ANSWER_S
    stall_s: float = STALL_S
    longest_s: float = LONGEST_S


def _as_published(url: str) -> str:
    return url


@dataclass
class Sources:
    """The publishers' servers, during one run.

    - `required`: a part that cannot be had is an error
    - `place`: returns where a URL is looked for; tests name a server of their own
    """

    required: bool = False
    limits: Limits = field(default_factory=Limits)
    place: Callable[[str], str] = _as_published
    _answers: dict[str, bool] = field(default_factory=dict)

    def answering(self, step: Step, hosts: Iterable[str]) -> bool:
        """Return whether all these servers answer within `limits.answer_s`. Any status is an
        answer.
        """
        wanted = tuple(hosts)
        if unasked := sorted(host for host in {*wanted, *_all_hosts()} if host not in self._answers):
            step.note("asking publishers' servers")
            self._answers |= _ask(unasked, self.place, self.limits.answer_s)
            if silent := [host for host in unasked if not self._answers[host]]:
                step.line(f"within {self.limits.answer_s:g} s no answer from {_names(silent)}")
        return all(self._answers[host] for host in wanted)

    def get(self, step: Step, name: str) -> Tool | None:
        """Return a tool of `artefacts.PARTS`, from the cache or downloaded now.

        None where it cannot be had; raises StepError in place of None if `required`.
        """
        part = artefacts.PARTS.get(name)
        return self._get(step, part) if part else None

    def cached(self, name: str) -> Tool | None:
        """Return a tool of `artefacts.PARTS` that is in the cache."""
        part = artefacts.PARTS.get(name)
        directory = cache.find(part.key) if part else None
        return _tool(part, directory) if part and directory else None

    def plugin(self, step: Step, name: str, version: str) -> Path | None:
        """Return a Pulumi home with the plugin of a provider; otherwise as `get`."""
        tool = self._get(step, artefacts.plugin(name, version))
        return tool.path if tool else None

    def image(self, step: Step, engine: Engine, name: str) -> bool:
        """Pull an image of `artefacts.IMAGES` into the engine, under the name that it has here.

        Returns whether it is there; raises StepError in place of False if `required`.
        """
        published = artefacts.IMAGES.get(name)
        if not published:
            return False
        if not self.answering(step, [artefacts.REGISTRY]):
            self._require(name, self._silence([artefacts.REGISTRY]))
            return False
        with step.part(f"{published} from its publisher"):
            # Docker has no limit of its own for a registry that sends nothing.
            pull = ["timeout", f"{self.limits.longest_s:g}", "docker", "pull", published]
            done = step.run(Command(pull, env=engine.environment), check=False)
        if done.code == 0 and published != name:
            engine.docker("tag", published, name)
        if done.code:
            lines = done.output.strip().splitlines()
            self._without(step, published, f"docker pull ended with code {done.code} ({lines[-1] if lines else 'no reason given'})")
        return done.code == 0

    def _get(self, step: Step, part: Part) -> Tool | None:
        if directory := cache.find(part.key):
            return _tool(part, directory)
        if not self.answering(step, part.hosts):
            self._require(part.name, self._silence(part.hosts))
            return None
        started = time.monotonic()
        try:
            directory = cache.ensure(part.key, lambda target: self._download(step, part, target), step.note)
        except SourceError as error:
            self._without(step, part.name, str(error))
            return None
        tool = _tool(part, directory)
        step.line(f"{tool.name} {tool.version}: {tool.origin}: {seconds(time.monotonic() - started)}")
        return tool

    def _without(self, step: Step, name: str, why: str) -> None:
        """Go on without a part, and say why. Raises StepError if `required`."""
        self._require(name, why)
        step.line(_cause(name, why))

    def _require(self, name: str, why: str) -> None:
        if self.required:
            raise StepError(_cause(name, why), "without --official the lab builds what it cannot get", show_log=False)

    def _silence(self, hosts: Iterable[str]) -> str:
        silent = [host for host in hosts if not self._answers[host]]
        return f"{_names(silent)} does not answer within {self.limits.answer_s:g} s"

    def _download(self, step: Step, part: Part, target: Path) -> None:
        for artefact in part.artefacts:
            expected = stated_digest(artefact, self._read(artefact.digests))
            file = target / f".{artefact.name}"
            try:
                self._save(step, artefact, file, expected)
                _unpack(artefact, file, target)
            finally:
                file.unlink(missing_ok=True)

    def _read(self, url: str) -> str:
        with self._open(url) as answer:
            content = bytes(answer.read(STATEMENT_BYTES))
        return content.decode(errors="replace")

    def _save(self, step: Step, artefact: Artefact, file: Path, expected: str) -> None:
        """Write an artefact to a file, and compare its SHA-256. Raises SourceError."""
        until, received, digest = time.monotonic() + self.limits.longest_s, 0, hashlib.sha256()
        with self._open(artefact.url) as answer, file.open("wb") as copy:
            length = int(answer.headers.get("Content-Length") or 0)
            try:
                while chunk := answer.read1(_CHUNK):
                    copy.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    step.note(f"{artefact.name}: {received / 1e6:.0f}{f'/{length / 1e6:.0f}' if length else ''} MB")
                    if time.monotonic() > until:
                        raise SourceError(f"{received / 1e6:.1f} MB of {artefact.name} came within {self.limits.longest_s:g} s")
            except (OSError, http.client.HTTPException) as error:
                raise SourceError(f"{artefact.name} ended after {received} bytes ({_reason(error)})") from error
        if length and received != length:
            raise SourceError(f"{artefact.name} ended after {received} of {length} bytes")
        if digest.hexdigest() != expected:
            raise SourceError(f"{artefact.name} has SHA-256 {digest.hexdigest()}, its publisher states {expected}")

    def _open(self, url: str) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.place(url), headers={"User-Agent": "istio-vm-mesh"})
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self.limits.stall_s)
        except urllib.error.HTTPError as error:
            error.close()
            raise SourceError(f"{url} answers with {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(f"{url} cannot be read ({_reason(error)})") from error
        return answer


def _cause(name: str, why: str) -> str:
    return f"{name} cannot be had from its publisher: {why}"


def _tool(part: Part, directory: Path) -> Tool:
    file = directory / part.name
    return Tool(part.name, part.version, file if file.is_file() else directory, f"official, {_names(part.hosts)}")


def _all_hosts() -> set[str]:
    return {artefacts.REGISTRY} | {host for part in artefacts.PARTS.values() for host in part.hosts}


def _names(hosts: Iterable[str]) -> str:
    return ", ".join(host.partition("//")[2] for host in hosts)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error or type(error).__name__)


def _ask(hosts: Iterable[str], place: Callable[[str], str], seconds: float) -> dict[str, bool]:
    """Send a request to all servers at once. A thread that hangs, as in a resolver, ends with the
    process.
    """
    answers = dict.fromkeys(hosts, False)

    def ask(host: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(place(host + "/"), method="HEAD"), timeout=seconds).close()
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, http.client.HTTPException):
            return
        answers[host] = True

    threads = [threading.Thread(target=ask, args=(host,), daemon=True) for host in answers]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(answers)


def stated_digest(artefact: Artefact, statement: str) -> str:
    """Return the SHA-256 of an artefact, in hexadecimal, out of what its publisher states. Raises
    SourceError where it states none.
    """
    match artefact.form:
        case Digests.LINES:
            digest = _of_lines(statement, artefact.name)
        case Digests.CHARTS:
            digest = _of_charts(statement, artefact.name)
        case Digests.RELEASE:
            digest = _of_release(statement, artefact.name)
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise SourceError(f"{artefact.digests} states no SHA-256 of {artefact.name}")
    return digest


def _of_lines(statement: str, name: str) -> str:
    lines = [line.split() for line in statement.splitlines() if line.strip()]
    if len(lines) == 1 and len(lines[0]) == 1:
        return lines[0][0].lower()
    digests = [words[0].lower() for words in lines if len(words) == 2 and words[1].lstrip("*").rpartition("/")[2] == name]
    return digests[0] if len(digests) == 1 else ""


def _of_charts(statement: str, name: str) -> str:
    try:
        index = yaml.load(statement, Loader=_YAML)  # noqa: S506
        entries = [entry for chart in index["entries"].values() for entry in chart if f"{entry['name']}-{entry['version']}.tgz" == name]
        return str(entries[0]["digest"]) if len(entries) == 1 else ""
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return ""


def _of_release(statement: str, name: str) -> str:
    try:
        digests = [asset["digest"] for asset in json.loads(statement)["assets"] if asset["name"] == name]
        return str(digests[0]).removeprefix("sha256:") if len(digests) == 1 else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _unpack(artefact: Artefact, file: Path, target: Path) -> None:
    """Copy an artefact, or the members of an archive, into the directory of its part. Raises
    SourceError where a member is missing or leaves the directory.
    """
    if not artefact.members:
        shutil.copyfile(file, target / artefact.file)
        (target / artefact.file).chmod(0o644 if "." in artefact.file else 0o755)
        return
    missing = set(artefact.members)
    try:
        with tarfile.open(file) as archive:
            for entry in archive:
                path = PurePosixPath(entry.name)
                source = next((member for member in artefact.members if PurePosixPath(member) in (path, *path.parents)), None)
                if source is None or not entry.isfile():
                    continue
                if path.is_absolute() or ".." in path.parts:
                    raise SourceError(f"{artefact.name} has a file outside of it, {entry.name}")
                content = archive.extractfile(entry)
                if content:
                    _write(target / artefact.members[source] / path.relative_to(source), content, entry.mode)
                    missing.discard(source)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"{artefact.name} cannot be unpacked ({error})") from error
    if missing:
        raise SourceError(f"{artefact.name} has no {', '.join(sorted(missing))}")


def _write(file: Path, content: IO[bytes], mode: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as copy:
        shutil.copyfileobj(content, copy)
    file.chmod(0o755 if mode & 0o100 else 0o644)
