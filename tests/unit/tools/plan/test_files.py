"""What plans of the level FILES say of changes of stack files.

That it is true is tested under the engine (tests/engine/plan/test_truth.py).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from components.config import load
from tests.unit.tools.plan.changes import (
    Config,
    actions,
    both,
    config_of,
    described,
    machines,
    plan_of,
    workload,
)
from tools import costs
from tools.plan import cost, facts, words
from tools.plan.files import DescriptionError, _destroyed, compared
from tools.plan.mesh_model import OpeningKind, Path
from tools.plan.model import Action, Mark, Pause, Plan, Verdict
from tools.plan.untrusted import clean

CONTAINER = {"platform": "docker", "workload": "product", "network": "pods"}


def with_machines(count: int) -> Any:
    """Return a change that gives the lab so many machines."""

    def change(config: Config) -> None:
        config["machines"] = {
            f"product-{number}": dict(CONTAINER) for number in range(1, count + 1)
        }

    return change


def without_pods(config: Config) -> None:
    del config["workloads"]["product"]["pods"]


def new_label(config: Config) -> None:
    workloads = config["workloads"]
    next(iter(workloads.values()))["labels"]["tier"] = "front"


def sentences(plan: Plan) -> str:
    """Return the verdict and the sentences of a plan."""
    lines = [line.text for section in words.sections(plan) for line in section.lines]
    return "\n".join(each.render(clean) for each in (words.verdict(plan), *lines))


def test_nothing_changes_without_a_change() -> None:
    plan = plan_of("lab", lambda _: None)
    assert plan.verdict is Verdict.NOTHING
    assert not (
        plan.workloads or plan.services or plan.operations or plan.openings or plan.versions
    )


def test_agents_restart_in_waves_of_max_unavailable() -> None:
    plan = plan_of("lab", new_label, with_machines(9))
    change = workload(plan, "product")
    assert (change.restarts, change.at_once, change.waves) == (9, 2, 5)
    assert change.seconds == 5 * 25
    assert change.pause is Pause.NONE
    assert plan.verdict is Verdict.SAFE
    assert {each.action for each in change.machines} == {Action.REGISTERS}
    assert change.machines[0].reasons[0].after == "app=product,tier=front"


@pytest.mark.slow
def test_a_workload_whose_agents_all_restart_at_once_pauses_unless_pods_answer() -> None:
    def all_at_once(config: Config) -> None:
        config["workloads"]["product"]["maxUnavailable"] = "100%"
        with_machines(3)(config)

    with_pods = plan_of("lab", new_label, all_at_once)
    assert workload(with_pods, "product").pause is Pause.MACHINES
    assert with_pods.verdict is Verdict.SAFE
    alone = plan_of("lab", new_label, both(all_at_once, without_pods))
    assert workload(alone, "product").pause is Pause.ALL
    assert alone.verdict is Verdict.PAUSES


def test_machines_that_are_created_anew_wait_for_no_slot() -> None:
    def another_image(config: Config) -> None:
        for machine in config["machines"].values():
            machine["image"] = "other:1"

    plan = plan_of(
        "lab",
        another_image,
        both(with_machines(4), without_pods),
    )
    assert set(actions(plan).values()) == {"replaced"}
    assert workload(plan, "product").pause is Pause.ALL
    assert all(change.drained and change.deleted for change in machines(plan).values())


@pytest.mark.slow
def test_a_group_replaces_its_machines_without_a_pause() -> None:
    def another_script(config: Config) -> None:
        config["machines"]["product-fleet"]["startupScript"] = "#!/bin/bash\ntrue\n"

    plan = plan_of("fleet", another_script)
    change = machines(plan)["product-fleet"]
    assert (change.action, change.count) == (Action.REPLACED, 2)
    assert [reason.key for reason in change.reasons] == ["setup"]
    assert workload(plan, "product").pause is Pause.NONE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("capture", {"excludeInboundPorts": [9100]}, "its setting capture: what bypasses"),
        ("failClosed", True, "its setting failClosed (false → true)"),
    ],
)
def test_a_group_is_replaced_for_a_setting_of_its_workload(
    key: str, value: object, shown: str
) -> None:
    def change(config: Config) -> None:
        config["workloads"]["product"][key] = value

    plan = plan_of("fleet", change)
    assert actions(plan) == {"product-fleet": "replaced"}
    assert f"replaces all its machines, because of {shown}" in sentences(plan)


def test_every_change_of_a_startup_script_is_a_fact_of_its_group() -> None:
    def template(script: str) -> dict[str, Any]:
        return {"machineType": "e2-small", "metadata": {"startup-script": script}}

    one, other = (facts.of_group(template(script))[0] for script in ("A=1\nB=2\n", "A=1\nB=3\n"))
    assert one.restart != other.restart


def test_an_existing_machine_keeps_its_identity_through_names_and_hosts() -> None:
    def rename(config: Config) -> None:
        config["machines"]["billing-9"] = config["machines"].pop("billing-1")

    renamed = machines(plan_of("existing", rename))
    assert {name: (change.action, change.before) for name, change in renamed.items()} == {
        "billing-9": (Action.REGISTERS, "billing-1")
    }

    def swap(config: Config) -> None:
        one, other = config["machines"]["billing-1"], config["machines"]["billing-2"]
        one["host"], other["host"] = other["host"], one["host"]

    assert actions(plan_of("existing", swap)) == {
        "billing-1": "registers",
        "billing-2": "registers",
    }


@pytest.mark.slow
@pytest.mark.parametrize("swapped", [False, True])
def test_an_existing_machine_that_gets_another_address_is_where_ssh_reaches_it(
    swapped: bool,
) -> None:
    """No machine leaves, and none is new."""

    def change(config: Config) -> None:
        one, other = (config["machines"].pop(name) for name in ("billing-1", "billing-2"))
        config["machines"] |= {
            "billing-1": other if swapped else one,
            "billing-2": one if swapped else other,
        }
        one["address"], other["address"] = "10.11.0.81", "10.11.0.82"

    changes = machines(plan_of("existing", change))
    assert {name: (each.action, each.before, each.certain) for name, each in changes.items()} == {
        "billing-1": (Action.REGISTERS, "billing-2" if swapped else "", not swapped),
        "billing-2": (Action.REGISTERS, "billing-1" if swapped else "", not swapped),
    }
    assert "leave" not in sentences(plan_of("existing", change))


def test_a_new_name_of_the_only_machine_pauses_its_workload() -> None:
    def alone(config: Config) -> None:
        del config["machines"]["billing-2"]

    def rename(config: Config) -> None:
        config["machines"]["billing-9"] = config["machines"].pop("billing-1")

    plan = plan_of("existing", rename, start=alone)
    assert actions(plan) == {"billing-9": "registers"}
    assert plan.verdict is Verdict.PAUSES
    assert "It has no endpoint for a while." in sentences(plan)
    assert plan_of("existing", rename).verdict is Verdict.SAFE


def test_an_existing_machine_at_another_address_joins_before_the_former_one_leaves() -> None:
    plan = plan_of(
        "existing", lambda config: config["machines"]["billing-1"].update(host="10.11.0.77")
    )
    change = machines(plan)["billing-1"]
    assert (change.action, change.deleted, change.drained) == (Action.REPLACED, False, True)
    assert [(reason.before, reason.after) for reason in change.reasons] == [
        ("10.11.0.5", "10.11.0.77")
    ]
    assert plan.verdict is Verdict.SAFE


@pytest.mark.slow
def test_a_forgotten_machine_stays_until_it_is_removed_and_is_not_drained_then() -> None:
    def forget(config: Config) -> None:
        config["machines"]["billing-1"]["forget"] = True

    plan = plan_of("existing", forget)
    assert actions(plan) == {"billing-1": "forgotten"}
    assert plan.verdict is Verdict.SAFE
    removed = plan_of("existing", lambda config: config["machines"].pop("billing-1"), forget)
    change = machines(removed)["billing-1"]
    assert (change.action, change.drained, change.deleted) == (Action.LEAVES, False, False)


def test_a_machine_that_moves_is_told_of_in_both_workloads() -> None:
    def move(config: Config) -> None:
        billing = copy.deepcopy(config["workloads"]["billing"])
        config["workloads"]["other"] = {**billing, "labels": {"app": "other"}, "services": {}}
        config["machines"]["billing-1"]["workload"] = "other"

    plan = plan_of("existing", move)
    assert [
        (each.machine, each.action, each.other) for each in workload(plan, "billing").machines
    ] == [("billing-1", Action.MOVES, "billing/other")]
    assert [
        (each.machine, each.action, each.other) for each in workload(plan, "other").machines
    ] == [("billing-1", Action.REGISTERS, "billing/billing")]
    assert plan.verdict is Verdict.SAFE


@pytest.mark.slow
def test_a_machine_in_another_network_is_reached_by_another_path() -> None:
    plan = plan_of(
        "lab-multi-network", lambda config: config["machines"]["product-2"].update(network="pods")
    )
    assert [(each.source, each.workload, each.before, each.after) for each in plan.paths] == [
        ("far", "product", Path.DIRECT, Path.GATEWAY),
        ("pods", "product", Path.GATEWAY, Path.DIRECT),
    ]
    (service,) = plan.services
    assert service.before and service.after
    assert [(each.network, each.machines) for each in service.before.endpoints] == [
        ("far", 2),
        ("pods", 1),
    ]
    assert [(each.network, each.machines) for each in service.after.endpoints] == [
        ("far", 1),
        ("pods", 2),
    ]


def test_a_network_without_its_gateway_is_closed() -> None:
    plan = plan_of("lab-multi-network", lambda config: config["networks"]["far"].pop("gateway"))
    assert [(each.source, each.target, each.after) for each in plan.paths] == [
        ("pods", "far", Path.NONE)
    ]
    assert plan.verdict is Verdict.LEAVES


def test_plaintext_that_is_let_in_is_an_opening() -> None:
    plan = plan_of("existing", lambda config: config["cluster"].update(namespaces=["billing"]))
    assert [(each.kind, each.mark) for each in plan.openings] == [
        (OpeningKind.MUTUAL_TLS, Mark.REMOVED)
    ]
    (service,) = plan.services
    assert service.after and "outside" in service.after.callers


def test_a_port_that_goes_is_no_safe_change() -> None:
    plan = plan_of(
        "lab",
        lambda config: config["workloads"]["product"]["services"]["product"]["ports"].update(
            http=81
        ),
    )
    assert plan.verdict is Verdict.LEAVES
    assert not plan.workloads


def in_their_namespace(config: Config) -> None:
    config["cluster"]["namespaces"] = ["billing"]


def use_theirs(config: Config) -> None:
    """Join machines to an application that exists."""
    in_their_namespace(config)
    config["workloads"]["billing"]["serviceAccount"] = {"name": "billing", "create": False}
    config["workloads"]["billing"]["services"] = {"billing": {"existing": True}}


def test_a_service_that_is_given_to_others_stays_as_it_is() -> None:
    plan = plan_of("existing", use_theirs, in_their_namespace)
    (service,) = plan.services
    assert service.before and service.after
    assert (service.before.existing, service.after.existing) == (False, True)
    assert service.after.endpoints == service.before.endpoints
    assert plan.verdict is Verdict.SAFE
    assert not plan.workloads, "the identity is the same one"
    objects = {"billing-account", "billing-service-billing"}
    assert not objects & {each.name for each in plan.operations}, "Pulumi lets go of them"


def test_a_service_of_others_that_is_no_longer_used_is_not_gone() -> None:
    plan = plan_of("existing", lambda c: c["workloads"]["billing"]["services"].clear(), use_theirs)
    assert [(each.mark, each.after) for each in plan.services] == [(Mark.REMOVED, None)]
    assert plan.verdict is Verdict.SAFE


@pytest.mark.slow
def test_another_account_that_exists_has_machines_register_anew() -> None:
    def other(config: Config) -> None:
        config["workloads"]["billing"]["serviceAccount"] = {"name": "theirs", "create": False}

    plan = plan_of("existing", other, in_their_namespace)
    assert set(actions(plan).values()) == {"registers"}
    assert [(each.op, each.name) for each in plan.operations if each.destructive] == [
        ("delete", "billing-account")
    ], "nothing uses the one that the program created"


def test_a_service_that_becomes_headless_is_replaced() -> None:
    def headless(config: Config) -> None:
        config["workloads"]["product"]["services"]["product"]["headless"] = True

    plan = plan_of("lab", headless)
    (service,) = plan.services
    assert service.after and service.after.headless
    assert plan.verdict is Verdict.PAUSES
    assert ("replace", "product-service-product") in {
        (each.op, each.name) for each in plan.operations
    }


def test_a_service_that_is_headless_from_the_start_is_safe() -> None:
    def peers(config: Config) -> None:
        of_product = config["workloads"]["product"]["services"]
        of_product["peers"] = {"ports": {"http": 8080}, "headless": True}

    plan = plan_of("lab", peers)
    assert [(each.name, each.mark) for each in plan.services] == [("peers", Mark.ADDED)]
    assert plan.verdict is Verdict.SAFE


def test_annotations_and_protocols_of_a_service_are_changes_of_it() -> None:
    def stated(config: Config) -> None:
        service = config["workloads"]["product"]["services"]["product"]
        service["annotations"] = {"networking.istio.io/exportTo": "."}
        service["appProtocols"] = {"http": "http2"}

    plan = plan_of("lab", stated)
    (service,) = plan.services
    assert service.after
    (annotation,) = service.after.annotations
    assert (annotation.key, annotation.value) == ("networking.istio.io/exportTo", ".")
    assert [port.protocol for port in service.after.ports] == ["http2"]
    assert plan.verdict is Verdict.SAFE


def test_labels_of_a_namespace_touch_no_machine() -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plan = plan_of("existing", lambda c: c.update(namespaces={"billing": {"labels": labels}}))
    assert [(each.op, each.name) for each in plan.operations] == [("update", "namespace-billing")]
    assert not plan.workloads


def test_a_mesh_of_another_trust_domain_has_other_identities() -> None:
    def of_company(config: Config) -> None:
        config["mesh"]["values"] = {"istiod": {"meshConfig": {"trustDomain": "company.example"}}}

    plan = plan_of("lab", of_company)
    assert {each.identity for each in plan.identities if each.mark is Mark.ADDED} == {
        "spiffe://company.example/ns/shop/sa/product"
    }
    assert "trust-domain" in {reason.key for reason in machines(plan)["product-1"].reasons}


def test_a_renamed_workload_is_refused_under_its_machines() -> None:
    def rename(config: Config) -> None:
        config["workloads"]["bills"] = config["workloads"].pop("billing")
        for machine in config["machines"].values():
            machine["workload"] = "bills"

    plan = plan_of("existing", rename)
    assert plan.verdict is Verdict.REFUSED
    assert plan.error and plan.error.kind == "refused"
    # The update changes nothing, so the cause is all that there is to say.
    assert not (plan.workloads or plan.operations or plan.picture)
    assert "at once" not in sentences(plan)


def test_a_stack_file_with_problems_is_refused_with_all_of_them() -> None:
    def mistakes(config: Config) -> None:
        config["mesh"]["versoin"] = "1"
        config["workloads"]["product"]["ports"]["http"] = 99999

    plan = plan_of("lab", mistakes)
    assert (plan.verdict, plan.picture) == (Verdict.REFUSED, None)
    assert plan.error and plan.error.kind == "settings"
    assert "did you mean 'version'" in "\n".join(plan.error.lines)


def test_another_cluster_takes_all_machines_and_pauses_all_workloads() -> None:
    plan = plan_of("lab", lambda config: config["cluster"].update(image="kindest/node:v1.36.0"))
    assert plan.verdict is Verdict.PAUSES
    assert [reason.key for reason in machines(plan)["product-1"].reasons] == ["cluster"]
    replaced = {each.name for each in plan.operations if each.destructive}
    assert replaced >= {"cluster-kind", "product-pods", "product-service-product"}
    assert "the cluster is recreated" in sentences(plan)


@pytest.mark.slow
def test_a_cluster_that_is_protected_cannot_be_replaced_or_destroyed() -> None:
    replaced = plan_of("single-network", lambda config: config["cluster"].pop("zone"))
    destroyed = _destroyed(
        "single-network", described("single-network", config_of("single-network"))
    )
    for plan in (replaced, destroyed):
        assert "Google Cloud refuses to delete cluster-gke" in sentences(plan)
    assert "Machines and workloads are gone by then." in sentences(destroyed)
    open_ = plan_of(
        "single-network", lambda config: config["cluster"].update(nodes={"minNodes": 2})
    )
    assert "refuses" not in sentences(open_)


@pytest.mark.slow
def test_another_project_replaces_everything_in_the_cloud_and_in_the_cluster() -> None:
    plan = plan_of("single-network", lambda config: config["google"].update(project="another"))
    assert actions(plan) == {"product-1": "replaced", "product-2": "replaced"}
    assert plan.verdict is Verdict.PAUSES
    in_cloud = {each.op for each in plan.operations if each.type.startswith("gcp:")}
    assert in_cloud == {"replace"}


def test_a_context_is_no_other_cluster() -> None:
    plan = plan_of("existing", lambda config: config["cluster"].update(context="staging"))
    assert [each.name for each in plan.operations] == ["cluster-check"]


def test_values_of_a_chart_are_named_and_nothing_is_promised_about_them() -> None:
    def change(config: Config) -> None:
        config["mesh"]["values"]["istiod"]["meshConfig"]["enableAutoMtls"] = False

    plan = plan_of("lab", change)
    changed = sentences(plan)
    assert "Release istiod gets other values" in changed and "enableAutoMtls" in changed
    assert "is not computed" in changed
    assert plan.verification and plan.verification.runs == ("product",)
    version = sentences(plan_of("lab", lambda config: config["mesh"].update(version="1.31.1")))
    assert "not known here" not in version and "gets other values" not in version


@pytest.mark.slow
def test_an_unknown_price_is_no_lower_cost() -> None:
    plan = plan_of(
        "multi-network",
        lambda config: config["machines"]["product-1"].update(machineType="n2-highmem-128"),
    )
    assert plan.cost is not None and plan.cost.unpriced == ("n2-highmem-128",)
    assert "without n2-highmem-128, whose prices are unknown" in sentences(plan)


def test_a_machine_type_stops_a_machine_and_costs_something_else() -> None:
    plan = plan_of(
        "multi-network",
        lambda config: config["machines"]["product-1"].update(machineType="e2-standard-2"),
    )
    assert machines(plan)["product-1"].action is Action.RESTARTS
    assert workload(plan, "product").pause is Pause.MACHINES
    assert plan.cost and round(plan.cost.after - plan.cost.before, 2) == 49 - 12


@pytest.mark.slow
def test_what_the_cloud_changes_in_place_replaces_nothing() -> None:
    def larger(config: Config) -> None:
        config["machines"]["product-1"]["diskSize"] = 200

    plan = plan_of("single-network", larger)
    assert {each.op for each in plan.operations} == {"update"}
    assert not actions(plan)


@pytest.mark.slow
def test_a_machine_in_another_subnet_is_another_one() -> None:
    def move(config: Config) -> None:
        config["networks"]["far"] = {"gateway": {"machines": 1, "zones": ["europe-west1-b"]}}
        subnet = {"vpc": "far", "network": "far", "cidr": "10.40.0.0/24"}
        config["google"]["subnets"]["far"] = subnet
        config["machines"]["product-2"]["network"] = "far"

    assert machines(plan_of("single-network", move))["product-2"].action is Action.REPLACED


@pytest.mark.slow
def test_another_startup_script_is_named_although_nothing_restarts() -> None:
    def script(config: Config) -> None:
        config["machines"]["product-1"]["startupScript"] = "#!/bin/bash\ntrue\n"

    plan = plan_of("single-network", script)
    assert not actions(plan)
    assert "Machine product-1 gets another startup script" in sentences(plan)


def test_costs_are_those_of_the_page() -> None:
    checked = 0
    for name, settings in costs.stacks():
        listed = described(name, config_of(name)).resources
        for at_most in (False, True):
            bill = tuple(map(_positive, costs.bill(settings, at_most=at_most)))
            assert cost.bill(listed, at_most=at_most) == bill, name
        checked += 1
    assert checked


def _billed(
    name: str, change: Callable[[Config], object], *, at_most: bool = False
) -> Counter[str]:
    """Return what a changed stack has, counted from its resources and from its settings alike."""
    config = config_of(name)
    change(config)
    counts, _ = cost.bill(described(name, config).resources, at_most=at_most)
    assert counts == _positive(costs.bill(load(config), at_most=at_most)[0])
    return counts


@pytest.mark.slow
def test_a_regional_cluster_starts_with_as_many_nodes_in_each_zone() -> None:
    def four(config: Config) -> None:
        config["cluster"]["nodes"] = {"minNodes": 4, "maxNodes": 8}

    assert _billed("fleet", four)["e2-standard-2"] == 6
    assert _billed("fleet", four, at_most=True)["e2-standard-2"] == 8


@pytest.mark.slow
def test_a_gateway_that_is_a_group_costs_what_single_machines_cost() -> None:
    def group(config: Config) -> None:
        config["networks"]["far"]["gateway"]["group"] = True

    for at_most in (False, True):
        single = _billed("multi-network", lambda _: None, at_most=at_most)
        assert _billed("multi-network", group, at_most=at_most) == single


@pytest.mark.slow
def test_pods_of_autopilot_are_named_as_what_no_sum_has() -> None:
    plan = plan_of(
        "single-network", lambda config: config["cluster"].update(autopilot=True, zone=None)
    )
    assert plan.cost is not None and plan.cost.unpriced == ("pods-of-autopilot",)
    assert costs.monthly(load(with_autopilot())) > 0, "a live run counts without them"
    assert costs.unpriced(load(with_autopilot())) == ["pods-of-autopilot"], "and says so"


def with_autopilot() -> Config:
    config = config_of("single-network")
    config["cluster"] |= {"autopilot": True, "zone": None}
    return config


@pytest.mark.slow
def test_a_larger_upper_bound_costs_nothing_yet_and_is_shown() -> None:
    plan = plan_of(
        "fleet", lambda config: config["machines"]["product-fleet"].update(maxReplicas=20)
    )
    assert plan.cost and plan.cost.before == plan.cost.after
    # Of ten machines more: e2-small, their disks, and their part of Cloud NAT.
    assert round(plan.cost.most_after - plan.cost.most_before, 2) == 10 * (12 + 20 * 0.1 + 1)
    assert "At most US$" in sentences(plan)


def _positive(counts: Any) -> Any:
    return type(counts)({item: count for item, count in counts.items() if count})


def test_a_program_that_cannot_run_at_the_base_is_no_plan_without_changes() -> None:
    now = described("lab", config_of("lab"))
    plan = compared("lab", DescriptionError("ModuleNotFoundError: no module named x"), now)
    assert plan.verdict is Verdict.PROGRAM
    assert "no module named x" in plan.degraded[0].reason
    assert plan.picture


def test_no_operation_is_left_out_of_the_summary_of_what_is_destroyed() -> None:
    plan = plan_of("lab", lambda config: config["machines"].pop("product-1"))
    assert {each.name for each in plan.operations if each.destructive} == {"product-1-container"}


@pytest.mark.slow
def test_an_address_that_the_update_assigns_is_not_none() -> None:
    plan = plan_of("multi-network", lambda config: config["cluster"].pop("gateway"))
    [reason] = machines(plan)["product-1"].reasons
    assert (reason.key, reason.before, reason.after) == (
        "gateway",
        "gateway.mesh.internal",
        "assigned by the update",
    )


def test_a_machine_that_is_created_anew_names_the_property() -> None:
    plan = plan_of(
        "single-network",
        lambda config: config["machines"]["product-1"].update(zone="europe-west1-c"),
    )
    assert [reason.key for reason in machines(plan)["product-1"].reasons] == ["zone"]


def test_a_load_balancer_that_is_internal_no_more_is_shown_although_its_sources_stay() -> None:
    plan = plan_of(
        "existing", lambda config: config["cluster"]["gateway"]["service"].pop("annotations")
    )
    [line] = [line for line in sentences(plan).splitlines() if "Load balancer" in line]
    assert line.index("at an internal address") < line.index("at an address that may be public")


@pytest.mark.slow
def test_text_that_nests_too_deeply_for_json_is_compared_as_text() -> None:
    def change(config: Config) -> None:
        config["mesh"]["values"]["istiod"]["meshConfig"]["accessLogFile"] = "[" * 100_000

    assert "accessLogFile" in sentences(plan_of("lab", change))
