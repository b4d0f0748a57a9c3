"""Every script of GitLab's pipeline does its work, in a clone, with a forge that answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.fake_forge import FORK_ID, NEWER, TOKEN, Fault, Forge
from tests.support.workflows import Computer, gitlab, run_gitlab
from tests.unit.tools.plan.forge.conftest import EVENTS
from tests.unit.tools.plan.forge.test_github_workflows import (
    BRANCH,
    computer,
    created,
    markers,
    origin,
    output,
    preview,
)

__all__ = ["computer", "origin"]
pytestmark = pytest.mark.slow

STACK = {
    "STACK": "lab",
    "PULUMI_BACKEND_URL": "gs://state",
    "PULUMI_CONFIG_PASSPHRASE_FILE": "/run/passphrase",
}
GOOGLE = {
    "GOOGLE_WORKLOAD_IDENTITY_PROVIDER": "projects/1/locations/global/workloadIdentityPools/p/providers/g",
    "GOOGLE_SERVICE_ACCOUNT": "plan@p.iam.gserviceaccount.com",
    "GOOGLE_ID_TOKEN": "canary-id-token",
}


def merge_request(computer: Computer) -> dict[str, str]:
    """Return the variables of a merge request's pipeline, which has no token."""
    return {
        "CI_PIPELINE_SOURCE": "merge_request_event",
        "CI_MERGE_REQUEST_IID": "7",
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": computer.origin.base,
        "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": BRANCH,
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        "CI_COMMIT_SHA": computer.origin.head,
    }


def commented(computer: Computer, event: str | None = None) -> bool:
    """Run the job that posts, started by a webhook with an event, or by a schedule."""
    variables = computer.forge.environment("gitlab")
    if event:
        variables["TRIGGER_PAYLOAD"] = str(EVENTS / f"{event}.json")
    return run_gitlab(computer, "plan:comment", computer.origin.base, variables)


def planned(computer: Computer) -> bool:
    return run_gitlab(computer, "plan:files", computer.origin.head, merge_request(computer))


@pytest.mark.parametrize("event", ["gitlab_pipeline", "gitlab_merge_request", None])
def test_a_merge_request_is_planned_and_commented(
    computer: Computer, forge: Forge, event: str | None
) -> None:
    assert planned(computer), output(computer)
    assert forge.world.log == []
    assert commented(computer, event), output(computer)
    assert markers(forge) == [("lab", "files", False)]
    assert "product-2" in forge.world.bodies()[0]
    forge.world.head = forge.world.run_head = NEWER
    forge.world.pipeline = "running"
    assert commented(computer, event), output(computer)
    assert markers(forge) == [("lab", "files", True)]
    assert not list(computer.directory.rglob("injected"))


def test_a_forks_pipeline_is_commented_as_data(computer: Computer, forge: Forge) -> None:
    forge.world.source = FORK_ID
    assert planned(computer), output(computer)
    assert commented(computer), output(computer)
    assert "The code of a fork computed this plan" in forge.world.bodies()[0]


def test_the_event_of_another_project_is_refused(
    computer: Computer, forge: Forge, tmp_path: Path
) -> None:
    variables = {
        **forge.environment("gitlab"),
        "CI_PROJECT_ID": "16",
        "TRIGGER_PAYLOAD": str(EVENTS / "gitlab_pipeline.json"),
    }
    assert not run_gitlab(computer, "plan:comment", computer.origin.base, variables)
    assert "another project" in output(computer)


def test_a_token_that_may_only_read_is_named(computer: Computer, forge: Forge) -> None:
    assert planned(computer)
    forge.world.faults.append(Fault("POST", "/notes$", 403, '{"error": "insufficient_scope"}'))
    assert not commented(computer)
    assert "scope `api`" in output(computer) and TOKEN not in output(computer)


def stated(computer: Computer, *steps: dict[str, object]) -> bool:
    (computer.home / "preview.json").write_text(preview(*steps))
    return run_gitlab(
        computer, "plan:state", computer.origin.head, {**merge_request(computer), **STACK, **GOOGLE}
    )


def test_google_takes_the_jobs_identity_from_a_file_alone(computer: Computer) -> None:
    assert stated(computer, created("one")), output(computer)
    credentials = Path(f"{computer.workspace}.tmp", "google", "credentials.json")
    assert credentials.stat().st_mode & 0o777 == 0o600
    document = json.loads(credentials.read_text())
    assert (
        document["audience"]
        == f"//iam.googleapis.com/{GOOGLE['GOOGLE_WORKLOAD_IDENTITY_PROVIDER']}"
    )
    token = Path(document["credential_source"]["file"])
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("canary-id-token", 0o600)
    assert "canary-id-token" not in output(computer)
    assert gitlab()["plan:state"]["id_tokens"]["GOOGLE_ID_TOKEN"]["aud"].endswith(
        "/$GOOGLE_WORKLOAD_IDENTITY_PROVIDER"
    )


def updated(computer: Computer) -> bool:
    forge = computer.forge
    forge.world.state, forge.world.merged = "merged", computer.origin.head
    variables = {
        **forge.environment("gitlab"), **STACK, **GOOGLE,
        "CI_COMMIT_SHA": computer.origin.head, "CI_COMMIT_BEFORE_SHA": computer.origin.base,
    }  # fmt: skip
    return run_gitlab(computer, "update", computer.origin.head, variables)


def test_a_merge_updates_what_was_reviewed(computer: Computer) -> None:
    assert stated(computer, created("one"), created("two")), output(computer)
    (computer.home / "preview.json").write_text(preview(created("two")))
    assert updated(computer), output(computer)
    assert "pulumi up --yes --non-interactive --skip-preview --stack lab" in computer.log("pulumi")


@pytest.mark.parametrize("why", ["new operation", "no plan", "of a fork", "pushed directly"])
def test_a_merge_stops_where_something_was_not_reviewed(
    computer: Computer, forge: Forge, why: str
) -> None:
    assert stated(computer, created("one")), output(computer)
    if why == "new operation":
        (computer.home / "preview.json").write_text(preview(created("one"), created("another")))
    elif why == "no plan":
        forge.world.archives.clear()
    elif why == "of a fork":
        forge.world.source = FORK_ID
    assert not (updated(computer) if why != "pushed directly" else pushed(computer))
    assert "pulumi up" not in computer.log("pulumi")


def pushed(computer: Computer) -> bool:
    variables = {
        **computer.forge.environment("gitlab"),
        **STACK,
        "CI_COMMIT_SHA": computer.origin.head,
        "CI_COMMIT_BEFORE_SHA": "",
    }
    return run_gitlab(computer, "update", computer.origin.head, variables)


def test_drift_is_compared_by_a_schedule(computer: Computer, forge: Forge) -> None:
    (computer.home / "preview.json").write_text(preview(created("one")))
    variables = {**forge.environment("gitlab"), **STACK}
    run_gitlab(computer, "drift", computer.origin.base, variables)
    assert [issue["title"] for issue in forge.world.issues] == ["Drift of stack lab"], output(
        computer
    )
