"""HTTP requests to the API of a forge. Standard library alone, so proxies and certificates are as
`urllib` finds them.

The token goes to the API's own origin and to no other one, redirects and pages included.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from typing import TypeVar

from ..untrusted import LINE, clean
from .errors import AbsentError, BusyError, ForgeError, TooLongError

Json = object
"""What `json.loads` returns."""
T = TypeVar("T")

TIMEOUT_S = 30
"""Seconds for one request."""
PATIENCE_S = 300
"""Seconds that one run of this program waits in total for a forge that is busy."""
PAUSES_S = (1, 2, 4, 8, 16, 32, 60)
"""Seconds between attempts where the forge names no time."""
LIMITED_S = 60
"""Seconds to wait after a secondary rate limit without a time (GitHub: "Best practices for using
the REST API", at least one minute).
"""
MOST_REDIRECTS = 5
SLEEP = time.sleep
"""Waits for so many seconds."""
MOST_BYTES = 50_000_000
"""Bytes of an answer."""
PER_PAGE = 100


@dataclass(frozen=True)
class Access:
    """How the API of a forge is reached.

    url: of the API, without a slash at its end. token: sent as a bearer.
    variable: the environment variable that the token is from, for messages.
    headers: further ones of every request.
    """

    url: str
    token: str
    variable: str
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Access({self.url})"


@dataclass(frozen=True)
class Answer:
    """An answer: its body, and its headers, whose names are in any case."""

    body: bytes
    headers: Message


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to `Client`: urllib sends the token to any host, and turns POST into GET."""

    def redirect_request(self, *_arguments: object) -> None:
        return None


class Client:
    """Requests to one API.

    needs: what a permission that is missing is called, for messages: takes the method and path.
    """

    def __init__(self, access: Access, needs: Callable[[str, str], str]) -> None:
        self._access, self._needs = access, needs
        self._opener = urllib.request.build_opener(_NoRedirect())
        self._waited_s = 0.0

    def get(self, path: str, **query: str | int) -> Json:
        """Return the JSON at a path, such as "/user"."""
        return _decode(self._read(self._url(path, query)).body, path)

    def pages(self, path: str, key: str = "", **query: str | int) -> Iterator[Json]:
        """Yield the items of all pages of a list. key: of the list, if the answer is an object."""
        url: str | None = self._url(path, {"per_page": PER_PAGE, **query})
        visited = set[str]()
        while url and url not in visited:
            visited.add(url)
            answer = self._read(url)
            page = _decode(answer.body, path)
            if key and isinstance(page, dict):
                page = page.get(key)
            if not isinstance(page, list):
                raise ForgeError(f"{self._access.url}{path} is no list: is this the API's address?")
            yield from page
            url = self._next(answer.headers, url)

    def download(self, path: str, limit: int = MOST_BYTES) -> bytes:
        """Return a file, which may be on another host; that one does not get the token.

        Raises ForgeError where it is longer than `limit` bytes.
        """
        return self._read(self._url(path, {}), limit).body

    def send(self, method: str, path: str, body: Mapping[str, Json]) -> Json:
        """Change something, and return the answer's JSON; None for an empty one.

        It is never repeated here: what it depends on may have changed meanwhile, and a failure may
        come after the change. Raises BusyError then.
        """
        answer = self._request(method, self._url(path, {}), json.dumps(body).encode())
        return _decode(answer.body, path) if answer.body.strip() else None

    def ask(self, url: str, body: Mapping[str, Json]) -> Json:
        """Return the answer to a POST that changes nothing, at a URL of the API's origin."""
        data = json.dumps(body).encode()
        return _decode(self._again(lambda: self._request("POST", url, data)).body, url)

    def patience(self) -> Patience:
        """Return a new count of attempts; all of them together wait at most `PATIENCE_S`."""
        return Patience(self)

    def wait(self, busy: BusyError, pause_s: float) -> None:
        """Wait at least `pause_s` seconds. Raises ForgeError where all waits take too long."""
        wait_s = max(busy.wait_s, pause_s)
        if self._waited_s + wait_s > PATIENCE_S:
            raise ForgeError(
                f"{busy}. It would take {wait_s:.0f} s more: run it again then"
            ) from busy
        self._waited_s += wait_s
        SLEEP(wait_s)

    def _read(self, url: str, limit: int = MOST_BYTES) -> Answer:
        return self._again(lambda: self._request("GET", url, limit=limit))

    def _again(self, request: Callable[[], T]) -> T:
        patience = self.patience()
        while True:
            try:
                return request()
            except BusyError as busy:
                patience.wait(busy)

    def _request(
        self, method: str, url: str, data: bytes | None = None, limit: int = MOST_BYTES
    ) -> Answer:
        for _ in range(MOST_REDIRECTS):
            headers = {"User-Agent": "istio-vm-mesh", **self._access.headers}
            if _origin(url) == _origin(self._access.url):
                headers["Authorization"] = f"Bearer {self._access.token}"
            if data is not None:
                headers["Content-Type"] = "application/json"
            request = urllib.request.Request(url, data=data, headers=headers, method=method)
            try:
                with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                    return _bounded(answer, url, limit)
            except urllib.error.HTTPError as error:
                with error:
                    url = self._redirected(error, method, url)
            except (OSError, HTTPException) as error:
                # OSError: URLError, a timeout, a connection that was reset.
                raise BusyError(f"{_shown(url)} does not answer: {error}", PAUSES_S[0]) from error
        raise ForgeError(f"{_shown(url)} is redirected {MOST_REDIRECTS} times")

    def _redirected(self, error: urllib.error.HTTPError, method: str, url: str) -> str:
        """Return where a redirect leads; raise what other errors mean."""
        target = error.headers.get("Location")
        if error.code not in (301, 302, 303, 307, 308) or not target:
            raise self._error(error, method, url)
        target = urllib.parse.urljoin(url, target)
        if urllib.parse.urlsplit(target).scheme not in ("http", "https"):
            raise ForgeError(f"{_shown(url)} is redirected to something that is no web address")
        if method != "GET" and (error.code == 303 or _origin(target) != _origin(self._access.url)):
            raise ForgeError(f"{_shown(url)} moved to another server: correct the API's address")
        return target

    def _error(self, error: urllib.error.HTTPError, method: str, url: str) -> ForgeError:
        try:
            text = error.read(10_000).decode(errors="replace")
        except (OSError, HTTPException):
            text = ""
        headers, message = error.headers, clean(text, LINE)
        what, variable = f"{method} {_shown(url)}: {error.code}", self._access.variable
        needs = clean(
            headers.get("X-Accepted-GitHub-Permissions") or self._needs(method, url), LINE
        )
        if error.code == 429 or (error.code == 403 and _is_rate_limit(headers, text)):
            return BusyError(f"{what}, the rate limit of {variable}", _pause(headers, LIMITED_S))
        if error.code >= 500 or error.code in (408, 409):
            return BusyError(f"{what} {message}", _pause(headers, PAUSES_S[0]))
        if error.code == 401:
            return ForgeError(f"{what}. {variable} is refused: it ended, or is of another server")
        if error.code == 403:
            return ForgeError(f"{what} {message}. {variable} lacks a permission: {needs}")
        if error.code == 404:
            hint = f"It does not exist, or {variable} cannot see it: that takes {needs}"
            return AbsentError(f"{what}. {hint}")
        if error.code in (400, 413, 422) and (error.code == 413 or "too long" in text.lower()):
            return TooLongError(f"{what} {message}")
        return ForgeError(f"{what} {message}")

    def _url(self, path: str, query: Mapping[str, str | int]) -> str:
        return f"{self._access.url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")

    def _next(self, headers: Message, url: str) -> str | None:
        """Return the next page's URL, by RFC 8288's `Link`, as both forges have it."""
        match = re.search(r'<([^>]*)>;[^<]*\brel="?next\b', headers.get("Link", ""))
        if not match:
            return None
        target = urllib.parse.urljoin(url, match[1])
        if _origin(target) != _origin(self._access.url):
            raise ForgeError(f"{_shown(url)}: the next page is on another server")
        return target


