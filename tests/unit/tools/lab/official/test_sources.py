"""Publishers' artefacts, from a server of these tests that publishes as they do: whole, cut off, with another digest, slow, or not at all."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.support.tiers import some_quick
from tests.support.waiting import wait_until
from tools.lab import paths
from tools.lab.engine import Engine
from tools.lab.official import artefacts, sources
from tools.lab.official.artefacts import Artefact, Digests, Part
from tools.lab.official.sources import Limits, SourceError, Sources, stated_digest
from tools.lab.offline import cache, golang, images, programs, versions
from tools.steps import StepError, quiet

LIMITS = Limits(answer_s=30.0, stall_s=30.0, longest_s=30.0)
"""A busy machine keeps them."""
REACHED = {
    "silent": replace(LIMITS, answer_s=2.0),
    "stalls": replace(LIMITS, stall_s=2.0),
    "too slow": replace(LIMITS, longest_s=2.0),
}
"""Limits of tests that wait for one of them."""


@dataclass
class Publisher:
    """A server that has files by URL.

    - `files`: URL → content
    - `cut`: these URLs end after half of their content
    - `stall`: these send half of it and then nothing
    - `drip`: these send a byte at a time
    - `silent`: these hosts take a connection and do not answer
    - `asked`: hosts that were asked whether they answer
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    stall: set[str] = field(default_factory=set)
    drip: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def place(self, url: str) -> str:
        return f"http://127.0.0.1:{self.port}/{url.removeprefix('https://')}"

    def publish(self, part: Part) -> None:
        """Offer a part as its publisher does."""
        for artefact in part.artefacts:
            content = (
                _archive({member or "pulumi-resource-x": b"\x7fELF" for member in artefact.members}) if artefact.members else b"\x7fELF"
            )
            self.files[artefact.url] = content
            self.files[artefact.digests] = _statement(artefact, content, self.files.get(artefact.digests, b""))


