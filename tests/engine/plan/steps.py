"""Changes of all shipped stacks, and what becomes of machines by each: the table of test_truth.py and of docs/plan.md."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A change of a stack file, made to what the step before it left. effects: what becomes of machines; others stay as they are."""

    name: str
    change: Callable[[Config], object]
    effects: dict[str, str]


def at(config: Config, path: str) -> Config:
    for key in filter(None, path.split(".")):
        config = config.setdefault(key, {})
    return config


def put(path: str, value: Any) -> Callable[[Config], None]:
    """Return a change that sets a value."""
    above, _, key = path.rpartition(".")
    return lambda config: at(config, above).update({key: copy.deepcopy(value)})


def drop(path: str) -> Callable[[Config], None]:
    """Return a change that removes a value."""
    above, _, key = path.rpartition(".")
    return lambda config: at(config, above).pop(key) and None


def rename(path: str, new: str) -> Callable[[Config], None]:
    """Return a change that renames a key."""
    above, _, key = path.rpartition(".")
    return lambda config: at(config, above).update({new: at(config, above).pop(key)})


def together(*changes: Callable[[Config], object]) -> Callable[[Config], None]:
    """Return several changes as one."""

    def change(config: Config) -> None:
        for each in changes:
            each(config)

    return change


def swap(config: Config) -> None:
    one, other = config["machines"]["billing-1"], config["machines"]["billing-9"]
    one["host"], other["host"] = other["host"], one["host"]


def addresses(config: Config) -> None:
    for name, address in {"billing-1": "10.11.0.81", "billing-9": "10.11.0.82"}.items():
        config["machines"][name]["address"] = address


def all_of(effect: str, *machines: str) -> dict[str, str]:
    return dict.fromkeys(machines, effect)


def to_invoices(config: Config) -> None:
    """Give a machine to a workload that is new."""
    billing = copy.deepcopy(config["workloads"]["billing"])
    service = {"invoices": {"ports": {"http": 80}}}
    account = {"name": "invoices"}
    config["workloads"]["invoices"] = {**billing, "labels": {"app": "invoices"}, "services": service, "serviceAccount": account}
    config["machines"]["billing-9"]["workload"] = "invoices"


CONTAINER = {"platform": "docker", "workload": "product", "network": "pods"}
FAR = {**CONTAINER, "network": "far"}
ORDERS = {
    "namespace": "shop",
    "labels": {"app": "orders"},
    "ports": {"http": 8081},
    "probe": {"http": {"port": 8081, "path": "/"}},
    "services": {"orders": {"ports": {"http": 80}}},
}
INSTANCE = {"platform": "gce", "workload": "product", "network": "pods", "zone": "europe-west1-b"}
ON_GOOGLE = {
    "project": "my-project",
    "region": "europe-west1",
    "vpcs": {"theirs": {"existing": "projects/my-project/global/networks/theirs"}},
    "subnets": {
        "machines": {
            "vpc": "theirs",
            "network": "pods",
            "cidr": "10.12.0.0/24",
            "existing": "projects/my-project/regions/europe-west1/subnetworks/machines",
        }
    },
}
SSH = {"platform": "ssh", "workload": "billing", "network": "pods", "host": "10.11.0.7", "acceptAnyHostKey": True}
MANY = tuple(f"product-{number}" for number in range(4, 9))

