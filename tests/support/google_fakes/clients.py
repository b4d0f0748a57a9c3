"""Google's clients on PATH, which reach the stand-ins for Google's servers alone.

Where gcloud and gke-gcloud-auth-plugin are installed, they are used as they are. Everywhere, stubs
are used too: those behave as `transcripts.yaml` records it of the real ones.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.support.authority import Authority
from tests.support.google_fakes import apis, relay
from tests.support.google_fakes.apis import Apis
from tests.support.google_fakes.identities import CLOUD_PLATFORM, USERINFO_EMAIL, Account, Identities
from tests.support.google_fakes.relay import Relay

GCLOUD, PLUGIN = "gcloud", "gke-gcloud-auth-plugin"
STUBS = {GCLOUD: "stub_gcloud.py", PLUGIN: "stub_auth_plugin.py"}
STUB, REAL = "stub", "real"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Google:
    """The servers, the user of the clients, and the files of both.

    runner: who runs Pulumi.
    directory: the files; those of the clients are in `config`.
    """

    identities: Identities
    apis: Apis
    relay: Relay
    runner: Account
    directory: Path

    @property
    def token_file(self) -> Path:
        """The access token of the user."""
        return self.directory / "token"

    @property
    def key_file(self) -> Path:
        """The key of the user, which the Application Default Credentials are."""
        return self.directory / "key.json"

    def environment(self) -> dict[str, str]:
        """Return the variables by which the clients reach the stand-ins, as this user."""
        return {
            "CLOUDSDK_CONFIG": str(self.directory / "config"),
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(self.token_file),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{self.apis.url}/compute/v1/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS": f"{self.apis.url}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER": f"{self.apis.url}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SERVICEUSAGE": f"{self.apis.url}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER": f"{self.apis.url}/",
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.key_file),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def add_clients(self, programs: Path, kind: str) -> None:
        """Put the clients into a directory. kind: `STUB` or `REAL`."""
        programs.mkdir(exist_ok=True)
        # gcloud has no variable for the relay's address.
        relay_options = [f"--iap-tunnel-url-override={self.relay.url}", "--iap-tunnel-insecure-disable-websocket-cert-check"]
        for name, stub in STUBS.items():
            program = [shutil.which(name) or name] if kind == REAL else [sys.executable, "-I", str(HERE / stub)]
            more = f'case "$*" in "compute start-iap-tunnel "*) set -- "$@" {shlex.join(relay_options)} ;; esac\n'
            (programs / name).write_text(f'#!/bin/sh\n{more}exec {shlex.join(program)} "$@"\n')
            (programs / name).chmod(0o755)


@contextmanager
def serving(directory: Path, identities: Identities | None = None) -> Iterator[Google]:
    """Start the servers, with their files in `directory`, and stop them at the end.

    identities: those of a control plane that the accounts log in to; None: new ones.
    """
    identities = identities or Identities()
    runner = identities.account("runner")
    context = Authority().server_context(directory, "relay")
    with apis.serving(identities) as served, relay.serving(identities, context) as tunnel:
        google = Google(identities, served, tunnel, runner, directory)
        google.token_file.write_text(identities.issue(runner, [CLOUD_PLATFORM, USERINFO_EMAIL]))
        identities.write_key(runner, f"{served.url}/token", google.key_file)
        yield google


def is_installed(name: str) -> bool:
    """Return whether a client is on PATH."""
    return shutil.which(name) is not None


def by_kind(cases: Mapping[str, str]) -> list[ParameterSet]:
    """Return parameters of a test, a case and a kind: with the stub, and with the real client where it is installed.

    cases: the client that each case runs. A call of the real gcloud takes more than a second, so those tests are slow.
    """
    stubs = [pytest.param(case, STUB, id=f"{case} - {STUB}") for case in cases]
    installed = [case for case, client in cases.items() if is_installed(client)]
    return [*stubs, *(pytest.param(case, REAL, marks=pytest.mark.slow, id=f"{case} - {REAL}") for case in installed)]


def kinds(client: str) -> list[ParameterSet]:
    """Return the kinds of a client that are here, as the parameters of a fixture."""
    real = [pytest.param(REAL, marks=pytest.mark.slow)] if is_installed(client) else []
    return [pytest.param(STUB), *real]


def use(google: Google, programs: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process, and its children, run the clients."""
    google.add_clients(programs, kind)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("CLOUDSDK_")]:
        monkeypatch.delenv(name)
    for name, value in google.environment().items():
        monkeypatch.setenv(name, value)