def _archive(files: dict[str, bytes]) -> bytes:
    """A tar.gz; a name without a dot and a slash that stands for a directory gets a file below it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            path = f"{name}/{name}" if name in ("pulumi", "base", "istiod", "gateway") else name
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _statement(artefact: Artefact, content: bytes, before: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    if artefact.form is Digests.RELEASE:
        return json.dumps(
            {"assets": [{"name": "experimental-install.yaml", "digest": "sha256:0"}, {"name": artefact.name, "digest": f"sha256:{digest}"}]}
        ).encode()
    if artefact.form is Digests.CHARTS:
        chart, _, version = artefact.name.removesuffix(".tgz").rpartition("-")
        older = f"  - {{name: {chart}, version: 1.30.0, digest: {'0' * 64}}}\n"
        return (
            before or b"apiVersion: v1\nentries:\n"
        ) + f"  {chart}:\n{older}  - {{name: {chart}, version: {version}, digest: {digest}}}\n".encode()
    if artefact.name == "kubectl":
        return digest.encode()
    return f"{'0' * 64}  other.tar.gz\n{digest}  {artefact.name}\n".encode()


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("ISTIO_VM_MESH_CACHE", str(tmp_path / "cache"))
    state = Publisher()

    class Handler(http.server.BaseHTTPRequestHandler):
        def url(self) -> str:
            return f"https:/{self.path}"

        def do_HEAD(self) -> None:
            host = self.url().rstrip("/")
            state.asked.append(host)
            if host in state.silent:
                state.over.wait(10)
                return
            self.send_response(404)  # as get.helm.sh answers for /
            self.end_headers()

        def do_GET(self) -> None:
            state.read.append(self.url())
            content = state.files.get(self.url())
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = content[: len(content) // 2]
            if self.url() in state.drip:
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if state.over.wait(0.2):
                        return
            elif self.url() in state.cut | state.stall:
                self.wfile.write(half)
                self.wfile.flush()
                if self.url() in state.stall:
                    state.over.wait(10)
            else:
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 100  # all hosts are asked at the same time

    server = Server(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    state.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def official(publisher: Publisher) -> Sources:
    return Sources(limits=LIMITS, place=publisher.place)


def _log(tmp_path: Path) -> str:
    return (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""


@pytest.mark.parametrize("name", artefacts.PARTS)
def test_every_part_is_had_with_the_digest_of_its_publisher(publisher: Publisher, official: Sources, tmp_path: Path, name: str) -> None:
    publisher.publish(artefacts.PARTS[name])
    step = quiet("tools", tmp_path / "log")
    tool = official.get(step, name)
    assert tool
    assert tool.origin.startswith("official, ")
    if name in programs.PROGRAMS:
        assert tool.path.name == name
        assert tool.path.read_bytes() == b"\x7fELF"
        assert tool.path.stat().st_mode & 0o111
    elif name == "istio-charts":
        assert {path.name for path in tool.path.iterdir()} == {"base", "istiod", "gateway", cache.MARKER}
    else:
        assert [path.name for path in tool.path.iterdir() if path.name != cache.MARKER] == [artefacts.PARTS[name].artefacts[0].file]
    publisher.files.clear()
    assert official.get(step, name) == tool, "the second time it comes from the cache"
    assert official.cached(name) == tool


def test_a_plugin_is_laid_out_as_in_a_pulumi_home(publisher: Publisher, official: Sources, tmp_path: Path) -> None:
    publisher.publish(artefacts.plugin("kubernetes", "4.32.0"))
    home = official.plugin(quiet("tools", tmp_path / "log"), "kubernetes", "4.32.0")
    assert home
    assert [file.name for file in (home / "plugins" / "resource-kubernetes-v4.32.0").iterdir()] == ["pulumi-resource-x"]


def _break(publisher: Publisher, how: str) -> None:
    artefact = artefacts.PARTS["helm"].artefacts[0]
    publisher.publish(artefacts.PARTS["helm"])
    match how:
        case "cut off":
            publisher.cut.add(artefact.url)
        case "stalls":
            publisher.stall.add(artefact.url)
        case "too slow":
            publisher.drip.add(artefact.url)
        case "another digest":
            publisher.files[artefact.url] += b"x"
        case "no digest":
            publisher.files[artefact.digests] = b"<html>moved</html>"
        case "digest of another file":
            publisher.files[artefact.digests] = f"{'0' * 64}  helm-v3.21.4-linux-arm64.tar.gz\n".encode()
        case "not published":
            del publisher.files[artefact.url]
        case "no statement":
            del publisher.files[artefact.digests]
        case "no archive":
            publisher.files[artefact.url] = b"\x7fELF"
            publisher.files[artefact.digests] = _statement(artefact, b"\x7fELF", b"")
        case "no member":
            content = _archive({"linux-amd64/README": b""})
            publisher.files |= {artefact.url: content, artefact.digests: _statement(artefact, content, b"")}
        case "silent":
            publisher.silent.add("https://get.helm.sh")


BREAKS = {
    "cut off": "ended after",
    "stalls": "ended after",
    "too slow": "came within",
    "another digest": "its publisher states",
    "no digest": "states no SHA-256",
    "digest of another file": "states no SHA-256",
    "not published": "answers with 404",
    "no statement": "answers with 404",
    "no archive": "cannot be unpacked",
    "no member": "has no linux-amd64/helm",
    "silent": "no answer from get.helm.sh",
}


@pytest.mark.parametrize("how", some_quick(BREAKS, "cut off", "another digest", "not published"))
def test_a_part_that_cannot_be_had_is_built(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    publisher.publish(artefacts.PARTS["kind"])
    step = quiet("tools", tmp_path / "log")
    assert Sources(limits=LIMITS, place=publisher.place).get(step, "kind"), "the limits that are reached are those of helm alone"
    _break(publisher, how)
    built: list[str] = []

    def build(step: object, family: golang.Family, wanted: dict[str, str]) -> dict[str, Path]:
        built.extend(wanted)
        return {name: tmp_path / name for name in wanted}

    monkeypatch.setattr(golang, "build", build)
    monkeypatch.setenv("PATH", str(tmp_path))
    tools = programs.Tools(Sources(limits=REACHED.get(how, LIMITS), place=publisher.place))
    got = tools.programs(step, "kind", "helm")
    assert built == ["helm"]
    assert got["kind"].origin == "official, github.com"
    assert BREAKS[how] in _log(tmp_path)
    unfinished = paths.cache() / paths.UNFINISHED
    assert not unfinished.exists() or not list(unfinished.iterdir()), "nothing of it is kept"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["another digest", "silent", "not published"])
def test_with_official_a_part_that_cannot_be_had_is_an_error(publisher: Publisher, tmp_path: Path, how: str) -> None:
    _break(publisher, how)
    official = Sources(required=True, limits=REACHED.get(how, LIMITS), place=publisher.place)
    with pytest.raises(StepError, match="helm cannot be had from its publisher") as error:
        official.get(quiet("tools", tmp_path / "log"), "helm")
    assert "--official" in error.value.hint
    assert (BREAKS[how] if how != "silent" else "get.helm.sh does not answer within 2 s") in error.value.cause


@pytest.mark.slow
def test_servers_are_asked_once_and_all_at_the_same_time(publisher: Publisher, tmp_path: Path) -> None:
    hosts = {host for part in artefacts.PARTS.values() for host in part.hosts} | {artefacts.REGISTRY}
    meet = threading.Barrier(len(hosts))

    def place(url: str) -> str:
        meet.wait()
        return publisher.place(url)

    publisher.silent |= hosts
    official = Sources(limits=replace(LIMITS, answer_s=2.0), place=place)
    step = quiet("tools", tmp_path / "log")
    assert [official.get(step, name) for name in artefacts.PARTS] == [None] * len(artefacts.PARTS)
    wait_until(lambda: set(publisher.asked) == hosts)
    assert len(publisher.asked) == len(hosts)
    assert publisher.read == []


def test_nobody_is_asked_for_what_is_there(
    publisher: Publisher, official: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    key = golang.key(golang.FAMILIES["helm"], "helm")
    cache.ensure(key, lambda directory: (directory / "helm").write_text(""))
    step = quiet("tools", tmp_path / "log")
    assert programs.Tools(official).program(step, "helm").origin == "built here from helm.sh/helm/v3"
    assert publisher.asked == []
    official.required = True
    publisher.publish(artefacts.PARTS["helm"])
    assert programs.Tools(official).program(step, "helm").origin == "official, get.helm.sh"


def test_a_refused_connection_is_no_answer(publisher: Publisher, tmp_path: Path) -> None:
    official = Sources(limits=LIMITS, place=lambda url: "http://127.0.0.1:9/")
    step = quiet("tools", tmp_path / "log")
    assert not official.answering(step, ["https://dl.k8s.io"])
    assert official.get(step, "kubectl") is None


@pytest.mark.parametrize(
    ("name", "statement", "expected"),
    [
        ("kubectl", "A" * 64, "a" * 64),
        ("kubectl", "a" * 64 + "\n", "a" * 64),
        ("helm", f"{'b' * 64} *helm-{versions.HELM}-linux-amd64.tar.gz", "b" * 64),
        ("kind", f"{'c' * 64}  bin/kind-linux-amd64", "c" * 64),
        ("helm", f"{'b' * 64}  helm-{versions.HELM}-linux-amd64.tar.gz\n" * 2, None),
        ("helm", "", None),
        ("kubectl", "a" * 63, None),
        ("istio-charts", "entries: {}", None),
        ("istio-charts", "- a\n- b", None),
        ("istio-charts", "{", None),
        ("gateway-api-crds", '{"assets": [{"name": "standard-install.yaml", "digest": null}]}', None),
        ("gateway-api-crds", "<html>", None),
        ("gateway-api-crds", '{"message": "API rate limit exceeded"}', None),
    ],
)
def test_a_statement_names_one_digest_or_none(name: str, statement: str, expected: str | None) -> None:
    artefact = artefacts.PARTS[name].artefacts[0]
    if expected:
        assert stated_digest(artefact, statement) == expected
    else:
        with pytest.raises(SourceError, match="states no SHA-256"):
            stated_digest(artefact, statement)


@pytest.mark.parametrize("name", ["linux-amd64/helm/../../../etc/passwd", "/linux-amd64/helm"])
def test_no_file_of_an_archive_leaves_the_directory(publisher: Publisher, official: Sources, tmp_path: Path, name: str) -> None:
    artefact = artefacts.PARTS["helm"].artefacts[0]
    content = _archive({name: b"root"})
    publisher.files |= {artefact.url: content, artefact.digests: _statement(artefact, content, b"")}
    assert official.get(quiet("tools", tmp_path / "log"), "helm") is None
    assert "has a file outside" in _log(tmp_path) or "has no linux-amd64/helm" in _log(tmp_path)


DOCKER = """\
#!/bin/sh
echo "$*" >>"$CALLS"
case "$1 $2" in
  "pull "*"pilot"*) echo "manifest unknown" >&2; exit 1 ;;
  "image inspect") echo; exit ${INSPECT:-1} ;;