_LAB = [
    Step("nothing", lambda _: None, {}),
    Step("a machine", put("machines.product-2", CONTAINER), {"product-2": "joins"}),
    Step("labels", put("workloads.product.labels.tier", "front"), all_of("registers", "product-1", "product-2")),
    Step("a token", put("machines.product-1.rotation", 1), {"product-1": "rejoins"}),
    Step("an image", put("machines.product-2.image", "other:1"), {"product-2": "replaced"}),
    Step("a version", put("mesh.version", "1.31.2"), all_of("restarts", "product-1", "product-2")),
    Step("a package", put("mesh.package.sha256", "1" * 64), all_of("restarts", "product-1", "product-2")),
    Step("a port of a Service", put("workloads.product.services.product.ports.http", 81), {}),
    Step("another Service", put("workloads.product.services.goods", {"ports": {"http": 80}}), {}),
    Step("a probe", put("workloads.product.probe.period", 5), all_of("registers", "product-1", "product-2")),
    Step(
        "a header of the probe",
        put("workloads.product.probe.http.headers", {"X-Probe": "mesh"}),
        all_of("registers", "product-1", "product-2"),
    ),
    Step(
        "a port",
        together(put("workloads.product.ports.http", 8081), put("workloads.product.probe.http.port", 8081)),
        all_of("registers", "product-1", "product-2"),
    ),
    Step("a Service less", drop("workloads.product.services.goods"), {}),
    Step("failClosed", put("workloads.product.failClosed", True), all_of("restarts", "product-1", "product-2")),
    Step(
        "what proxies do not capture",
        together(
            put("workloads.product.capture", {"excludeInboundPorts": [9100]}),
            put("machines.product-1.capture", {"excludeOutboundCidrs": ["10.99.0.0/16"]}),
        ),
        all_of("restarts", "product-1", "product-2"),
    ),
    Step("firewall", put("machines.product-1.firewall", "manage"), {"product-1": "restarts"}),
    Step("confirmWithin", put("workloads.product.confirmWithin", 90), all_of("rejoins", "product-1", "product-2")),
    Step("connectWithin", put("machines.product-1.connectWithin", 60), {"product-1": "rejoins"}),
    Step("maxUnavailable", put("workloads.product.maxUnavailable", 2), {}),
    Step("replicas", put("workloads.product.pods.replicas", 3), {}),
    Step("the image of pods", put("workloads.product.pods.image", "echo:2"), {}),
    Step("labels of pods", put("workloads.product.pods.labels", {"version": "pods"}), {}),
    Step("a warning", put("verify.mode", "warn"), {}),
    Step("a workload that fails", put("workloads.product.verify", {"mode": "fail", "path": "/ready", "expectStatus": [204]}), {}),
    Step("a workload without verification", put("workloads.product.verify", {"mode": "none"}), {}),
    Step("a workload with a patient verification", put("workloads.product.verify", {"timeout": 9}), {}),
    Step(
        "the mesh's proxies",
        put("mesh.values.istiod.meshConfig.defaultConfig.concurrency", 2),
        all_of("restarts", "product-1", "product-2"),
    ),
    Step("the control plane alone", put("mesh.values.istiod.env.PILOT_X", "1"), {}),
    Step(
        "many at once",
        together(
            put("machines.product-3", CONTAINER),
            drop("machines.product-2"),
            put("workloads.product.labels.tier", "back"),
            put("mesh.version", "1.31.0"),
        ),
        {"product-1": "registers", "product-2": "leaves", "product-3": "joins"},
    ),
    Step(
        "five machines, a token and a replica",
        together(
            *(put(f"machines.{name}", CONTAINER) for name in MANY),
            put("machines.product-3.rotation", 1),
            put("workloads.product.pods.replicas", 1),
        ),
        {**all_of("joins", *MANY), "product-3": "rejoins"},
    ),
    Step("a probe of seven machines", put("workloads.product.probe.period", 2), all_of("registers", "product-1", "product-3", *MANY)),
    Step(
        "a workload that takes two of them",
        together(put("workloads.orders", ORDERS), *(put(f"machines.{name}.workload", "orders") for name in MANY[:2])),
        all_of("registers", *MANY[:2]),
    ),
    Step(
        "that workload less",
        together(drop("workloads.orders"), *(drop(f"machines.{name}") for name in MANY[:2])),
        all_of("leaves", *MANY[:2]),
    ),
    Step("no pods", drop("workloads.product.pods"), {}),
    Step(
        "the last machines",
        together(*(drop(f"machines.{name}") for name in ("product-1", "product-3", *MANY[2:]))),
        all_of("leaves", "product-1", "product-3", *MANY[2:]),
    ),
]

