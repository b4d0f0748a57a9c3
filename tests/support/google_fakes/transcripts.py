"""What Google's clients print, and what they request, in each situation that tests put them into.

`python -m tests.support.google_fakes.transcripts` records it from the clients that are installed, in
the project's directory with PYTHONPATH=scripts.
"""

from __future__ import annotations

import datetime
import os
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.google_fakes.clients import GCLOUD, PLUGIN, REAL, Google, serving

FILE = Path(__file__).with_name("transcripts.yaml")
IMPERSONATE = "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT"
KEY_PATH = "hostkeys/ssh-ed25519"
_PLACE = ("--project", "my-project", "--zone", "europe-west1-b")
ATTRIBUTE = ("compute", "instances", "get-guest-attributes", "m-1", *_PLACE, "--quiet", f"--query-path={KEY_PATH}", "--format=value(value)")
ACCESS_TOKEN = ("auth", "print-access-token", "--quiet")
TUNNEL = ("compute", "start-iap-tunnel", "m-1", "22", "--listen-on-stdin", *_PLACE, "--verbosity", "warning")
TOKEN = ("--use_application_default_credentials",)


@dataclass(frozen=True)
class Situation:
    """A command of a client, and what Google's servers are like.

    arrange: prepares the servers. It returns variables of the client.
    stdin: what the client reads.
    instance: what the instance sends through a tunnel once it was sent `stdin`.
    """

    client: str
    words: tuple[str, ...]
    arrange: Callable[[Google], dict[str, str] | None] = lambda google: None
    stdin: bytes = b""
    instance: bytes = b""


@dataclass(frozen=True)
class Transcript:
    """How a client ended, what it printed, and which requests it sent. Paths and times are left out."""

    status: int
    stdout: str
    stderr: str
    requests: list[str] = field(default_factory=list)


def _attribute(google: Google) -> None:
    google.apis.guest_attributes[KEY_PATH] = "AAAAkey"


def _impersonate(google: Google) -> dict[str, str]:
    _attribute(google)
    return {IMPERSONATE: google.identities.account("deployer").email}


def _refuse_impersonation(google: Google) -> dict[str, str]:
    google.apis.may_impersonate = False
    return _impersonate(google)


def _forbid_attributes(google: Google) -> None:
    google.apis.guest_attributes_policy = True


def _refuse(google: Google) -> None:
    google.relay.handshake_status = 403


def _close(code: int, reason: str) -> Callable[[Google], None]:
    def arrange(google: Google) -> None:
        google.relay.close = (code, reason)

    return arrange


def _refuse_keys(google: Google) -> None:
    google.apis.refuses_assertions = True


def _lose_key(google: Google) -> None:
    google.key_file.unlink()


SITUATIONS = {
    "an access token": Situation(GCLOUD, ACCESS_TOKEN),
    "an access token, by impersonation": Situation(GCLOUD, ACCESS_TOKEN, _impersonate),
    "a guest attribute": Situation(GCLOUD, ATTRIBUTE, _attribute),
    "a guest attribute that is not there": Situation(GCLOUD, ATTRIBUTE),
    "a guest attribute, by impersonation": Situation(GCLOUD, ATTRIBUTE, _impersonate),
    "an impersonation that is denied": Situation(GCLOUD, ATTRIBUTE, _refuse_impersonation),
    "guest attributes that a policy forbids": Situation(GCLOUD, ATTRIBUTE, _forbid_attributes),
    "a tunnel": Situation(GCLOUD, TUNNEL, stdin=b"ping\n", instance=b"pong\n"),
    "a tunnel without the role": Situation(GCLOUD, TUNNEL, _refuse),
    "a tunnel to a closed port": Situation(GCLOUD, TUNNEL),
    "a tunnel that IAP does not authorize": Situation(GCLOUD, TUNNEL, _close(4033, "not authorized")),
    "a token": Situation(PLUGIN, TOKEN),
    "a token for a key that is not valid": Situation(PLUGIN, TOKEN, _refuse_keys),
    "a token without credentials": Situation(PLUGIN, TOKEN, _lose_key),
}


def observe(situation: Situation, kind: str, directory: Path) -> Transcript:
    """Run a client. kind: which one. directory: an empty one, for its files and the servers'."""
    with ExitStack() as stack:
        google = stack.enter_context(serving(directory))
        variables = situation.arrange(google) or {}
        if situation.instance:
            google.relay.port = stack.enter_context(_Instance(situation.stdin, situation.instance)).port
        google.add_clients(directory / "bin", kind)
        environment = {"PATH": os.environ["PATH"], "HOME": str(directory), **google.environment(), **variables}
        words = [str(directory / "bin" / situation.client), *situation.words]
        status, stdout, stderr = _run(words, environment, situation)
        return Transcript(
            status,
            _without_variables(stdout, directory),
            _without_variables(stderr, directory),
            [_without_variables(each, directory) for each in [*google.apis.requests, *google.relay.requests]],
        )


def _run(words: list[str], environment: dict[str, str], situation: Situation) -> tuple[int, str, str]:
    """Run a program to its end. Its input ends once it has printed what the instance sends: a tunnel ends with its input."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin and process.stdout
        process.stdin.write(situation.stdin)
        process.stdin.flush()
        first = process.stdout.read(len(situation.instance))
        rest, errors = process.communicate()
        return process.returncode, (first + rest).decode(), errors.decode()


class _Instance:
    """A TCP server that sends its answer once, after it was sent `request`."""

    def __init__(self, request: bytes, answer: bytes) -> None:
        self._request, self._answer = request, answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return  # nothing came
        with connection, connection.makefile("rb") as file:
            if file.read(len(self._request)) == self._request:
                connection.sendall(self._answer)

    def __enter__(self) -> _Instance:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()


def _without_variables(text: str, directory: Path) -> str:
    """Return a text without what differs from run to run, and without the frames of a traceback."""
    text = text.replace(str(directory), "DIRECTORY")
    text = re.sub(r"^(?: {2}File .*\n(?: {4}.*\n)*)+", "  FRAMES\n", text, flags=re.MULTILINE)
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)
    text = re.sub(r"ya29\.[0-9-]+", "TOKEN", text)
    text = re.sub(r'("expirationTimestamp": )"[^"]+"', r'\1"TIME"', text)
    return re.sub(r"^F\d{4} [0-9:.]+ +\d+ ", "FTIME ", text, flags=re.MULTILINE)


def recorded() -> dict[str, Transcript]:
    """Return what was recorded, by situation."""
    content = yaml.safe_load(FILE.read_text())
    return {name: Transcript(**call) for name, call in content["calls"].items()}


def _version(client: str) -> str:
    words = [client, "version" if client == GCLOUD else "--version"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[0]


class _Literal(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Literal.add_representer(str, _text)


def record() -> None:
    """Write `FILE`."""
    calls = {}
    for name, situation in SITUATIONS.items():
        with tempfile.TemporaryDirectory() as directory:
            calls[name] = asdict(observe(situation, REAL, Path(directory)))
    content: dict[str, Any] = {
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {client: _version(client) for client in (GCLOUD, PLUGIN)},
        "calls": calls,
    }
    head = "# What Google's clients do (tests/support/google_fakes/transcripts.py writes this file).\n"
    FILE.write_text(head + yaml.dump(content, Dumper=_Literal, sort_keys=False, width=1000))


if __name__ == "__main__":
    record()