esac
"""


def _docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    directory = tmp_path / "path"
    directory.mkdir()
    (directory / "docker").write_text(DOCKER)
    (directory / "docker").chmod(0o755)
    for program in ("sh", "timeout"):
        (directory / program).symlink_to(shutil.which(program) or "")
    monkeypatch.setenv("PATH", str(directory))
    calls = tmp_path / "calls"
    monkeypatch.setenv("CALLS", str(calls))
    return lambda: [line for line in calls.read_text().splitlines() if not line.startswith("image inspect")]


def test_images_are_pulled_and_have_the_lab_s_names(
    publisher: Publisher, official: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _docker(tmp_path, monkeypatch)
    step = quiet("images", tmp_path / "log")
    pulled = images.pull(step, Engine(None), programs.Tools(official), images.IMAGES)
    assert pulled == [images.PROXY, images.ECHO, images.NODE]
    assert calls() == [
        f"pull {images.PILOT}",
        f"pull {images.PROXY}",
        f"pull docker.io/istio/app:{versions.ISTIO}",
        f"tag docker.io/istio/app:{versions.ISTIO} {images.ECHO}",
        f"pull {images.NODE}",
    ]
    assert "manifest unknown" in _log(tmp_path)


@pytest.mark.parametrize("case", ["offline", "silent", "there"])
def test_no_image_is_pulled_without_need(
    publisher: Publisher, official: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    calls = _docker(tmp_path, monkeypatch)
    (tmp_path / "calls").touch()
    monkeypatch.setenv("INSPECT", "0" if case == "there" else "1")
    if case == "silent":
        publisher.silent.add(artefacts.REGISTRY)
        official.limits = Limits(answer_s=0.4)
    tools = programs.Tools(None if case == "offline" else official)
    assert images.pull(quiet("images", tmp_path / "log"), Engine(None), tools, images.IMAGES) == []
    assert calls() == []


@pytest.mark.slow
def test_a_host_name_that_hangs_in_the_resolver_is_no_answer() -> None:
    over, resolved = threading.Event(), threading.Event()

    def place(url: str) -> str:
        over.wait(60)
        resolved.set()
        return url

    try:
        assert sources._ask(["https://dl.k8s.io"], place, 0.2) == {"https://dl.k8s.io": False}
        assert not resolved.is_set()
    finally:
        over.set()
