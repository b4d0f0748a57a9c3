"""The kubeconfig of a GKE cluster."""

from __future__ import annotations

import json


def gke_kubeconfig(name: str, endpoint: str) -> str:
    """Return the kubeconfig of a GKE cluster by its DNS endpoint.

    The endpoint's certificate is publicly trusted. The kubeconfig holds no credential: the plugin
    uses those of the user who runs Pulumi. It is short, because each command of the cluster has it
    in the state.
    """
    user = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "gke-gcloud-auth-plugin",
        "args": ["--use_application_default_credentials"],
        "installHint": "run `gcloud components install gke-gcloud-auth-plugin`",
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": "gke", "cluster": {"server": f"https://{endpoint}"}}],
            "contexts": [{"name": name, "context": {"cluster": "gke", "user": "gke"}}],
            "users": [{"name": "gke", "user": {"exec": user}}],
        },
        separators=(",", ":"),
    )
