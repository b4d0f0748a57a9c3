"""What a program declares, through what reads it for real: shells, systemd, ssh, Docker's words, an API server.

Nothing of it runs but assignments, command lines with stand-ins for their programs, and scripts beside
Pulumi that have such stand-ins. What text of a stack file runs all the same leaves a trace: a file in
`Parsers.work`, or words on standard error.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import shell
from components.local import openssh, scripting
from components.machines import bundle, files
from tests.support.harness import THEIR_CLUSTER, Node, Run
from tests.support.scripts import machine_files

GENERATOR = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"
"""systemd's own reader of files with variables."""
HOSTILE_OPTIONS = ("-x", "-oProxyCommand", "--help")
"""How texts begin that a program would take for its options."""
_LIBRARY = shell.read_script("machines/lib")
_GOOGLE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_ACCOUNT_ID = re.compile(r"[a-z]([-a-z0-9]{4,28}[a-z0-9])")
_ESCAPED = re.compile(r"\\(.)")
_STAND_IN = """#!/bin/sh
printf '%s\\0' "${{0##*/}}" "$@" >>'{log}'
printf '\\n' >>'{log}'
case "${{0##*/}} $*" in
*IPAM*|'docker container inspect --format {{{{.State.Status'*) exit 1 ;; # there is none yet
*' --raw /apis'*) echo '{{"groups": []}}' ;;
*' namespace kube-system '*) printf %s {uid} ;;
'docker cp '*) cat '{files}' ;;
'docker port '*) echo '127.0.0.1:{port}' ;;
esac
"""
# Scripts beside Pulumi that run to their end with programs that say nothing.
_RUN = ("create_cluster", "load_images", "create_machine", "create_network", "attach_network", "gateway_api", "remove_namespace")
# Options whose value may begin with a dash.
_TAKES_ANY = ("--context",)
# istioctl sets these in place of the mesh's metadata.
_FIXED = {"ISTIO_INBOUND_PORTS", "ISTIO_NAMESPACE", "ISTIO_SERVICE", "ISTIO_SERVICE_CIDR", "ISTIO_LOCAL_EXCLUDE_PORTS"}


