"""Google's APIs as the user that gcloud is logged in as."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

_APIS = {
    "cloudresourcemanager": "https://cloudresourcemanager.googleapis.com/",
    "compute": "https://compute.googleapis.com/compute/v1/",
    "container": "https://container.googleapis.com/",
    "serviceusage": "https://serviceusage.googleapis.com/",
}
_TIMEOUT_S = 60


class GoogleError(Exception):
    """What an API or gcloud refused, in one sentence. status: that of HTTP; 0 where none answered."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Google:
    """The APIs of a project.

    project: its ID. token: an access token of the user.
    environment: gcloud's own variables name other endpoints
    (`CLOUDSDK_API_ENDPOINT_OVERRIDES_<API>`).
    """

    project: str
    token: str
    environment: Mapping[str, str]

    @classmethod
    def of_gcloud(cls, project: str, environment: Mapping[str, str]) -> Google:
        """Return the APIs for the user of gcloud. Raises GoogleError where no user is logged in."""
        words = ["gcloud", "auth", "print-access-token", "--quiet"]
        done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode or not done.stdout.strip():
            lines = done.stderr.strip().splitlines()
            raise GoogleError(f"gcloud has no credentials: {lines[-1] if lines else 'no reason'}")
        return cls(project, done.stdout.strip().splitlines()[-1], environment)

    def call(self, api: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer. Raises GoogleError with what the API returns.

        api: a key of the table above. body: of a POST; None sends a GET.
        """
        variable = f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api.upper()}"
        url = (self.environment.get(variable) or _APIS[api]) + path
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            raise GoogleError(f"{error.code}: {_message(error)}", error.code) from None
        except OSError as error:
            raise GoogleError(f"{api} cannot be reached: {error}") from None

    def exists(self, api: str, path: str) -> bool:
        """Return whether an object exists. Raises GoogleError where that cannot be read."""
        try:
            self.call(api, path)
        except GoogleError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return error.reason
