"""The resources of one Kubernetes API server, as plain dictionaries."""

from __future__ import annotations

import json
import os
import ssl
import threading
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlencode

import urllib3

from ..provider import ProviderError
from .kubeconfig import Kubeconfig, memory_file

Object = dict[str, Any]

_TIMEOUT = urllib3.Timeout(connect=10, read=60)
# A busy API server answers 429 with the time of the next attempt; a connection that broke before an
# answer came is tried again.
_RETRIES = urllib3.Retry(total=3, backoff_factor=0.1, status_forcelist=(429,), allowed_methods=None, redirect=0, raise_on_status=False)


class ApiError(ProviderError):
    """The API server refused a request. `code` is the HTTP status, `reason` Kubernetes' word for
    it (`NotFound`, `Conflict`, ...).
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class UnknownKind(ApiError):
    """The API server does not serve this kind: its CustomResourceDefinition is not there (yet)."""

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(
            404, "NoMatch", f"no matches for kind {kind!r} in version {api_version!r}: is its CustomResourceDefinition installed?"
        )


class Unreachable(ProviderError):
    """No answer from the API server."""


def forgive(error: Unreachable) -> None:
    """Return if the user has declared a cluster that does not answer as gone with all its objects.

    Raises ProviderError otherwise, with how to do so.
    """
    if os.environ.get("PULUMI_K8S_DELETE_UNREACHABLE") != "true":
        raise ProviderError(f"{error}; if the cluster is gone for good, run once with PULUMI_K8S_DELETE_UNREACHABLE=true") from None


@dataclass(frozen=True)
class Endpoint:
    """Where the API server serves a kind."""

    root: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        scope = f"/namespaces/{quote(namespace)}" if self.namespaced and namespace else ""
        return f"{self.root}{scope}/{self.plural}" + (f"/{quote(name)}" if name else "")


_STRICT = {"fieldValidation": "Strict"}
"""A field that the kind does not have is refused: the server would drop it. The official plugin
checks this by the server's OpenAPI schema.
"""


class Cluster:
    """An API server. Safe to use from many threads; connects when first used."""

    def __init__(self, kubeconfig: Kubeconfig) -> None:
        self._server = kubeconfig.server
        self._headers = {"Authorization": f"Bearer {kubeconfig.token}"} if kubeconfig.token else {}
        options: dict[str, Any] = {"server_hostname": kubeconfig.tls_server_name} if kubeconfig.tls_server_name else {}
        self._pool = urllib3.PoolManager(maxsize=32, ssl_context=_tls(kubeconfig), timeout=_TIMEOUT, retries=_RETRIES, **options)
        self._kinds: dict[str, dict[str, Endpoint]] = {}
        self._lock = threading.Lock()

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Return the object, or None. Raises `UnknownKind` when its kind is not served."""
        path = self.endpoint(api_version, kind).path(namespace, name)
        try:
            return self.call("GET", path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def list(self, api_version: str, kind: str, namespace: str, selector: str = "") -> list[Object]:
        """Return the objects with the labels of `selector`."""
        path = self.endpoint(api_version, kind).path(namespace)
        return self.call("GET", path, {"labelSelector": selector} if selector else None)["items"]

    def apply(self, wanted: Object, manager: str, *, force: bool = False, dry_run: bool = False) -> Object:
        """Server-side apply; gives the object as it is then."""
        return self._write("PATCH", wanted, {"fieldManager": manager, "force": json.dumps(force)}, dry_run, "application/apply-patch+yaml")

    def create(self, wanted: Object, manager: str) -> Object:
        """Create it. Raises `ApiError` with the reason AlreadyExists where something has its
        name.
        """
        path = self.endpoint(wanted["apiVersion"], wanted["kind"]).path(wanted["metadata"].get("namespace", ""))
        return self.call("POST", path, {"fieldManager": manager, **_STRICT}, wanted)

    def replace(self, wanted: Object, manager: str, *, dry_run: bool = False) -> Object:
        """Put `wanted` in the place of what is there; it must carry the resourceVersion that it
        replaces.
        """
        return self._write("PUT", wanted, {"fieldManager": manager}, dry_run, "application/json")

    def delete(self, api_version: str, kind: str, namespace: str, name: str, propagation: str) -> None:
        """Ask for deletion: it may take effect later. `propagation`: Foreground, Background or
        Orphan. Something absent is fine.
        """
        try:
            self.call("DELETE", self.endpoint(api_version, kind).path(namespace, name), body={"propagationPolicy": propagation})
        except ApiError as error:
            if error.code != 404:
                raise

    def endpoint(self, api_version: str, kind: str) -> Endpoint:
        """Return where a kind is served. An unknown kind is looked up each time: it may have been
        added meanwhile.
        """
        kinds = self._kinds.get(api_version, {})
        if kind not in kinds:
            with self._lock:
                kinds = self._kinds[api_version] = self._discover(api_version)
        if kind not in kinds:
            raise UnknownKind(api_version, kind)
        return kinds[kind]

    def _discover(self, api_version: str) -> dict[str, Endpoint]:
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            resources = self.call("GET", root)["resources"]
        except ApiError as error:
            if error.code == 404:
                return {}
            raise
        return {each["kind"]: Endpoint(root, each["name"], each["namespaced"]) for each in resources if "/" not in each["name"]}

    def _write(self, method: str, wanted: Object, query: dict[str, str], dry_run: bool, content_type: str) -> Object:
        metadata = wanted["metadata"]
        path = self.endpoint(wanted["apiVersion"], wanted["kind"]).path(metadata.get("namespace", ""), metadata["name"])
        return self.call(method, path, query | _STRICT | ({"dryRun": "All"} if dry_run else {}), wanted, content_type)

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request. Raises `ApiError` for an answer other than success, `Unreachable` when
        none comes.
        """
        url = self._server + path + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body).encode() if body is not None else None
        try:
            response = self._pool.request(method, url, body=data, headers={**self._headers, "Content-Type": content_type})
        except urllib3.exceptions.HTTPError as error:
            cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
            raise Unreachable(f"the cluster's API server at {self._server} does not answer: {cause}") from None
        answer = _json(response.data)
        if response.status >= 400:
            message = answer.get("message") or f"{method} {path}: HTTP {response.status}"
            raise ApiError(response.status, answer.get("reason", ""), message)
        return answer


def _json(data: bytes) -> Object:
    try:
        answer = json.loads(data)
    except ValueError:
        return {}
    return cast(Object, answer) if isinstance(answer, dict) else {}


def _tls(kubeconfig: Kubeconfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=kubeconfig.certificate_authority or None)
        if kubeconfig.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if kubeconfig.client_certificate:
            with memory_file(f"{kubeconfig.client_certificate}\n{kubeconfig.client_key}") as (path, _):
                context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise ProviderError(f"a certificate or key in the provider's kubeconfig is broken: {error}") from None
    return context
