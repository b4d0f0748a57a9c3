"""Kubeconfigs: one context of a user's file, and the kubeconfig of a GKE cluster."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from ..config.problems import suggestion

# Keys that name a file, and the key that holds its content.
_FILES = {
    "certificate-authority": "certificate-authority-data",
    "client-certificate": "client-certificate-data",
    "client-key": "client-key-data",
}


def extract_context(text: str, context: str, read: Callable[[str], bytes]) -> str:
    """Return a kubeconfig with one context of another, and file contents in place of paths.

    text: the kubeconfig. context: the context's name. read: returns a file's content.
    Raises ValueError, in one sentence, for a text that is no kubeconfig or has no such context.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError("is no kubeconfig: it is no YAML") from None
    if not isinstance(document, Mapping) or not isinstance(document.get("contexts"), list):
        raise ValueError("is no kubeconfig: it has no list of contexts")
    contexts = _by_name(document, "contexts", "context")
    if context not in contexts:
        raise ValueError(f"has no context {context!r}{suggestion(context, contexts)}")
    names = contexts[context]
    cluster = _by_name(document, "clusters", "cluster").get(names.get("cluster"))
    user = _by_name(document, "users", "user").get(names.get("user"))
    if cluster is None or user is None:
        raise ValueError(f"names a cluster or a user in its context {context!r} that it does not have")
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "contexts": [{"name": context, "context": names}],
            "clusters": [{"name": names["cluster"], "cluster": _with_content(cluster, read)}],
            "users": [{"name": names["user"], "user": _with_content(user, read)}],
        }
    )


def _by_name(document: Mapping[str, Any], section: str, key: str) -> dict[str, Any]:
    return {item["name"]: item.get(key) or {} for item in document.get(section) or []}


def _with_content(entry: Mapping[str, Any], read: Callable[[str], bytes]) -> dict[str, Any]:
    content = {_FILES[key]: base64.b64encode(read(path)).decode() for key, path in entry.items() if key in _FILES}
    return {**{key: value for key, value in entry.items() if key not in _FILES}, **content}


def gke_kubeconfig(name: str, endpoint: str) -> str:
    """Return the kubeconfig of a GKE cluster by its DNS endpoint.

    The endpoint's certificate is publicly trusted. The kubeconfig holds no credential: the plugin
    uses those of the user who runs Pulumi.
    """
    user = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "gke-gcloud-auth-plugin",
        "args": ["--use_application_default_credentials"],
        "installHint": "install the gcloud component gke-gcloud-auth-plugin on the machine that runs Pulumi",
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": f"https://{endpoint}"}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "users": [{"name": name, "user": {"exec": user}}],
        }
    )
