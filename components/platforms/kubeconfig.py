"""The kubeconfig of a GKE cluster."""

from __future__ import annotations

import json


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
