"""Gives Pulumi's provider the credentials of the user who runs it: an exec plugin of kubeconfigs.

The provider's kubeconfig is in the state, so it holds no credential and no path. client-go runs
this script, which reads the user's entry of the kubeconfig as it is now. Format: ExecCredential,
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import scripting
from ..cluster_access import ClusterAccess, context_entries, kubectl, moved

API_VERSION = "client.authentication.k8s.io/v1"
INFO = "KUBERNETES_EXEC_INFO"
"""The variable by which client-go describes the cluster to a plugin."""


@dataclass(frozen=True)
class Payload:
    """A cluster.

    access: how it is reached.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})


def run(payload: Payload) -> None:
    """Print the credentials of the context's user.

    Raises scripting.Failed without any, and where another cluster answers: a `destroy` does not
    run the program, and would delete objects of the same names there.
    """
    access = moved(payload.access)
    with kubectl(payload.access):
        user = context_entries(access).user
    status = _asked(user["exec"], access) if user.get("exec") else _static(user, access)
    if not any(status.get(key) for key in ("token", "clientCertificateData")):
        raise scripting.Failed(
            f"{access.place} has neither a token, a client certificate nor a plugin for its user: "
            "Pulumi's provider cannot use another login"
        )
    print(json.dumps({"apiVersion": API_VERSION, "kind": "ExecCredential", "status": status}))


def _static(user: Mapping[str, Any], access: ClusterAccess) -> dict[str, str]:
    """Return the token and the certificate of a user. A token's file goes before a token."""
    status = {"token": user.get("token", "")}
    if user.get("tokenFile"):
        status["token"] = _file(user["tokenFile"], access).read_text().strip()
    for key, name in (("client-certificate", "Certificate"), ("client-key", "Key")):
        if user.get(f"{key}-data"):
            text = base64.b64decode(user[f"{key}-data"]).decode()
            status[f"client{name}Data"] = text
    return {key: value for key, value in status.items() if value}


def _asked(plugin: Mapping[str, Any], access: ClusterAccess) -> dict[str, Any]:
    """Run the user's own plugin as kubectl does, and return what it answers."""
    command = plugin["command"]
    if "/" in command:
        command = str(_file(command, access).absolute())
    environment = {item["name"]: item["value"] for item in plugin.get("env") or []}
    version = plugin.get("apiVersion") or API_VERSION
    info = json.loads(os.environ.get(INFO) or "{}")
    environment[INFO] = json.dumps({**info, "apiVersion": version, "kind": "ExecCredential"})
    words = [command, *(plugin.get("args") or [])]
    done = scripting.check(words, f"the login by {plugin['command']} failed", environment=environment)
    try:
        answer: dict[str, Any] = json.loads(done.text)["status"]
    except (ValueError, KeyError, TypeError):
        raise scripting.Failed(f"the answer of {plugin['command']} is no ExecCredential") from None
    return answer


def _file(name: str, access: ClusterAccess) -> Path:
    """Return a file that a kubeconfig names: its path is relative to the kubeconfig."""
    candidates = [Path(directory, name) for directory in _directories(access)]
    return next((path for path in candidates if path.exists()), candidates[0])


def _directories(access: ClusterAccess) -> Iterator[str]:
    paths = access.path or os.environ.get("KUBECONFIG") or "~/.kube/config"
    for path in [paths] if access.path else paths.split(os.pathsep):
        yield os.path.dirname(os.path.abspath(os.path.expanduser(path)))
