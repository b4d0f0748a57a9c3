"""Every `run` step of the workflows does its work, in a clone, with a forge that answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import fake_forge, workflows
from tests.support.fake_forge import FORK_ID, TOKEN, Forge
from tests.support.workflows import Computer, Job, Origin
from tests.unit.tools.plan.forge.conftest import EVENTS
from tools.plan.forge.marker import parse

pytestmark = pytest.mark.slow

MACHINE = "    product-1: {platform: docker, workload: product, network: pods}\n"
BRANCH = "$(touch${IFS}injected)`touch${IFS}injected`"
SECRETS = {
    "KUBECONFIG": "canary-kubeconfig",
    "PULUMI_CONFIG_PASSPHRASE": "canary-passphrase",
    "PULUMI_ACCESS_TOKEN": "canary-access",
}
VARS = {
    "PLAN_STACKS": '["lab"]',
    "PULUMI_BACKEND_URL": "gs://state",
    "GOOGLE_WORKLOAD_IDENTITY_PROVIDER": "projects/1/locations/global/workloadIdentityPools/p/providers/g",
    "GOOGLE_SERVICE_ACCOUNT": "plan@p.iam.gserviceaccount.com",
}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    directory = tmp_path_factory.mktemp("origin") / "infra"
    return workflows.create_origin(
        directory, "lab", MACHINE, MACHINE + MACHINE.replace("-1", "-2"), BRANCH
    )


@pytest.fixture
def computer(tmp_path: Path, origin: Origin, forge: Forge) -> Computer:
    forge.world.head = forge.world.run_head = origin.head
    return Computer(tmp_path, origin, forge)


def event(name: str, origin: Origin) -> dict[str, Any]:
    """Return an event with the commits of the test's repository."""
    text = (EVENTS / f"{name}.json").read_text()
    commits = {
        "a" * 40: origin.head,
        "c" * 40: origin.base,
        "more-machines": json.dumps(BRANCH)[1:-1],
    }
    for old, new in commits.items():
        text = text.replace(old, new)
    value: dict[str, Any] = json.loads(text)
    return value


def pull_request(computer: Computer, workflow: str, job: str, **more: Any) -> Job:
    payload = event("github_pull_request", computer.origin)
    payload["pull_request"]["head"]["repo"]["full_name"] = fake_forge.REPOSITORY
    return Job(computer, workflow, job, ("pull_request", payload), sha=computer.origin.head, **more)


def commenting(
    computer: Computer, name: str = "github_workflow_run", action: str = "completed", **run: object
) -> Job:
    payload = {**event(name, computer.origin), "action": action}
    payload["workflow_run"].update(run)
    return Job(
        computer, "comment.yaml", "comment", ("workflow_run", payload), sha=computer.origin.base
    )


def output(computer: Computer) -> str:
    return "\n".join(step.output for step in computer.steps)


def markers(forge: Forge) -> list[tuple[str, str, bool]]:
    return [
        (entry.stack, entry.level, entry.old) for entry in map(parse, forge.world.bodies()) if entry
    ]


def test_a_pull_request_is_planned_and_commented(computer: Computer, forge: Forge) -> None:
    assert pull_request(computer, "plan.yaml", "files").run(), output(computer)
    assert set(forge.world.archives) == {"plan-files"}
    assert commenting(computer).run(), output(computer)
    assert markers(forge) == [("lab", "files", False)]
    [body] = forge.world.bodies()
    assert "product-2" in body
    # The next commit marks it as old as soon as its run begins.
    forge.world.head = "b" * 40
    assert commenting(computer, action="requested", head_sha="b" * 40, conclusion=None).run(), (
        output(computer)
    )
    assert markers(forge) == [("lab", "files", True)]


def test_a_forks_pull_request_is_planned_without_rights_and_commented_as_data(
    computer: Computer, forge: Forge
) -> None:
    forge.world.source = FORK_ID
    job = pull_request(computer, "plan.yaml", "files")
    assert job.run(), output(computer)
    assert forge.world.log == []
    assert commenting(computer, "github_workflow_run_fork").run(), output(computer)
    assert markers(forge) == [("lab", "files", False)]
    assert "The code of a fork computed this plan" in forge.world.bodies()[0]
    # No part of a run was the fork's commit.
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=computer.workspace,
        capture_output=True,
        text=True,
        check=True,
    )
    assert head.stdout.strip() == computer.origin.base
    assert not list(computer.directory.rglob("injected"))