_LAB_MULTI_NETWORK = [
    Step("labels", put("workloads.product.labels.tier", "front"), all_of("registers", "product-1", "product-2", "product-3")),
    Step("a gateway more", put("networks.far.gateway.machines", 3), {"far-gateway-3": "joins"}),
    Step(
        "a version",
        put("mesh.version", "1.31.2"),
        all_of("restarts", "product-1", "product-2", "product-3", "far-gateway-1", "far-gateway-2", "far-gateway-3"),
    ),
    Step("another network", put("machines.product-2.network", "pods"), {"product-2": "replaced"}),
    Step("a new name of a container", rename("machines.product-2", "product-9"), {"product-2": "leaves", "product-9": "joins"}),
    Step("two gateways less", put("networks.far.gateway.machines", 1), all_of("leaves", "far-gateway-2", "far-gateway-3")),
    Step("the token of gateways", put("networks.far.gateway.rotation", 1), {"far-gateway-1": "rejoins"}),
    Step("no gateway", drop("networks.far.gateway"), {"far-gateway-1": "leaves"}),
    Step("a gateway", put("networks.far.gateway", {"machines": 1}), {"far-gateway-1": "joins"}),
    Step(
        "a workload with a machine",
        together(put("workloads.orders", ORDERS), put("machines.orders-1", {**FAR, "workload": "orders"})),
        {"orders-1": "joins"},
    ),
    Step("no such workload", together(drop("workloads.orders"), drop("machines.orders-1")), {"orders-1": "leaves"}),
    Step(
        "the network's last machines",
        together(drop("machines.product-3"), drop("networks.far.gateway")),
        all_of("leaves", "product-3", "far-gateway-1"),
    ),
]

_EXISTING = [
    Step("a machine", put("machines.billing-3", SSH), {"billing-3": "joins"}),
    Step("a machine less", drop("machines.billing-3"), {"billing-3": "leaves"}),
    Step("a new name", rename("machines.billing-2", "billing-9"), {"billing-9": "registers"}),
    Step("swapped hosts", swap, all_of("registers", "billing-1", "billing-9")),
    Step("other addresses of the same hosts", addresses, all_of("registers", "billing-1", "billing-9")),
    Step(
        "no such addresses",
        together(drop("machines.billing-1.address"), drop("machines.billing-9.address")),
        all_of("registers", "billing-1", "billing-9"),
    ),
    Step("another address", put("machines.billing-1.host", "10.11.0.77"), {"billing-1": "replaced"}),
    Step("another user", put("machines.billing-1.user", "root"), {"billing-1": "rejoins"}),
    Step("another port of SSH", put("machines.billing-1.port", 2222), {"billing-1": "rejoins"}),
    Step("a stack to take over from", put("machines.billing-1.takeOver", "mesh/other"), {"billing-1": "rejoins"}),
    Step("maxUnavailable", put("workloads.billing.maxUnavailable", 1), {}),
    Step(
        "the address of the gateway",
        together(put("cluster.gateway.address", "10.11.0.251"), put("cluster.gateway.service.loadBalancerIP", "10.11.0.251")),
        all_of("restarts", "billing-1", "billing-9"),
    ),
    Step("another port of the gateway", put("cluster.gateway.port", 443), all_of("restarts", "billing-1", "billing-9")),
    Step("a locality", put("machines.billing-1.locality", "north/north-1"), {"billing-1": "registers"}),
    Step("a locality of all", put("workloads.billing.locality", "north/north-2"), all_of("registers", "billing-1", "billing-9")),
    Step(
        "a machine on Google Cloud, in the cluster's own VPC",
        together(put("google", ON_GOOGLE), put("machines.billing-7", {**INSTANCE, "workload": "billing"})),
        {"billing-7": "joins"},
    ),
    Step("a VPC that its owners manage", put("google.vpcs.theirs.managed", False), {}),
    Step("that machine less", together(drop("google"), drop("machines.billing-7")), {"billing-7": "leaves"}),
    Step("callers of the gateway", put("cluster.gateway.service.loadBalancerSourceRanges", ["10.11.0.0/24", "10.12.0.0/24"]), {}),
    Step(
        "another service account",
        put("workloads.billing.serviceAccount", {"name": "clerk"}),
        all_of("registers", "billing-1", "billing-9"),
    ),
    Step("another workload", to_invoices, {"billing-9": "registers"}),
    Step("a new name of the only machine", rename("machines.billing-9", "invoices-1"), {"invoices-1": "registers"}),
    Step("an old version", put("mesh.version", "1.30.4"), all_of("restarts", "billing-1", "invoices-1")),
    Step("labels of a namespace", put("namespaces.billing.labels", {"team": "billing"}), {}),
    Step("a namespace of others", together(put("cluster.namespaces", ["billing"]), drop("namespaces.billing")), {}),
    Step("no verification", put("verify.mode", "none"), {}),
    Step("a forgotten machine", put("machines.invoices-1.forget", True), {"invoices-1": "forgotten"}),
    Step("its removal", together(drop("machines.invoices-1"), drop("workloads.invoices")), {"invoices-1": "leaves"}),
    Step("an annotation", put("workloads.billing.services.billing.annotations", {"owner": "us"}), {}),
    Step(
        "an application of others",
        together(
            put("workloads.billing.serviceAccount.create", False),
            put("workloads.billing.services", {"billing": {"existing": True}}),
        ),
        {},
    ),
    Step(
        "a name, a label and a machine",
        together(rename("machines.billing-1", "billing-5"), put("workloads.billing.labels.tier", "x"), put("machines.billing-6", SSH)),
        {"billing-5": "registers", "billing-6": "joins"},
    ),
]

