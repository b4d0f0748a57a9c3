"""A mesh and a workload that tests of one part need."""

from __future__ import annotations

from components.config.mesh import MeshSettings
from components.config.workload import HttpProbe, Pods, Probe, Service, WorkloadSettings
from components.istio import charts

MESH = MeshSettings(id="lab", version="1.31.0")
FACTS = charts.facts(MESH, "pods")
PRODUCT = WorkloadSettings(
    name="product",
    namespace="shop",
    labels={"app": "product", "version": "v1"},
    ports={"http": 8080, "tcp-db": 5432},
    probe=Probe(http=HttpProbe(port=8080, path="/healthz")),
    services={"product": Service(name="product", ports={"http": 80})},
    pods=Pods(image="echo"),
)
