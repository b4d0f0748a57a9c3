"""Read the configuration of a mesh that exists."""

from __future__ import annotations

import json

import yaml

from ..config.mesh import ChartValues, MeshSettings
from ..names import TRUST_DOMAIN


def adopt_mesh(mesh: MeshSettings, network: str, mesh_config: str, injector_values: str) -> MeshSettings:
    """A mesh that exists, as machines must be configured for it: `mesh` with what the cluster says.

    `mesh_config` is the text under `mesh` in the ConfigMap `istio`, `injector_values` that under `values` in `istio-sidecar-injector`; both are
    what istioctl reads. `network` is the pods', as the stack calls it. Raises ValueError for a mesh that machines cannot join this way.
    """
    config, values = yaml.safe_load(mesh_config) or {}, json.loads(injector_values).get("global", {})
    if config.get("trustDomain", TRUST_DOMAIN) not in ("", TRUST_DOMAIN):
        raise ValueError(f"the mesh's trust domain is {config['trustDomain']!r}; only {TRUST_DOMAIN} is supported")
    actual = values.get("network", "")
    if actual != network:
        difference = (
            f"is called {actual!r}: give it this name in the stack's networks"
            if actual
            else "has no name: set global.network in istiod's values"
        )
        raise ValueError(f"the network of the mesh's pods {difference} (the stack calls it {network!r})")
    default = config.get("defaultConfig", {})
    adopted = {
        "id": default.get("meshId", ""),
        "cluster_id": values.get("multiCluster", {}).get("clusterName") or mesh.cluster_id,
        "values": ChartValues(
            istiod={"meshConfig": {"defaultConfig": default}, "global": {"imagePullSecrets": values.get("imagePullSecrets") or []}}
        ),
    }
    return mesh.model_copy(update=adopted)