class Patience:
    """The attempts of one thing that is tried again: their number is bounded, and pauses grow."""

    def __init__(self, client: Client) -> None:
        self._client, self._pauses = client, iter(PAUSES_S)

    def wait(self, busy: BusyError) -> None:
        """Wait before the next attempt. Raises ForgeError where there is none."""
        if (pause_s := next(self._pauses, None)) is None:
            raise ForgeError(f"{busy}, {len(PAUSES_S) + 1} times") from busy
        self._client.wait(busy, pause_s)


def _bounded(answer: HTTPResponse, url: str, limit: int) -> Answer:
    body = answer.read(limit + 1)
    if len(body) > limit:
        raise ForgeError(f"{_shown(url)} has more than {limit} bytes")
    return Answer(body, answer.headers)


def _decode(body: bytes, path: str) -> Json:
    try:
        value: Json = json.loads(body)
    except ValueError as error:
        raise ForgeError(
            f"{path} is answered with something else than JSON: is this the API's address?"
        ) from error
    return value


def _shown(url: str) -> str:
    """Return a URL for messages: without its query, which may hold a signature."""
    return clean(url.partition("?")[0], LINE)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urllib.parse.urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", parts.port or default


def _is_rate_limit(headers: Message, text: str) -> bool:
    """Return whether a 403 is a rate limit (GitHub: "Rate limits for the REST API")."""
    return (
        "Retry-After" in headers
        or headers.get("X-RateLimit-Remaining") == "0"
        or "rate limit" in text.lower()
    )


def _pause(headers: Message, default_s: float) -> float:
    """Return the seconds that an answer has a client wait: a number, a date, or a reset time."""
    after = headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return float(after)
    if after:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
        except (ValueError, TypeError):
            return default_s
    reset = headers.get("X-RateLimit-Reset", "") or headers.get("RateLimit-Reset", "")
    remaining = headers.get("X-RateLimit-Remaining") or headers.get("RateLimit-Remaining")
    if remaining == "0" and reset.isdecimal():
        return max(0.0, float(reset) - time.time())
    return default_s