_SINGLE_NETWORK = [
    Step("a machine type", put("machines.product-1.machineType", "e2-standard-2"), {"product-1": "restarts"}),
    Step("a startup script", put("machines.product-1.startupScript", "#!/bin/bash\ntrue\n"), {}),
    Step("a larger boot disk", put("machines.product-1.diskSize", 30), {}),
    Step("an image", put("machines.product-1.image", "other"), {"product-1": "replaced"}),
    Step("a type of disk", put("machines.product-1.diskType", "pd-ssd"), {"product-1": "replaced"}),
    Step("a machine", put("machines.product-9", INSTANCE), {"product-9": "joins"}),
    Step("a zone", put("machines.product-9.zone", "europe-west1-c"), {"product-9": "replaced"}),
    Step(
        "a machine type and labels",
        together(put("machines.product-9.machineType", "e2-standard-2"), put("workloads.product.labels.tier", "front")),
        all_of("registers", "product-1", "product-2", "product-9"),
    ),
    Step(
        "a port of the application",
        together(put("workloads.product.ports.http", 8080), put("workloads.product.probe.http.port", 8080)),
        all_of("registers", "product-1", "product-2", "product-9"),
    ),
    Step(
        "a machine type and a version",
        together(put("machines.product-9.machineType", "e2-medium"), put("mesh.version", "1.31.2")),
        all_of("restarts", "product-1", "product-2", "product-9"),
    ),
    Step("ports of other pods", put("cluster.podPorts", [9090]), {}),
    Step(
        "the way of SSH",
        put("google.ssh", {"via": "direct", "cidrs": ["10.99.0.0/24"]}),
        all_of("rejoins", "product-1", "product-2", "product-9"),
    ),
    Step("who comes by SSH", put("google.ssh.cidrs", ["10.98.0.0/24", "10.99.0.0/24"]), {}),
    Step("labels on Google Cloud", put("google.labels", {"team": "shop"}), {}),
    Step("larger nodes", put("cluster.nodes", {"minNodes": 3, "maxNodes": 5, "diskType": "pd-ssd"}), {}),
    Step("a machine less", drop("machines.product-9"), {"product-9": "leaves"}),
    Step("no protection", put("cluster.deletionProtection", False), {}),
]