def test_a_program_that_cannot_run_is_commented_with_its_cause(
    computer: Computer, forge: Forge, tmp_path: Path
) -> None:
    broken = shutil.copytree(computer.origin.path, tmp_path / "broken", symlinks=True)
    git = [*workflows.GIT, "-C", str(broken)]
    subprocess.run([*git, "switch", "--quiet", BRANCH], check=True)
    (broken / "stacks" / "Pulumi.lab.yaml").write_text(
        "config:\n  istio-vm-mesh:mesh: {id: 7, no: such}\n"
    )
    subprocess.run([*git, "commit", "--quiet", "--all", "--message=broken"], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    computer.origin = Origin(broken, computer.origin.base, head)
    forge.world.head = head
    assert not pull_request(computer, "plan.yaml", "files").run()
    assert commenting(computer, conclusion="failure").run(), output(computer)
    assert markers(forge) == [("lab", "files", False)]
    assert "istio-vm-mesh:mesh" in forge.world.bodies()[0] or "mesh" in forge.world.bodies()[0]


def test_a_run_that_left_nothing_is_commented(computer: Computer, forge: Forge) -> None:
    assert commenting(computer, conclusion="failure").run(), output(computer)
    assert markers(forge) == [("*", "", False)]


@pytest.mark.parametrize("conclusion", ["cancelled", "skipped", "action_required"])
def test_runs_without_a_result_are_not_commented(computer: Computer, conclusion: str) -> None:
    assert not commenting(computer, conclusion=conclusion).is_started()


def test_a_comment_job_without_the_right_says_which_one(computer: Computer, forge: Forge) -> None:
    job = commenting(computer)
    job.definition = {**job.definition, "permissions": {"contents": "read", "actions": "read"}}
    assert not job.run()
    assert "pull-requests: " in output(computer)


def test_the_state_of_a_forks_pull_request_is_not_planned(computer: Computer) -> None:
    job = pull_request(computer, "plan-state.yaml", "state", vars=VARS)
    assert job.is_started() and job.stacks() == ["lab"]
    assert not pull_request(computer, "plan-state.yaml", "state").is_started()
    payload: Any = job.event[1]
    payload["pull_request"]["head"]["repo"]["full_name"] = "stranger/infra"
    assert not job.is_started()


def test_a_preview_that_fails_is_commented_and_nothing_secret_is_printed(
    computer: Computer, forge: Forge
) -> None:
    job = pull_request(
        computer, "plan-state.yaml", "state", vars=VARS, secrets=SECRETS, matrix={"stack": "lab"}
    )
    job.run()
    assert set(forge.world.archives) == {"plan-state-lab"}, output(computer)
    assert "preview" in computer.log("pulumi")
    assert commenting(computer, conclusion="failure").run(), output(computer)
    [(stack, _, old)] = markers(forge)
    assert (stack, old) == ("lab", False)
    shown = (
        output(computer) + forge.world.bodies()[0] + computer.log("pulumi") + computer.log("curl")
    )
    assert not any(secret in shown for secret in [*SECRETS.values(), TOKEN])
    environment = (computer.home / "pulumi.env").read_text()
    assert "KUBECONFIG=" in environment and "PULUMI_CONFIG_PASSPHRASE_FILE=" in environment
    assert "canary-kubeconfig" not in environment and "canary-passphrase" not in environment
    assert environment.count("canary-access") == 1  # for `pulumi login` alone
    assert "PULUMI_HOME=" not in environment
    calls = len(computer.log("pulumi").splitlines())
    assert environment.count(f"PULUMI_CREDENTIALS_PATH={computer.temporary}/pulumi\n") == calls
    assert (computer.temporary / "kubeconfig").read_text().strip() == "canary-kubeconfig"
    assert (computer.temporary / "passphrase").stat().st_mode & 0o777 == 0o600


def preview(*steps: Mapping[str, object]) -> str:
    return json.dumps(
        {"config": {}, "steps": list(steps), "diagnostics": [], "changeSummary": {}}, indent=1
    )


def created(name: str) -> dict[str, object]:
    urn = f"urn:pulumi:lab::istio-vm-mesh::kubernetes:core/v1:ConfigMap::{name}"
    state = {
        "urn": urn,
        "type": "kubernetes:core/v1:ConfigMap",
        "custom": True,
        "inputs": {"data": {"key": "value"}},
    }
    return {"op": "create", "urn": urn, "newState": state}


def merged(computer: Computer) -> Job:
    computer.forge.world.merged = computer.origin.head
    payload = event("github_push", computer.origin)
    return Job(
        computer,
        "update.yaml",
        "update",
        ("push", payload),
        sha=computer.origin.head,
        vars=VARS,
        secrets=SECRETS,
        matrix={"stack": "lab"},
    )


def reviewed(computer: Computer, *steps: Mapping[str, object]) -> None:
    """Have the state planned in the pull request."""
    (computer.home / "preview.json").write_text(preview(*steps))
    job = pull_request(
        computer, "plan-state.yaml", "state", vars=VARS, secrets=SECRETS, matrix={"stack": "lab"}
    )
    assert job.run(), output(computer)


def test_a_merge_updates_what_was_reviewed(computer: Computer) -> None:
    reviewed(computer, created("one"), created("two"))
    (computer.home / "preview.json").write_text(preview(created("two")))
    assert merged(computer).run(), output(computer)
    assert "pulumi up --yes --non-interactive --skip-preview --stack lab" in computer.log("pulumi")


def test_a_merge_stops_at_an_operation_that_was_not_reviewed(computer: Computer) -> None:
    reviewed(computer, created("one"))
    (computer.home / "preview.json").write_text(preview(created("one"), created("another")))
    assert not merged(computer).run()
    assert "pulumi up" not in computer.log("pulumi")
    assert "another" in computer.steps[-1].output


@pytest.mark.parametrize("why", ["no run", "of a fork", "pushed directly", "failed"])
def test_a_merge_stops_without_a_plan_that_was_reviewed(
    computer: Computer, forge: Forge, why: str
) -> None:
    reviewed(computer, created("one"))
    job = merged(computer)
    if why == "no run":
        forge.world.archives.clear()
    elif why == "of a fork":
        forge.world.run_source = FORK_ID
    elif why == "pushed directly":
        forge.world.merged = ""
    else:
        (computer.home / "preview.json").unlink()
    assert not job.run()
    assert "pulumi up" not in computer.log("pulumi")


def test_drift_is_compared_daily(computer: Computer, forge: Forge) -> None:
    payload = event("github_schedule", computer.origin)
    job = Job(
        computer,
        "drift.yaml",
        "drift",
        ("schedule", payload),
        sha=computer.origin.base,
        vars=VARS,
        secrets=SECRETS,
        matrix={"stack": "lab"},
    )
    (computer.home / "preview.json").write_text(preview(created("one")))
    job.run()
    assert [issue["title"] for issue in forge.world.issues] == ["Drift of stack lab"], output(
        computer
    )
