"""Plans for the tests of what reads them."""

from __future__ import annotations

from dataclasses import replace

from tools.plan.mesh_model import (
    CostPart,
    Endpoints,
    Fact,
    Host,
    MachinePicture,
    MeshPicture,
    NetworkPath,
    NetworkPicture,
    Opening,
    OpeningKind,
    Path,
    Port,
    ServicePicture,
    Versions,
    WorkloadPicture,
)
from tools.plan.model import (
    Action,
    BrokenRule,
    CostChange,
    Degraded,
    IdentityChange,
    Level,
    LiveFinding,
    LiveKind,
    MachineChange,
    Mark,
    OpeningChange,
    Operation,
    PathChange,
    Pause,
    Plan,
    PlanError,
    PodsChange,
    ProgramChange,
    Reason,
    ServiceChange,
    Verdict,
    VerificationPlan,
    VersionsChange,
    WorkloadChange,
)


def machine(name: str, network: str = "far", **more: object) -> MachinePicture:
    """Return a machine of Compute Engine."""
    machine = MachinePicture(
        name=name,
        network=network,
        address=f"10.40.0.{len(name)}",
        host=Host.INSTANCE,
        identity=f"{name}-id",
        restart=(Fact(key="version", value="1.31.0"), Fact(key="scripts", value="0f1e")),
        register=(Fact(key="labels", value="app=product"),),
    )
    return replace(machine, **more)  # type: ignore[arg-type]


HTTP = Port(name="http", port=80, target=8080)

SERVICE = ServicePicture(
    name="product",
    namespace="shop",
    workload="product",
    ports=(HTTP,),
    endpoints=(Endpoints(network="far", machines=3), Endpoints(network="pods", pods=2)),
    callers=("far", "pods"),
)

PRODUCT = WorkloadPicture(
    name="product",
    namespace="shop",
    identity="spiffe://cluster.local/ns/shop/sa/product",
    replicas=2,
    pods="aa11",
    max_unavailable="25%",
    at_once=1,
    machines=(machine("product-1"), machine("product-2"), machine("product-3")),
    services=(SERVICE,),
)

GATEWAY = WorkloadPicture(
    name="far-gateway",
    namespace="istio-system",
    identity="spiffe://cluster.local/ns/istio-system/sa/far-gateway",
    role="router",
    max_unavailable="1",
    at_once=1,
    machines=(machine("far-gateway-1"), machine("far-gateway-2")),
)

MESH = MeshPicture(
    stack="multi-network",
    protected=True,
    networks=(
        NetworkPicture(name="far", gateways=2, open=True),
        NetworkPicture(name="pods", pods=True, open=True),
    ),
    workloads=(GATEWAY, PRODUCT),
    paths=(
        NetworkPath(source="far", target="pods", path=Path.GATEWAY),
        NetworkPath(source="pods", target="far", path=Path.GATEWAY),
    ),
    openings=(
        Opening(
            kind=OpeningKind.FIREWALL,
            name="far-product-ssh",
            to="product",
            sources=("35.235.240.0/20",),
            ports=("tcp:22",),
        ),
        Opening(kind=OpeningKind.MUTUAL_TLS, name="istio-system", mode="STRICT"),
    ),
    versions=Versions(control_plane="1.31.0", machines="1.31.0", pods="1.31.0"),
    cost=(CostPart(item="e2-small", count=5, usd=61.2, most=122.4),),
)

AFTER = replace(
    MESH,
    workloads=(
        GATEWAY,
        replace(
            PRODUCT,
            replicas=3,
            machines=(machine("product-1"), machine("product-4"), machine("product-5", "pods")),
        ),
    ),
)

NOTHING = Plan(
    stack="lab",
    level=Level.FILES,
    verdict=Verdict.NOTHING,
    base="0" * 40,
    head="1" * 40,
    picture=MESH,
    former=MESH,
)
"""A plan without a change."""

