"""One comment per stack and pull request, also when runs race and the forge is busy."""

from __future__ import annotations

import argparse
import itertools
import re
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fake_forge import BOT, FORK_ID, NEWER, PERSON, TOKEN, Body, Fault, Forge, archive
from tests.unit.tools.plan.forge.conftest import EVENTS, Waits, set_job
from tests.unit.tools.plan.samples import EVERYTHING, HOSTILE, NOTHING, REFUSED
from tools.plan import render_json
from tools.plan.forge import cli, commands
from tools.plan.forge.marker import PLAN, Marker, mark, parse
from tools.plan.model import Level, Plan

PROD = replace(EVERYTHING, stack="prod", level=Level.FILES)
COMMENTS = r"/(issues/7/comments|merge_requests/7/notes)$"
COMMENT = r"/(comments|notes)/\d+$"


def deliver(forge: Forge, *plans: Plan) -> None:
    """Put plans into the artefact of the run."""
    texts = {f"{number}.json": render_json.text(plan) for number, plan in enumerate(plans)}
    forge.world.archives["plan-files"] = archive(texts)


def post(name: str, *files: Path) -> int:
    return commands.COMMANDS["post"](cli_arguments("post", "--forge", name, *map(str, files)))


def cli_arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_commands(parser.add_subparsers(dest="command"))
    return parser.parse_args(words)


def comment(number: int, stack: str = "prod", *, by: Body = BOT, **more: object) -> Body:
    """Return a comment with a marker."""
    fields: dict[str, object] = {
        "kind": PLAN,
        "stack": stack,
        "head": "c" * 40,
        "level": "files",
        **more,
    }
    body = mark(Marker(**fields), "An earlier plan.\n")  # type: ignore[arg-type]
    return {
        "id": number,
        "body": body,
        "user": by,
        "author": {"id": by["id"], "username": by["login"]},
    }


def test_each_stack_gets_one_comment_that_later_runs_edit(forge: Forge, name: str) -> None:
    deliver(forge, PROD, replace(PROD, stack="test"))
    assert post(name) == 0
    assert [entry and entry.stack for entry in map(parse, forge.world.bodies())] == ["prod", "test"]
    numbers = [entry["id"] for entry in forge.world.comments]
    deliver(forge, replace(PROD, broken=()))
    assert post(name) == 0
    assert [entry["id"] for entry in forge.world.comments] == numbers
    assert "drain" in forge.world.bodies()[1] and "❌" not in forge.world.bodies()[0]


def set_head(forge: Forge, head: str) -> None:
    forge.world.head = head