class Parsers:
    """Readers of what a program declares. What was read once is not read again."""

    def __init__(self, directory: Path, refusal: Callable[[Mapping[str, Any]], str | None], monkeypatch: pytest.MonkeyPatch) -> None:
        self.work, self._directory, self._refusal = directory / "work", directory, refusal
        self._log, programs = directory / "words", directory / "bin"
        self._read: set[str] = set()
        self.work.mkdir()
        programs.mkdir()
        self._listener = socket.create_server(("127.0.0.1", 0))
        files = directory / "files.tar"
        files.write_bytes(bundle.archive([bundle.MachineFile("/passwd", "admin:x:1000:1000::/home/admin:/bin/sh\n")]))
        port = self._listener.getsockname()[1]
        stand_in = _STAND_IN.format(log=self._log, port=port, files=files, uid=THEIR_CLUSTER["uid"])
        for name in ("docker", "kind", "kubectl", "gcloud", "python3", "ssh"):
            (programs / name).write_text(stand_in)
            (programs / name).chmod(0o755)
        self._environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(directory), "SHELL": "/bin/sh"}
        self._monkeypatch = monkeypatch

    def close(self) -> None:
        """Close what stands for an API server's port."""
        self._listener.close()

    def problems(self, run: Run) -> Iterator[str]:
        """Yield what a reader refuses or misreads, and what ran."""
        for node in run.graph.values():
            for problem in self._problems(node):
                yield f"{node.name}: {problem}"
        for path in sorted(self.work.rglob("*")):
            yield f"text of the stack file made {path.relative_to(self.work)}"
            path.unlink()

    def _problems(self, node: Node) -> Iterator[str]:
        if node.type.startswith("command:"):
            yield from self._command(node)
        elif node.type.startswith("kubernetes:") and set(node.inputs) != {"id"}:
            yield from self._object(node)
        elif node.type.startswith("gcp:"):
            yield from _google(node)
        for text in _texts(node.inputs):
            if _LIBRARY in text:
                yield from self._script(text)

    def _is_new(self, *parts: Any) -> bool:
        key = json.dumps(parts, sort_keys=True, default=str)
        is_new = key not in self._read
        self._read.add(key)
        return is_new

    def _object(self, node: Node) -> Iterator[str]:
        manifest = {key: value for key, value in node.inputs.items() if not key.startswith("__")}
        if node.type.startswith("kubernetes:helm.sh") or not self._is_new(manifest):
            return
        if refused := self._refusal(manifest):
            yield refused

    # Commands, and the scripts that they run.

    def _command(self, node: Node) -> Iterator[str]:
        for operation in ("create", "delete"):
            line = node.inputs.get(operation)
            if not line:
                continue
            if self._is_new(line):
                yield from self._silent(["/bin/sh", "-c", line], line)
            if not line.startswith("python3 -I "):
                continue
            words = shlex.split(line)
            stdin = node.inputs["stdin"]
            payloads = json.loads(stdin["secret"] if isinstance(stdin, dict) else stdin)
            module = importlib.import_module("components." + words[3].removesuffix(".py").replace("/", "."))
            if self._is_new(words[3:], payloads[operation]):
                yield from self._payload(module, payloads[operation])
        yield from self._words()

    def _payload(self, module: Any, values: Mapping[str, Any]) -> Iterator[str]:
        payload = scripting.decode(module.Payload, values)
        name = module.__name__.rpartition(".")[2]
        if name in _RUN:
            with self._monkeypatch.context() as patch:
                patch.setenv("PATH", self._environment["PATH"])
                module.run(payload)
        if name == "join_machine":
            yield from self._join(payload)
        if name == "prove_machine":
            yield from self._script(payload.script + shell.read_script("machines/lib") + shell.read_script(payload.body))
        if isinstance(target := getattr(payload, "target", None), openssh.Target):
            yield from self._ssh(target)
        for job in (getattr(payload, "job", None), getattr(payload, "plaintext_job", None)):
            if job and (refused := self._refusal(job)):
                yield refused
            for text in _texts(job or {}):
                if _LIBRARY in text:
                    yield from self._script(text)

    def _words(self) -> Iterator[str]:
        """Yield words that a program takes for its options, of those that it was called with."""
        if not self._log.exists():
            return
        for line in self._log.read_text(errors="replace").split("\0\n"):
            words = line.split("\0")
            for before, word in itertools.pairwise(words):
                if word.startswith(HOSTILE_OPTIONS) and before not in _TAKES_ANY:
                    yield f"{words[0]} is given the option {word!r}: {words}"
        self._log.unlink()

    def _silent(self, words: list[str], about: str, stdin: str = "") -> Iterator[str]:
        """Yield what a program says against a text, which is one that it takes in silence."""
        done = subprocess.run(words, input=stdin, env=self._environment, cwd=self.work, capture_output=True, text=True)
        if done.returncode or done.stderr:
            yield f"{words[0]} says {done.stderr.strip()[:300]!r} (status {done.returncode}) of {about[:300]!r}"

    # Scripts for machines and pods, and the files in them.

    def _join(self, payload: Any) -> Iterator[str]:
        complete = replace(payload.bundle, files=files.configuration_files(payload.bundle))
        yield from self._script(bundle.join_script(bundle.with_root_certificate(complete, "a certificate"), "a-token"))
        variables = bundle.join_variables(complete)
        yield from self._assigned(shell.assignments(variables), variables)

    def _script(self, text: str) -> Iterator[str]:
        if not self._is_new(text):
            return
        path = self._directory / "script"
        path.write_text(text)
        yield from self._silent(["bash", "-n", str(path)], "a script")
        path.write_text(text.partition(_LIBRARY)[0])
        yield from self._silent(["bash", str(path)], path.read_text())
        if re.search(r"^FILES=\S", text, re.MULTILINE):
            yield from self._files(machine_files(text))

    def _assigned(self, text: str, expected: Mapping[str, str]) -> Iterator[str]:
        """Yield the variables of a file that a shell reads otherwise."""
        path = self._directory / "variables"
        path.write_text(text)
        # Not by `env`: a variable may be longer than one of an environment can be.
        show = 'for name; do [ -z "${!name+x}" ] || printf "%s=%s\\0" "$name" "${!name}"; done'
        words = ["bash", "-c", f'. "$1"; shift; {show}', "bash", str(path), *expected]
        environment = {"PATH": self._environment["PATH"]}
        done = subprocess.run(words, env=environment, cwd=self.work, capture_output=True, text=True)
        if done.returncode or done.stderr:
            yield f"bash says {done.stderr.strip()!r} of {text[:300]!r}"
        values = dict(pair.partition("=")[::2] for pair in done.stdout.split("\0") if pair)
        for key, value in expected.items():
            if values.get(key) != value:
                yield f"bash reads {key} as {values.get(key)!r} in place of {value!r}"

    def _files(self, texts: Mapping[str, str]) -> Iterator[str]:
        text = texts[files.MESH_CONFIG]
        if yaml.safe_load(text) != json.loads(text):
            yield f"YAML and JSON read {text[:300]!r} otherwise"
        metadata = json.loads(text)["defaultConfig"]["proxyMetadata"]
        expected = {key: value for key, value in metadata.items() if key.isidentifier() and key.isascii() and key not in _FIXED}
        for path in (files.CLUSTER_ENV, files.OVERRIDES_ENV):
            if self._is_new(texts[path]):
                yield from self._assigned(texts[path], expected if path == files.CLUSTER_ENV else {})
                yield from self._systemd(texts[path], expected if path == files.CLUSTER_ENV else {})
        for path, text in texts.items():
            if path.startswith(bundle.UNITS) and text != bundle.unit(path.removeprefix(f"{bundle.UNITS}/")).text:
                yield f"{path} is another unit than the one that systemd was asked about"

    def _systemd(self, text: str, expected: Mapping[str, str]) -> Iterator[str]:
        """Yield the variables that systemd reads otherwise; this reader of it replaces `$`, so those are left out."""
        directory = self._directory / ".config" / "environment.d"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "it.conf").write_text(text)
        done = subprocess.run([GENERATOR], env=self._environment, capture_output=True, text=True)
        if done.returncode or done.stderr:
            yield f"systemd says {done.stderr.strip()!r}"
        values = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        for key, value in expected.items():
            if "$" not in value and value.isascii() and _unquoted(values.get(key, "")) != value:
                yield f"systemd reads {key} as {values.get(key)!r} in place of {value!r}"

    # SSH.

    def _ssh(self, target: openssh.Target) -> Iterator[str]:
        """Yield what the real ssh makes of a target but its host, and what its ProxyCommand runs."""
        with scripting.private_directory() as directory:
            yield from self._connection(target, openssh._Connection(target, directory).words())

    def _connection(self, target: openssh.Target, words: list[str]) -> Iterator[str]:
        ssh = ["/usr/bin/ssh", "-F", "/dev/null"]
        options = words[1:-1]
        done = subprocess.run([*ssh, "-G", *options], env=self._environment, cwd=self.work, capture_output=True, text=True)
        read = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
        if done.returncode or read.get("hostname") != target.hop.host.lower():
            yield f"ssh connects to {read.get('hostname')!r} in place of {target.hop.host!r}: {done.stderr!r}"
        if target.hop.user and read.get("user") != target.hop.user:
            yield f"ssh logs in as {read.get('user')!r} in place of {target.hop.user!r}"
        if any("ProxyCommand=" in word for word in options):
            # Its programs are stand-ins that end at once.
            subprocess.run([*ssh, *options, "true"], env=self._environment, cwd=self.work, capture_output=True, check=False)


def _google(node: Node) -> Iterator[str]:
    """Yield names that Google refuses."""
    inputs = node.inputs
    if node.type.startswith("gcp:compute/") and not _GOOGLE_NAME.fullmatch(node.state["name"]):
        yield f"Google takes no name {node.state['name']!r}"
    if "accountId" in inputs and not _ACCOUNT_ID.fullmatch(inputs["accountId"]):
        yield f"Google takes no account {inputs['accountId']!r}"
    for key, value in (inputs.get("defaultLabels") or {}).items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            yield f"Google takes no label {key!r}: {value!r}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return _ESCAPED.sub(lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text[1:-1])
