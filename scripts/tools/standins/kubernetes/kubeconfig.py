"""From a kubeconfig to one API server and the credentials for it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..provider import ProviderError

_REFUSED_LOGINS = ("auth-provider", "username", "password")


@contextmanager
def memory_file(text: str) -> Iterator[tuple[str, int]]:
    """Yield a file of mode 0600 with `text` that exists in memory only, for libraries and programs
    that insist on a path to a secret.

    Gives its path as this process sees it, and its descriptor: a child that inherits it finds it
    under `/dev/fd/<descriptor>`.
    """
    descriptor = os.memfd_create("private")
    try:
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
        yield f"/proc/self/fd/{descriptor}", descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Kubeconfig:
    """One cluster of a kubeconfig and the user for it. Certificates and keys are PEM text."""

    server: str
    namespace: str
    """Of the context; "" when it names none."""
    certificate_authority: str
    client_certificate: str
    client_key: str
    token: str
    tls_server_name: str
    insecure: bool

    def __repr__(self) -> str:
        return f"Kubeconfig({self.server})"

    def text(self, namespace: str) -> str:
        """Return a kubeconfig with only this, for `helm`. Holds the credentials."""
        encode = lambda pem: base64.b64encode(pem.encode()).decode()  # noqa: E731
        cluster = {
            "server": self.server,
            "certificate-authority-data": encode(self.certificate_authority),
            "tls-server-name": self.tls_server_name,
            "insecure-skip-tls-verify": self.insecure,
        }
        user = {
            "client-certificate-data": encode(self.client_certificate),
            "client-key-data": encode(self.client_key),
            "token": self.token,
        }
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "it", "cluster": {key: value for key, value in cluster.items() if value}}],
                "users": [{"name": "it", "user": {key: value for key, value in user.items() if value}}],
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": namespace}}],
                "current-context": "it",
            }
        )


def parse(text: str, context: str = "", cluster: str = "", *, log_in: bool = True) -> Kubeconfig:
    """Read a kubeconfig, given as its text or as a path to it.

    `context` and `cluster` override the current context and its cluster. Without `log_in` no plugin
    is run. Raises `ProviderError` when it is no kubeconfig, when it refers to something that is
    missing, or when the login is not implemented.
    """
    path = Path(text).expanduser() if text and "\n" not in text and not text.lstrip().startswith("{") else None
    try:
        if path:
            text = path.read_text()
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe loaders)
    except (OSError, yaml.YAMLError) as error:
        # The text of a YAML error quotes the document, which holds keys.
        reason = error.strerror if isinstance(error, OSError) else "not YAML"
        raise ProviderError(f"the provider's kubeconfig cannot be read: {reason}") from None
    if not isinstance(document, dict):
        raise ProviderError("the provider's kubeconfig is neither a kubeconfig nor the path of one")

    chosen_name = context or document.get("current-context") or ""
    chosen = _entry(document, "context", chosen_name)
    server = _entry(document, "cluster", cluster or chosen.get("cluster", ""))
    user = _entry(document, "user", chosen.get("user", ""))
    for login in _REFUSED_LOGINS:
        if user.get(login):
            raise ProviderError(
                f"refused: the lab's stand-in for the kubernetes provider does not implement the login by {login!r} in the kubeconfig of context "
                f"{chosen_name!r}. Use a client certificate or a token, or install the official plugin"
            )
    if "server" not in server:
        raise ProviderError(f"the cluster of context {chosen_name!r} in the provider's kubeconfig has no server")
    if user.get("exec") and log_in:
        user = {**user, **_plugin_login(user["exec"], server)}
    # As client-go reads a text: relative to this process, also where the text was in a file.
    base = Path.cwd()
    return Kubeconfig(
        server=server["server"].rstrip("/"),
        namespace=chosen.get("namespace") or "",
        certificate_authority=_pem(server, "certificate-authority", base),
        client_certificate=_pem(user, "client-certificate", base),
        client_key=_pem(user, "client-key", base),
        token=user.get("token") or (_read(base / user["tokenFile"]).strip() if user.get("tokenFile") else ""),
        tls_server_name=server.get("tls-server-name") or "",
        insecure=bool(server.get("insecure-skip-tls-verify")),
    )


def _plugin_login(plugin: dict[str, Any], cluster: dict[str, Any]) -> dict[str, Any]:
    """Run an exec plugin of client-go, and return what it answers as a user's entry has it."""
    words = [plugin["command"], *(plugin.get("args") or [])]
    version = plugin["apiVersion"]
    spec = {"interactive": False, **({"cluster": cluster} if plugin.get("provideClusterInfo") else {})}
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    variables = {item["name"]: item["value"] for item in plugin.get("env") or []}
    environment = {**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    try:
        done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise ProviderError(f"the login plugin {words[0]} of the kubeconfig cannot be run: {error.strerror}") from None
    if done.returncode:
        raise ProviderError(f"the login plugin {words[0]} of the kubeconfig failed: {done.stderr.strip()}")
    answer = json.loads(done.stdout)
    if answer["apiVersion"] != version:
        raise ProviderError(f"the login plugin {words[0]} answers in {answer['apiVersion']}, and the kubeconfig requires {version}")
    status = answer["status"]
    encoded = {
        key: base64.b64encode(status[name].encode()).decode()
        for key, name in (("client-certificate-data", "clientCertificateData"), ("client-key-data", "clientKeyData"))
        if status.get(name)
    }
    return {**({"token": status["token"]} if status.get("token") else {}), **encoded}


def _entry(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in document.get(f"{kind}s") or []:
        if entry.get("name") == name:
            return entry.get(kind) or {}
    raise ProviderError(f"the provider's kubeconfig has no {kind} {name!r}; set the provider's `context` or correct the kubeconfig")


def _pem(entry: dict[str, Any], key: str, base: Path) -> str:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return _read(base / entry[key]) if entry.get(key) else ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ProviderError(f"the provider's kubeconfig refers to {path}, which cannot be read: {error.strerror}") from None
