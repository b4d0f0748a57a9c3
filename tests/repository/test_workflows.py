"""The workflows of this repository are safe by what is written in them, and say so to linters."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import workflows
from tests.support.control_plane import program
from tests.support.workflows import WORKFLOWS, load
from tools import ROOT
from tools.lab.offline import versions

FILES = sorted(WORKFLOWS.glob("*"))
USES = {
    "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1": "v7.0.1",
    "actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97": "v7.0.0",
    "actions/cache@27d5ce7f107fe9357f9df03efb73ab90386fccae": "v5.0.5",
    "actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f": "v7.0.0",
    "google-github-actions/auth@7c6bc770dae815cd3e89ee6cdf493a5fab2cc093": "v3.0.0",
}
"""Each action that may be used, by the commit of a release: `git rev-parse v7.0.1^{commit}` there."""

PERMISSIONS = {
    ("plan.yaml", "files"): {"contents": "read"},
    ("plan-state.yaml", "state"): {"contents": "read", "id-token": "write"},
    ("comment.yaml", "comment"): {"contents": "read", "actions": "read", "pull-requests": "write"},
    ("test.yaml", "quick"): {"contents": "read"},
    ("test.yaml", "lab"): {"contents": "read"},
    ("update.yaml", "update"): {"contents": "read", "actions": "read", "pull-requests": "read", "id-token": "write"},
    ("drift.yaml", "drift"): {"contents": "read", "id-token": "write", "issues": "write"},
}
EVENTS = {
    "plan.yaml": {"pull_request"},
    "plan-state.yaml": {"pull_request"},
    "comment.yaml": {"workflow_run"},
    "test.yaml": {"pull_request", "push"},
    "update.yaml": {"push"},
    "drift.yaml": {"schedule", "workflow_dispatch"},
}


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file in FILES:
        for name, job in load(file)["jobs"].items():
            yield file.name, name, job


def steps(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for file, _, job in jobs():
        for step in job["steps"]:
            if kind in step:
                yield file, step


def test_actionlint_finds_nothing() -> None:
    command: list[str | Path] = [program("actionlint"), "-no-color", "-shellcheck", "shellcheck", "-pyflakes", "", *FILES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_actions_are_those_of_the_list_at_the_commits_of_releases() -> None:
    for file in FILES:
        lines = re.findall(r"uses: (\S+) # (\S+)$", file.read_text(), re.MULTILINE)
        assert len(lines) == file.read_text().count("uses:")
        for action, version in lines:
            assert USES[action] == version


def test_no_expression_stands_in_a_script() -> None:
    assert [step["run"] for _, step in steps("run") if "${{" in step["run"]] == []


def test_no_checkout_leaves_a_token_in_the_clone() -> None:
    checkouts = [step for _, step in steps("uses") if step["uses"].startswith("actions/checkout@")]
    assert len(checkouts) == len(list(jobs()))
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_permissions_are_these_and_no_others() -> None:
    assert {(file, name): job["permissions"] for file, name, job in jobs()} == PERMISSIONS
    assert all(load(file)["permissions"] == {} for file in FILES)


def test_events_are_these_and_none_gives_secrets_to_pull_requests() -> None:
    assert {file.name: set(load(file)["on"]) for file in FILES} == EVENTS


def test_secrets_are_in_jobs_with_an_environment_that_no_fork_starts() -> None:
    for file, _, job in jobs():
        text = yaml.safe_dump(job)
        if "secrets." in text or "id-token" in text:
            assert "environment" in job
            forks = "github.event.pull_request.head.repo.full_name == github.repository"
            assert "pull_request" not in EVENTS[file] or forks in job["if"]


def test_the_workflow_that_may_write_comments_takes_nothing_of_a_pull_request() -> None:
    [(_, _, job)] = [entry for entry in jobs() if entry[0] == "comment.yaml"]
    text = yaml.safe_dump(job["steps"])
    assert "github.event" not in text and "secrets." not in text and "ref:" not in text
    assert load(WORKFLOWS / "comment.yaml")["on"]["workflow_run"]["workflows"] == ["Plan", "Plan against the state"]
    assert {load(WORKFLOWS / name)["name"] for name in ("plan.yaml", "plan-state.yaml")} == {"Plan", "Plan against the state"}


def test_one_update_of_a_stack_runs_at_a_time() -> None:
    [job] = [job for file, _, job in jobs() if file == "update.yaml"]
    assert job["concurrency"] == {"group": "up-${{ matrix.stack }}", "cancel-in-progress": False}
    assert workflows.gitlab()["update"]["resource_group"] == "up/$STACK"
    assert workflows.gitlab()["update"]["interruptible"] is False


def test_every_job_has_a_time_limit() -> None:
    assert [name for _, name, job in jobs() if "timeout-minutes" not in job] == []
    assert [name for name, job in workflows.gitlab().items() if "timeout" not in job] == []


def test_jobs_with_credentials_get_them_in_the_same_way() -> None:
    names = ("Install Pulumi", "Write credentials into files", "Log in to Pulumi Cloud, if the state is there")
    setups = [[step for step in job["steps"] if step.get("name") in names] for _, _, job in jobs() if "environment" in job]
    assert len(setups) == 3
    assert all(setup == setups[0] and len(setup) == 3 for setup in setups)


def test_pulumi_is_installed_with_the_pinned_version_and_by_no_other_way() -> None:
    names = [line.split()[1] for line in (ROOT / ".ci" / "pulumi.sha256").read_text().splitlines()]
    assert names == [f"pulumi-{versions.PULUMI}-linux-{platform}.tar.gz" for platform in ("x64", "arm64")]
    assert [file.name for file in [*FILES, ROOT / ".gitlab-ci.yml"] if "curl" in file.read_text()] == []


@pytest.mark.parametrize("kernel", ["Linux x86_64", "Linux aarch64", "Plan9 mips"])
@pytest.mark.parametrize("is_genuine", [True, False])
def test_pulumi_is_installed_if_it_has_the_published_digest(tmp_path: Path, kernel: str, is_genuine: bool) -> None:
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "pulumi.tar.gz").write_bytes(workflows.archive_of_pulumi())
    if is_genuine:
        workflows.pin_pulumi(tmp_path)
    for name, text in (("curl", workflows.CURL), ("uname", f"#!/bin/sh\necho {kernel}\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    variables = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci" / "install-pulumi"], env=variables, capture_output=True, text=True)
    is_installed = (tmp_path / ".pulumi" / "bin" / "pulumi").exists()
    assert (done.returncode == 0, is_installed) == (is_genuine and kernel.startswith("Linux"),) * 2, done.stderr


TESTS = [
    '$CI_PIPELINE_SOURCE == "merge_request_event" && $TEST_RUNNER',
    '$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH && $CI_PIPELINE_SOURCE == "push" && $TEST_RUNNER',
]
RULES = {
    "plan:files": ['$CI_PIPELINE_SOURCE == "merge_request_event"'],
    "plan:state": [
        '$CI_PIPELINE_SOURCE == "merge_request_event" && $PLAN_STATE == "true" && $CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID'
    ],
    "plan:comment": [
        '$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH && $CI_PIPELINE_SOURCE == "trigger"',
        '$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH && $CI_PIPELINE_SOURCE == "schedule" && $PLAN_TASK == "comment"',
    ],
    "test:quick": TESTS,
    "test:lab": TESTS,
    "update": ['$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH && $CI_PIPELINE_SOURCE == "push" && $PLAN_STATE == "true"'],
    "drift": ['$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH && $CI_PIPELINE_SOURCE == "schedule" && $PLAN_TASK == "drift"'],
}


def test_jobs_of_gitlab_start_for_these_pipelines_alone() -> None:
    started = {name: [rule["if"] for rule in job["rules"]] for name, job in workflows.gitlab().items()}
    assert started == RULES
    assert workflows.gitlab()["plan:state"]["rules"][0]["when"] == "manual"


def test_scripts_of_gitlab_quote_every_variable() -> None:
    for job in workflows.gitlab().values():
        text = "\n".join([*job.get("before_script", ()), *job["script"]])
        done = subprocess.run(["shellcheck", "--shell=bash", "-"], input=text, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")


def test_the_tests_run_by_the_commands_of_this_project_and_without_secrets() -> None:
    github = load(WORKFLOWS / "test.yaml")["jobs"]
    scripts = {name: next(step["run"] for step in job["steps"] if "run" in step).split()[-2:] for name, job in github.items()}
    assert scripts["quick"] == ["./scripts/test", "--quick"] and scripts["lab"][-1] == "./.ci/run"
    assert workflows.gitlab()["test:quick"]["script"] == ["./scripts/test --quick"]
    assert workflows.gitlab()["test:lab"]["script"] == ["./.ci/run"]
    assert "secrets." not in yaml.safe_dump(github) and "id-token" not in yaml.safe_dump(github)
    # A plan of a merge request does not wait for them.
    assert workflows.gitlab()["test:quick"]["needs"] == []