_MULTI_NETWORK = [
    Step("a token", put("machines.product-1.rotation", 1), {"product-1": "rejoins"}),
    Step("a gateway more", put("networks.far.gateway.machines", 3), {"far-gateway-3": "joins"}),
    Step(
        "an image of gateways",
        put("networks.far.gateway.image", "other"),
        all_of("replaced", "far-gateway-1", "far-gateway-2", "far-gateway-3"),
    ),
    Step(
        "a machine type of gateways",
        put("networks.far.gateway.machineType", "e2-medium"),
        all_of("restarts", "far-gateway-1", "far-gateway-2", "far-gateway-3"),
    ),
    Step("a far machine", put("machines.product-2", {**INSTANCE, "network": "far"}), {"product-2": "joins"}),
    Step(
        "a name of the gateway",
        put("cluster.gateway.dnsName", "istio.mesh.internal"),
        all_of("restarts", "product-1", "product-2", "far-gateway-1", "far-gateway-2", "far-gateway-3"),
    ),
    Step(
        "a group for a gateway",
        put("networks.far.gateway.group", True),
        {**all_of("leaves", "far-gateway-1", "far-gateway-2", "far-gateway-3"), "far-gateway-machines": "joins"},
    ),
    Step("a token of that group", put("networks.far.gateway.rotation", 1), {"far-gateway-machines": "replaced"}),
    Step("a smaller group for a gateway", put("networks.far.gateway.machines", 1), {}),
    Step("a machine for a gateway", drop("networks.far.gateway.group"), {"far-gateway-machines": "leaves", "far-gateway-1": "joins"}),
    Step("no protection", put("cluster.deletionProtection", False), {}),
]

_FLEET = [
    Step("a startup script", put("machines.product-fleet.startupScript", "#!/bin/bash\ntrue\n"), {"product-fleet": "replaced"}),
    Step("a token", put("machines.product-fleet.rotation", 1), {"product-fleet": "replaced"}),
    Step("a machine type", put("machines.product-fleet.machineType", "e2-medium"), {"product-fleet": "replaced"}),
    Step("a type of disk", put("machines.product-fleet.diskType", "pd-ssd"), {"product-fleet": "replaced"}),
    Step("a machine beside the group", put("machines.product-1", INSTANCE), {"product-1": "joins"}),
    Step("labels", put("workloads.product.labels.tier", "front"), {"product-fleet": "replaced", "product-1": "registers"}),
    Step("a version", put("mesh.version", "1.31.2"), {"product-fleet": "replaced", "product-1": "restarts"}),
    Step("a port of a Service", put("workloads.product.services.product.ports.http", 8080), {}),
    Step(
        "what proxies do not capture",
        put("workloads.product.capture", {"excludeInboundPorts": [9100]}),
        {"product-fleet": "replaced", "product-1": "restarts"},
    ),
    Step("a larger group", put("machines.product-fleet.minReplicas", 3), {}),
    Step("no group", drop("machines.product-fleet"), {"product-fleet": "leaves"}),
    Step("no protection", put("cluster.deletionProtection", False), {}),
]

SCENARIOS: dict[str, list[Step]] = {
    "lab": _LAB,
    "lab-multi-network": _LAB_MULTI_NETWORK,
    "existing": _EXISTING,
    "single-network": _SINGLE_NETWORK,
    "multi-network": _MULTI_NETWORK,
    "fleet": _FLEET,
}
"""The changes of each stack, in their order: each is made to what the one before it left."""
FIRST, LAST = "the first update", "a destroy"
"""What is compared of every stack besides."""


def counted() -> dict[str, tuple[str, ...]]:
    """Return the changes that are compared, by stack."""
    return {stack: (FIRST, *(step.name for step in steps), LAST) for stack, steps in SCENARIOS.items()}