EVERYTHING = Plan(
    stack="multi-network",
    level=Level.STATE,
    verdict=Verdict.LEAVES,
    base="89abcdef" * 5,
    head="01234567" * 5,
    degraded=(Degraded(level=Level.LIVE, reason="kubectl is not on PATH: install it"),),
    broken=(
        BrokenRule(rule="drain-before-leave", subject="product-3", facts=("forget",)),
        BrokenRule(rule="no-public-address", subject="nat", excepted="a test of one day"),
    ),
    workloads=(
        WorkloadChange(
            name="product",
            namespace="shop",
            mark=Mark.CHANGED,
            machines=(
                MachineChange(
                    machine="product-1",
                    network="far",
                    action=Action.REGISTERS,
                    reasons=(
                        Reason(key="labels", before="app=product", after="app=product,version=2"),
                    ),
                ),
                MachineChange(
                    machine="product-2", network="far", action=Action.LEAVES, deleted=True
                ),
                MachineChange(
                    machine="product-3", network="far", action=Action.FORGOTTEN, drained=False
                ),
                MachineChange(machine="product-4", network="far", action=Action.JOINS),
                MachineChange(
                    machine="product-5",
                    network="pods",
                    action=Action.REPLACED,
                    deleted=True,
                    reasons=(Reason(key="network", before="far", after="pods"),),
                ),
                MachineChange(
                    machine="product-fleet",
                    network="pods",
                    action=Action.REPLACED,
                    count=2,
                    deleted=True,
                    certain=False,
                    reasons=(Reason(key="startup-script"),),
                ),
            ),
            restarts=1,
            at_once=1,
            waves=1,
            seconds=40,
            pause=Pause.MACHINES,
            pods=PodsChange(before=2, after=3, replaced=True),
            settings=(Reason(key="max-unavailable", before="25%", after="50%"),),
        ),
    ),
    services=(
        ServiceChange(
            name="product",
            namespace="shop",
            mark=Mark.CHANGED,
            before=SERVICE,
            after=replace(
                SERVICE,
                ports=(HTTP, Port(name="grpc", port=90, target=9090)),
                endpoints=(
                    Endpoints(network="far", machines=2),
                    Endpoints(network="pods", pods=3, machines=3),
                ),
                callers=("far", "outside", "pods"),
            ),
        ),
        ServiceChange(
            name="orders",
            namespace="shop",
            mark=Mark.REMOVED,
            before=replace(SERVICE, name="orders"),
        ),
    ),
    identities=(
        IdentityChange(
            identity="spiffe://cluster.local/ns/shop/sa/orders",
            mark=Mark.REMOVED,
            before=("shop/orders",),
        ),
        IdentityChange(
            identity="spiffe://cluster.local/ns/shop/sa/shared",
            mark=Mark.ADDED,
            after=("shop/invoices", "shop/product"),
        ),
    ),
    paths=(PathChange(source="pods", target="far", before=Path.GATEWAY, after=Path.DIRECT),),
    openings=(
        OpeningChange(
            kind=OpeningKind.FIREWALL,
            name="far-product",
            mark=Mark.ADDED,
            after=Opening(
                kind=OpeningKind.FIREWALL,
                name="far-product",
                to="product",
                sources=("0.0.0.0/0",),
                ports=("tcp:8080",),
                world=True,
            ),
        ),
        OpeningChange(
            kind=OpeningKind.MUTUAL_TLS,
            name="shop",
            mark=Mark.CHANGED,
            before=Opening(kind=OpeningKind.MUTUAL_TLS, name="shop", mode="STRICT"),
            after=Opening(kind=OpeningKind.MUTUAL_TLS, name="shop", mode="PERMISSIVE"),
        ),
    ),
    versions=VersionsChange(
        before=Versions(control_plane="1.30.2", machines="1.30.2", pods="1.30.2"),
        after=Versions(control_plane="1.31.0", machines="1.31.0", pods="1.31.0"),
        skew=1,
    ),
    cost=CostChange(before=301.5, after=352.25, most_before=301.5, most_after=700.75),
    verification=VerificationPlan(before="fail", after="warn", runs=("product",)),
    program=(
        ProgramChange(
            what="machine-files", name="components/machines/scripts/redirect.sh", mark=Mark.CHANGED
        ),
        ProgramChange(
            what="default",
            name="workloads.*.maxUnavailable",
            mark=Mark.CHANGED,
            before="25%",
            after="30%",
        ),
    ),
    operations=(
        Operation(
            op="create", type="command:local:Command", name="product-4-join", parent="product-4"
        ),
        Operation(
            op="update",
            type="kubernetes:core/v1:Service",
            name="product-service-product",
            parent="product",
            keys=("spec.ports",),
            diff="spec.ports[1]: (none) -> {name: grpc, port: 90}",
        ),
        Operation(
            op="replace",
            type="gcp:compute/instance:Instance",
            name="product-5-instance",
            parent="product-5",
            destructive=True,
            keys=("networkInterfaces",),
            why=("networkInterfaces",),
            diff="networkInterfaces[0].subnetwork: far -> machines",
        ),
        Operation(
            op="delete",
            type="gcp:compute/instance:Instance",
            name="product-2-instance",
            parent="product-2",
            destructive=True,
        ),
    ),
    live=(
        LiveFinding(kind=LiveKind.UNHEALTHY, subject="product-1", text="the probe fails"),
        LiveFinding(
            kind=LiveKind.CERTIFICATE, subject="product-3", text="its certificate ends in two hours"
        ),
        LiveFinding(
            kind=LiveKind.DRIFT, subject="product-service-product", text="a port was added by hand"
        ),
    ),
    picture=AFTER,
    former=MESH,
)
"""A plan with every kind of record."""

REFUSED = Plan(
    stack="lab",
    level=Level.FILES,
    verdict=Verdict.REFUSED,
    base="0" * 40,
    head="1" * 40,
    error=PlanError(
        kind="settings", lines=("workloads.product.ports.http: expected a port from 1 to 65535",)
    ),
    former=MESH,
)
"""A plan of a stack file that the program refuses."""

HOSTILE_TEXT = (
    "</details>@everyone\n```\n<img src=x onerror=alert(1)>$(touch /tmp/x) [a](javascript:b)|`"
)
HOSTILE = replace(
    EVERYTHING,
    stack=HOSTILE_TEXT,
    error=PlanError(kind="preview", lines=(HOSTILE_TEXT,)),
    workloads=(replace(EVERYTHING.workloads[0], name=HOSTILE_TEXT),),
    operations=(replace(EVERYTHING.operations[1], name=HOSTILE_TEXT, diff=HOSTILE_TEXT),),
    live=(LiveFinding(kind=LiveKind.DRIFT, subject=HOSTILE_TEXT, text=HOSTILE_TEXT),),
)
"""A plan whose texts were written to break what shows them."""
