"""The pods that call: started beside the joins, one pair for a service account, gone after the update."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from components.local import scripting, update_id
from components.local.cluster_access import ClusterAccess, kubectl
from components.names import CALLERS_LABEL, STACK_LABEL, UPDATE_LABEL
from components.verification.scripts import calling_pods, remove_calling_pods
from components.verification.scripts.calling_pods import Pair
from tests.support.fake_programs import Programs
from tests.support.waiting import wait_until

ACCESS = ClusterAccess(context="theirs")


def manifest(which: str) -> dict[str, Any]:
    return {"kind": "Job", "metadata": {"labels": {"which": which}}, "spec": {}}


PAIR = Pair("verify-product", "shop", manifest("inside"), manifest("outside"), "mesh.dev")


@pytest.fixture
def update(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for the update."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    known_as = update_id.Process(process.pid, 1, "pulumi", update_id._process(process.pid).started)  # type: ignore[union-attr]
    monkeypatch.setattr(calling_pods.update_id, "ancestors", lambda: [known_as])
    programs.add("kubectl")
    yield process
    process.kill()
    process.wait()
    for remover in calling_pods._REMOVERS:
        remover.kill()
        remover.wait()


def created(programs: Programs) -> list[dict[str, Any]]:
    return [json.loads(call.stdin) for call in programs.calls("kubectl") if "create" in call.words]


def deletions(programs: Programs) -> list[str]:
    """Those of Jobs of this update."""
    return [line for line in programs.lines("kubectl") if " delete " in line and "!=" not in line]


def test_a_pair_is_started_and_removed_when_the_update_has_ended(programs: Programs, update: subprocess.Popen[bytes]) -> None:
    """Also where it ended without a verification, or was killed."""
    assert calling_pods.run(calling_pods.Payload(ACCESS, PAIR)).pair == "verify-product"
    jobs = created(programs)
    label = f"verify-product-{update_id.update_id()[:8]}"
    assert [job["metadata"]["name"] for job in jobs] == [f"{label}-outside", f"{label}-inside"]
    of_update = {CALLERS_LABEL: label, STACK_LABEL: "mesh.dev", UPDATE_LABEL: update_id.update_id()[:8]}
    assert [job["metadata"]["labels"] for job in jobs] == [{"which": which, **of_update} for which in ("outside", "inside")]
    assert deletions(programs) == [], "the update still runs"
    update.kill()
    update.wait()
    wait_until(lambda: deletions(programs) != [], description="the Jobs are deleted")
    [deleted] = deletions(programs)
    assert "--context theirs" in deleted
    assert f"delete job --selector istio-vm-mesh/callers={label} --namespace shop" in deleted


def test_what_an_earlier_update_of_the_stack_has_left_goes_first(programs: Programs, update: subprocess.Popen[bytes]) -> None:
    """A container that ends with its update ends the process, too, that removes the Jobs. They would stay for two hours."""
    calling_pods.run(calling_pods.Payload(ACCESS, PAIR))
    [line] = [line for line in programs.lines("kubectl") if " delete " in line]
    selector = f"{STACK_LABEL}=mesh.dev,{UPDATE_LABEL},{UPDATE_LABEL}!={update_id.update_id()[:8]}"
    assert f"delete job --selector {selector} --wait=false --namespace shop" in line
    lines = programs.lines("kubectl")
    assert lines.index(line) < min(number for number, each in enumerate(lines) if " create " in each), "a quota may have room for one pair"


def test_a_pair_of_one_verification_goes_with_the_update_where_that_is_killed(programs: Programs, update: subprocess.Popen[bytes]) -> None:
    """As in an update that verifies again what failed in the last one."""
    with kubectl(ACCESS) as program:
        jobs = calling_pods.Jobs(program, ACCESS, "shop")
        killed = jobs.use("no-other", PAIR)
        killed.__enter__()
        assert len(created(programs)) == 2 and deletions(programs) == []
        update.kill()
        update.wait()
        wait_until(lambda: deletions(programs) != [], description="the Jobs are deleted")


LIMITS = {"items": [{"spec": {"limits": [{"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}]}}]}


@pytest.mark.parametrize(
    ("status", "answer", "requests"),
    [(0, json.dumps(LIMITS), {"cpu": "250m"}), (0, '{"items": []}', {"cpu": "10m"}), (1, "", {"cpu": "10m"})],
)
def test_pods_have_resources_that_limit_ranges_admit(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, status: int, answer: str, requests: dict[str, str]
) -> None:
    """The Job of a pod that is refused has none, and waits for five minutes. LimitRanges that may not be read are no problem."""
    resources = {"requests": {"cpu": "10m"}, "limits": {"cpu": "500m"}}
    job = {**manifest("inside"), "spec": {"template": {"spec": {"containers": [{"resources": resources}]}}}}
    programs.add("kubectl", ("get limitranges --namespace shop", status, answer, "Forbidden"))
    monkeypatch.setattr(calling_pods.update_id, "ancestors", list)
    with kubectl(ACCESS) as program:
        jobs = calling_pods.Jobs(program, ACCESS, "shop")
        jobs.start(Pair("verify-product", "shop", job, job, "mesh.dev"))
    for each in created(programs):
        [container] = each["spec"]["template"]["spec"]["containers"]
        assert container["resources"] == {"requests": requests, "limits": {"cpu": "500m"}}
    assert jobs.problem == ""


def test_without_a_process_of_the_update_none_is_waited_for(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.add("kubectl")
    monkeypatch.setattr(calling_pods.update_id, "ancestors", list)
    before = len(calling_pods._REMOVERS)
    calling_pods.run(calling_pods.Payload(ACCESS, PAIR))
    assert (len(created(programs)), len(calling_pods._REMOVERS)) == (2, before)


def test_a_pair_of_this_update_is_not_started_twice(programs: Programs, update: subprocess.Popen[bytes]) -> None:
    programs.add("kubectl", (" create ", 1, "", "Error from server (AlreadyExists): jobs already exists\n"))
    calling_pods.run(calling_pods.Payload(ACCESS, PAIR))
    assert len(created(programs)) == 2


def test_a_pair_that_is_refused_is_left_to_the_verification(programs: Programs, update: subprocess.Popen[bytes]) -> None:
    programs.add("kubectl", (" create ", 1, "", "Error from server (Forbidden): jobs.batch is forbidden\n"))
    calling_pods.run(calling_pods.Payload(ACCESS, PAIR))
    assert len(created(programs)) == 1


def test_another_cluster_is_not_swallowed(programs: Programs, update: subprocess.Popen[bytes]) -> None:
    programs.add("kubectl", ("get namespace kube-system", 0, "another", ""))
    with pytest.raises(scripting.Failed, match="leads to another cluster"):
        calling_pods.run(calling_pods.Payload(ClusterAccess(context="theirs", uid="ours"), PAIR))
    assert created(programs) == []


def test_a_process_with_the_updates_old_id_is_not_waited_for(programs: Programs, update: subprocess.Popen[bytes]) -> None:
    another = update_id.Process(update.pid, 1, "pulumi", "long ago")
    payload = remove_calling_pods.Payload(ACCESS, "shop", "a=b", another)
    done = programs.run("verification/scripts/remove_calling_pods.py", asdict(payload))
    assert done.returncode == 0
    assert len(deletions(programs)) == 1
