"""Stacks of the lab with one network that more than one scenario starts from or goes to."""

from __future__ import annotations

from tests.support.lab import Config

PACKAGE = "http://host.docker.internal:18731/{version}/./istio-sidecar.deb"
"""The package from a place that is called otherwise."""
TEN_MACHINES = tuple(f"{workload}-{number}" for workload in ("product", "billing") for number in range(1, 6))


def other_label_probe_and_package(config: Config) -> None:
    """One more label, another probe, and the same package from another URL."""
    config["mesh"]["package"]["url"] = PACKAGE
    config["workloads"]["product"]["labels"]["tier"] = "x"
    config["workloads"]["product"]["probe"] = {"http": {"port": 8080, "path": "/?probe"}, "period": 3}


def ten_machines(config: Config) -> None:
    """Two workloads on five machines each."""
    other_label_probe_and_package(config)
    product = config["workloads"]["product"]
    config["workloads"]["billing"] = {**product, "labels": {"app": "billing"}, "services": {"billing": {"ports": {"http": 80}}}}
    del config["workloads"]["billing"]["pods"]
    machine = config["machines"].pop("product-1")
    for name in TEN_MACHINES:
        config["machines"][name] = {**machine, "workload": name.partition("-")[0]}
