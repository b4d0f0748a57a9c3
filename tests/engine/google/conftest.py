"""Stand-ins for Google's servers, and Google's clients that reach them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.google_fakes import clients
from tests.support.google_fakes.clients import GCLOUD, PLUGIN, Google


@pytest.fixture
def google(tmp_path: Path) -> Iterator[Google]:
    """The servers, as they are when all is well."""
    directory = tmp_path / "google"
    directory.mkdir()
    with clients.serving(directory) as google:
        yield google


@pytest.fixture(params=clients.kinds(GCLOUD))
def gcloud(request: pytest.FixtureRequest, google: Google, monkeypatch: pytest.MonkeyPatch) -> Google:
    """The servers, with the stub of gcloud on PATH, and with the real one where it is installed."""
    clients.use(google, google.directory / "bin", request.param, monkeypatch)
    return google


@pytest.fixture(params=clients.kinds(PLUGIN))
def plugin_kind(request: pytest.FixtureRequest) -> str:
    """The kinds of gke-gcloud-auth-plugin that are here."""
    return str(request.param)