def test_a_repeated_run_writes_nothing(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    post(name)
    forge.world.log.clear()
    assert post(name) == 0
    assert [line for line in forge.world.log if not re.match("GET|POST .*graphql", line)] == []


@pytest.mark.parametrize(
    ("head", "number"), [("a" * 40, 1), ("a" * 40, 5000), (NEWER, 1), (NEWER, 5000)]
)
def test_two_runs_that_create_at_once_leave_one_comment(
    forge: Forge, name: str, head: str, number: int
) -> None:
    deliver(forge, PROD)

    def rival() -> None:
        forge.world.head = head
        forge.world.comments.append(comment(number, head=head))

    forge.world.faults.append(Fault("POST", COMMENTS, 0, action=rival))
    assert post(name) == 0
    [body] = forge.world.bodies()
    # The number of ours is between, and the oldest comment stays.
    assert [entry["id"] for entry in forge.world.comments] == [1 if number == 1 else 1001]
    marker = parse(body)
    assert marker and (marker.head, marker.old) == (
        (head, False) if number == 1 else ("a" * 40, head == NEWER)
    )


@pytest.mark.slow
def test_many_runs_at_once_leave_one_comment(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(post(name))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (codes, len(forge.world.bodies())) == ([0] * 6, 1)


def test_a_list_that_lags_behind_has_no_second_comment_created(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    empty = Fault("GET", COMMENTS, 200, body="[]", times=3)
    forge.world.faults.append(empty)
    assert post(name) == 0
    assert len(forge.world.bodies()) == 1
    assert len([line for line in forge.world.log if re.fullmatch(f"POST .*{COMMENTS}", line)]) == 1


def test_a_comment_that_was_deleted_meanwhile_is_created_again(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    forge.world.comments.append(comment(1))
    forge.world.faults.append(Fault("PATCH|PUT", COMMENT, 404, action=forge.world.comments.clear))
    assert post(name) == 0
    assert len(forge.world.bodies()) == 1


def test_the_oldest_of_several_stays(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    forge.world.comments += [comment(9), comment(2), comment(5), comment(7, "test")]
    assert post(name) == 0
    assert sorted(entry["id"] for entry in forge.world.comments) == [2, 7]


def test_comments_of_others_are_neither_edited_nor_counted(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    others = [comment(1, by=PERSON), {**comment(2), "body": "> " + str(comment(2)["body"])}]
    bodies = [entry["body"] for entry in others]
    forge.world.comments += others
    assert post(name) == 0
    assert [entry["body"] for entry in forge.world.comments[:2]] == bodies
    assert len(forge.world.comments) == 3


def test_all_pages_of_comments_are_read(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    forge.world.comments += [comment(number, by=PERSON) for number in range(1, 8)] + [comment(8)]
    assert post(name) == 0
    assert len(forge.world.comments) == 8


def test_a_run_of_an_older_commit_changes_nothing_of_a_newer_ones(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    forge.world.head = NEWER
    newer = comment(1, head=NEWER)
    forge.world.comments.append(dict(newer))
    assert post(name) == 0
    assert forge.world.comments == [newer]


def test_a_commit_that_comes_while_the_forge_is_busy_is_not_overwritten(
    forge: Forge, name: str, waits: Waits
) -> None:
    deliver(forge, PROD)
    forge.world.comments.append(comment(1))

    def push() -> None:
        forge.world.head = NEWER
        forge.world.comments[0] = comment(1, head=NEWER)

    forge.world.faults.append(
        Fault("PATCH|PUT", COMMENT, 429, headers={"Retry-After": "30"}, action=push)
    )
    assert post(name) == 0
    assert forge.world.comments == [comment(1, head=NEWER)]
    assert waits == [30]


def test_a_commit_that_comes_during_the_write_has_the_comment_marked_as_old(
    forge: Forge, name: str
) -> None:
    deliver(forge, PROD)
    forge.world.faults.append(
        Fault("POST", COMMENTS, 0, done=True, action=lambda: set_head(forge, NEWER))
    )
    assert post(name) == 0
    [body] = forge.world.bodies()
    marker = parse(body)
    assert marker and marker.old and "**Old.**" in body


def test_the_begin_of_a_run_marks_the_plans_of_earlier_commits(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, waits: Waits, tmp_path: Path
) -> None:
    set_job(monkeypatch, forge, "github", "github_workflow_run")
    event = tmp_path / "event.json"
    event.write_text(
        (EVENTS / "github_workflow_run.json").read_text().replace('"completed"', '"requested"', 1)
    )
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    forge.world.comments += [comment(1), comment(2, "test", head="a" * 40)]
    for _ in range(2):
        assert post("github") == 0
        assert [body.count("**Old.**") for body in forge.world.bodies()] == [1, 0]


def test_a_pipeline_that_runs_marks_the_plans_of_earlier_commits(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, waits: Waits
) -> None:
    set_job(monkeypatch, forge, "gitlab", "gitlab_merge_request")
    forge.world.pipeline = "running"
    forge.world.comments.append(comment(1))
    assert post("gitlab") == 0
    assert [body.count("**Old.**") for body in forge.world.bodies()] == [1]


def test_a_higher_level_of_the_same_commit_stays(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    state = comment(1, head="a" * 40, level="state")
    forge.world.comments.append(dict(state))
    assert post(name) == 0
    assert forge.world.comments == [state]
    deliver(forge, replace(PROD, level=Level.LIVE))
    assert post(name) == 0
    marker = parse(forge.world.bodies()[0])
    assert marker and marker.level == "live"


def test_a_failed_preview_is_posted_with_its_cause(forge: Forge, name: str) -> None:
    deliver(forge, replace(REFUSED, stack="prod"))
    assert post(name) == 0
    [body] = forge.world.bodies()
    assert REFUSED.error and all(line[:20] in body for line in REFUSED.error.lines)


def damaged(content: bytes, mark: bytes, offset: int, size: int = 1) -> bytes:
    """Return an archive with other bytes from `offset` behind the last `mark` on."""
    begin = content.rindex(mark) + offset
    return content[:begin] + b"\xff" * size + content[begin + size :]


PACKED = {
    method: archive({"plan.json": "{}" * 500}, method)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        None,
        b"no archive",
        archive({"plan.json": "{}"}),
        archive({"readme.txt": "hello"}),
        *(damaged(content, b"PK\3\4", 48, 12) for content in PACKED.values()),
        # The place of its directory is behind its end, and a name is no UTF-8.
        damaged(PACKED[zipfile.ZIP_DEFLATED], b"PK\5\6", 18),
        damaged(archive({"é.json": "{}"}), "é".encode(), 0),
    ],
)
def test_a_run_without_a_plan_is_posted_until_there_is_one(
    forge: Forge, name: str, content: bytes | None
) -> None:
    if content is not None:
        forge.world.archives["plan-files"] = content
    assert post(name) == 0
    [body] = forge.world.bodies()
    assert "No plan" in body and "runs/70" in body.replace("pipelines", "runs")
    deliver(forge, PROD)
    assert post(name) == 0
    assert [entry and entry.stack for entry in map(parse, forge.world.bodies())] == ["prod"]


@pytest.mark.parametrize(
    ("limit", "value", "problem"),
    [("MOST_BYTES", 1_000, "have more than 1,000 bytes"), ("MOST_S", 0.0, "take more than 0 s")],
)
def test_a_run_has_so_many_bytes_and_seconds(
    forge: Forge,
    name: str,
    limit: str,
    value: float,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, limit, value)
    deliver(forge, PROD)
    assert post(name) == 0
    [body] = forge.world.bodies()
    assert "No plan" in body and problem in body


def test_a_stack_in_which_nothing_happens_gets_no_comment_but_keeps_one(
    forge: Forge, name: str
) -> None:
    nothing = replace(NOTHING, stack="prod", level=Level.FILES)
    deliver(forge, nothing)
    assert post(name) == 0
    assert forge.world.comments == []
    deliver(forge, PROD)
    post(name)
    deliver(forge, nothing)
    assert post(name) == 0
    [body] = forge.world.bodies()
    assert "Nothing: no resource changes" in body


def test_a_closed_pull_request_gets_no_comment(forge: Forge, name: str) -> None:
    deliver(forge, PROD)
    forge.world.state = "closed"
    assert post(name) == 0
    assert forge.world.comments == []


@pytest.mark.parametrize("event", ["github_workflow_run_fork", "gitlab_merge_request"])
def test_the_number_of_a_forks_pull_request_follows_from_the_event(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, waits: Waits, event: str
) -> None:
    name = event.partition("_")[0]
    set_job(monkeypatch, forge, name, event)
    forge.world.source = FORK_ID
    deliver(forge, PROD)
    assert post(name) == 0
    [body] = forge.world.bodies()
    assert "The code of a fork computed this plan" in body


@pytest.mark.parametrize("event", ["github_workflow_run_fork", "gitlab_merge_request"])
def test_a_fork_cannot_claim_to_have_read_the_state(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, waits: Waits, event: str
) -> None:
    name = event.partition("_")[0]
    set_job(monkeypatch, forge, name, event)
    forge.world.source = FORK_ID
    deliver(forge, replace(PROD, level=Level.STATE))
    assert post(name) == 0
    [body] = forge.world.bodies()
    assert "No plan" in body and "a fork has no access" in body


def test_a_fork_that_has_another_pull_request_alone_is_not_taken_for_it(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, waits: Waits
) -> None:
    set_job(monkeypatch, forge, "github", "github_workflow_run_fork")
    forge.world.source = 98
    deliver(forge, PROD)
    assert post("github") == 0
    assert forge.world.comments == []


def test_a_text_that_is_too_long_is_posted_shorter(forge: Forge, name: str) -> None:
    deliver(forge, replace(PROD, operations=PROD.operations * 300))
    forge.world.longest = 20_000
    assert post(name) == 0
    [body] = forge.world.bodies()
    assert 5_000 < len(body) <= 20_000 and "This plan is cut" in body and "artefact" in body


@pytest.mark.slow
def test_no_comment_is_longer_than_forges_take(forge: Forge, name: str) -> None:
    deliver(
        forge,
        replace(HOSTILE, stack="prod", level=Level.FILES, operations=HOSTILE.operations * 3_000),
    )
    forge.world.source = REPOSITORY
    assert post(name) == 0
    assert all(len(body.encode()) <= 65_536 for body in forge.world.bodies())


REPOSITORY = 15


@pytest.mark.parametrize(("status", "headers", "body"), [
    (429, {"Retry-After": "7"}, "{}"),
    (403, {"Retry-After": "7"}, '{"message": "Slow down"}'),
    (503, {"Retry-After": "7"}, "<html>"),
])  # fmt: skip
def test_a_busy_forge_is_asked_again_when_it_says(
    forge: Forge, name: str, waits: Waits, status: int, headers: dict[str, str], body: str
) -> None:
    deliver(forge, PROD)
    forge.world.faults += [
        Fault(method, path, status, body, headers)
        for method, path in itertools.product(["GET", "POST"], [COMMENTS])
    ]
    assert post(name) == 0
    assert (waits, len(forge.world.bodies())) == ([7, 7], 1)


def test_a_rate_limit_without_a_time_is_waited_for_a_minute(
    forge: Forge, name: str, waits: Waits
) -> None:
    deliver(forge, PROD)
    text = '{"message": "You have exceeded a secondary rate limit."}'
    forge.world.faults.append(Fault("POST", COMMENTS, 403, text))
    assert post(name) == 0
    assert (waits, len(forge.world.bodies())) == ([60], 1)


def test_a_plan_that_is_none_beside_others_is_named(forge: Forge, name: str) -> None:
    files = {"good.json": render_json.text(PROD), "bad.json": '{"stack": "test"}'}
    forge.world.archives["plan-files"] = archive(files)
    assert post(name) == 0
    assert {entry.stack for entry in map(parse, forge.world.bodies()) if entry} == {"prod", "*"}


def test_a_comment_whose_creation_was_reported_as_failed_is_not_created_twice(
    forge: Forge, name: str, waits: Waits
) -> None:
    deliver(forge, PROD)
    forge.world.faults.append(Fault("POST", COMMENTS, 502, done=True))
    assert post(name) == 0
    assert (waits, len(forge.world.bodies())) == ([1], 1)


@pytest.mark.parametrize("seconds", ["86400", "100"])
def test_waiting_is_bounded_in_time(
    forge: Forge, name: str, waits: Waits, seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(forge, PROD)
    forge.world.faults.append(
        Fault("POST", COMMENTS, 429, headers={"Retry-After": seconds}, times=99)
    )
    assert post(name) == 1
    assert sum(waits) <= 300
    assert "rate limit" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "words"), [
    (401, ("is refused",)),
    (403, ("lacks a permission", "pull-requests: write", "scope `api`")),
    (404, ("does not exist", "pull-requests: write", "scope `api`")),
    (422, ("422",)),
])  # fmt: skip
def test_an_error_names_the_variable_and_the_fix(
    forge: Forge, name: str, status: int, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(forge, PROD)
    forge.world.faults.append(
        Fault("POST", COMMENTS, status, '{"message": "Resource not accessible by integration"}')
    )
    assert post(name) == 1
    error = capsys.readouterr().err
    assert words[0] in error
    assert len(words) == 1 or words[1 if name == "github" else 2] in error


def test_the_permission_that_github_names_is_shown(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, waits: Waits, capsys: pytest.CaptureFixture[str]
) -> None:
    set_job(monkeypatch, forge, "github", "github_workflow_run")
    deliver(forge, PROD)
    headers = {"X-Accepted-GitHub-Permissions": "issues=write; pull_requests=write"}
    forge.world.faults.append(Fault("POST", COMMENTS, 403, "{}", headers))
    assert post("github") == 1
    assert "lacks a permission: issues=write; pull_requests=write" in capsys.readouterr().err


def test_a_server_cannot_give_commands_to_the_runner(
    forge: Forge, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(forge, PROD)
    forge.world.faults.append(Fault("POST", COMMENTS, 422, "x\n::add-mask::x\n##[group]"))
    assert post(name) == 1
    printed = capsys.readouterr()
    assert not re.search(r"^\s*::|##\[", printed.err + printed.out, re.MULTILINE)


def test_the_token_goes_to_the_api_alone_and_into_no_log(
    forge: Forge, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(forge, PROD)
    forge.world.faults.append(
        Fault("GET", COMMENTS, 302, headers={"Location": "https://127.0.0.1:1/elsewhere"})
    )
    forge.world.faults.append(Fault("POST", COMMENTS, 401, times=1))
    post(name)
    post(name)
    assert forge.world.tokens == {f"Bearer {TOKEN}"}
    assert set(forge.world.elsewhere) == {""}
    printed = capsys.readouterr()
    assert TOKEN not in printed.err + printed.out


def test_a_page_on_another_server_is_not_followed(
    forge: Forge, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(forge, PROD)
    link = {"Link": '<https://example.com/next>; rel="next"'}
    forge.world.faults.append(Fault("GET", COMMENTS, 200, "[]", link))
    assert post(name) == 1
    assert "another server" in capsys.readouterr().err


def test_a_server_that_names_no_account_to_jobs_has_one_comment_too(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, waits: Waits
) -> None:
    set_job(monkeypatch, forge, "github", "github_workflow_run")
    deliver(forge, PROD)
    refused = '{"data": null, "errors": [{"message": "Resource not accessible by integration"}]}'
    forge.world.faults.append(Fault("POST", "graphql", 200, refused, times=2))
    assert (post("github"), post("github"), len(forge.world.bodies())) == (0, 0, 1)


def test_a_repository_that_was_renamed_is_followed(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, waits: Waits
) -> None:
    set_job(monkeypatch, forge, "github", "github_workflow_run")
    deliver(forge, PROD)
    target = f"{forge.url}/api/v3/repos/mesh/infra/issues/7/comments"
    forge.world.faults.append(Fault("POST", COMMENTS, 307, headers={"Location": target}))
    assert post("github") == 0
    assert len(forge.world.bodies()) == 1


def test_without_a_token_the_variable_is_named(
    forge: Forge, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variable = f"{name.upper()}_TOKEN"
    monkeypatch.delenv(variable)
    assert post(name) == 1
    assert f"{variable} is not set" in capsys.readouterr().err


def test_plans_of_files_are_posted_too(forge: Forge, name: str, tmp_path: Path) -> None:
    file = tmp_path / "prod.json"
    file.write_text(render_json.text(PROD))
    assert post(name, file) == 0
    assert len(forge.world.bodies()) == 1
