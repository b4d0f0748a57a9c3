"""A repository on GitHub, or on GitHub Enterprise Server.

Sources: docs.github.com, "REST API endpoints" for issues, pull requests, commits, workflow runs and
artifacts, version 2022-11-28; "Webhook events and payloads".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from .api_thread import ApiThread
from .client import Access, Client, Json
from .errors import ForgeError
from .forge import MOST_ARCHIVE_BYTES, Run
from .reading import at, load, number_at, text_at, variable
from .settle import Account, Item

ARTEFACT = "plan-"
"""What the names of artefacts with plans begin with; the level and the stack follow."""
JOBS_ACCOUNT = "github-actions[bot]"
"""Who comments with the token of a job."""
STATE_WORKFLOW = ".github/workflows/plan-state.yaml"


class GitHub:
    """A repository, and the event that started this program, both from the environment of a job."""

    word = "#"

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read the variables that GitHub sets ("Default environment variables"), and the token."""
        api = environment.get("GITHUB_API_URL") or "https://api.github.com"
        token = variable(
            environment, "GITHUB_TOKEN", "give the step `env: GITHUB_TOKEN: ${{ github.token }}`"
        )
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        self.client = Client(Access(api.rstrip("/"), token, "GITHUB_TOKEN", headers), _needs)
        self._graphql = (
            environment.get("GITHUB_GRAPHQL_URL")
            or f"{api.removesuffix('/v3').rstrip('/')}/graphql"
        )
        self._name = variable(environment, "GITHUB_REPOSITORY", "the repository as <owner>/<name>")
        self._repository = f"/repos/{self._name}"
        self._environment = environment

    def account(self) -> Account:
        """Return who the token is of. `GET /user` refuses the tokens of jobs; GraphQL does not."""
        answer = self.client.ask(self._graphql, {"query": "query { viewer { login databaseId } }"})
        number, login = (at(answer, "data", "viewer", key) for key in ("databaseId", "login"))
        if not isinstance(login, str):
            login = JOBS_ACCOUNT  # a server that refuses the query to jobs
        return Account(number if isinstance(number, int) else -1, login)

    def runs(self) -> list[Run]:
        """Return the run of a `workflow_run` event, or this one of a `pull_request` event.

        No run where the pull request is closed. Raises ForgeError for other events.
        """
        event = self._event()
        if isinstance(run := at(event, "workflow_run"), dict):
            return self._triggering(event, run)
        if not isinstance(pull := at(event, "pull_request"), dict):
            raise ForgeError("only events `workflow_run` and `pull_request` name a pull request")
        server = self._environment.get("GITHUB_SERVER_URL") or "https://github.com"
        number = variable(self._environment, "GITHUB_RUN_ID", "the number of this run")
        return [
            Run(
                pull=number_at(pull, "number"),
                head=text_at(pull, "head", "sha"),
                fork=at(pull, "head", "repo", "id") != at(event, "repository", "id"),
                run=int(number),
                url=f"{server}/{self._name}/actions/runs/{number}",
            )
        ]

    def _triggering(self, event: Json, run: Json) -> list[Run]:
        if at(run, "event") != "pull_request":
            return []
        repository, head = number_at(event, "repository", "id"), text_at(run, "head_sha")
        source = at(run, "head_repository", "id")
        if source is None:
            raise ForgeError(
                "the fork of this pull request was deleted: close it, or push its commits here"
            )
        pulls = self._pulls(run)
        # The event names no pull request of a fork, and those of any repository with that commit.
        pulls = [pull for pull in pulls if at(pull, "base", "repo", "id") == repository]
        pulls = [pull for pull in pulls if at(pull, "head", "repo", "id") == source]
        if len(pulls) > 1 and any(at(pull, "head", "sha") == head for pull in pulls):
            pulls = [pull for pull in pulls if at(pull, "head", "sha") == head]
        if len(pulls) > 1:
            numbers = " and ".join(f"#{number_at(pull, 'number')}" for pull in pulls)
            raise ForgeError(
                f"{numbers} are of one branch, and a run does not say which it is for: close one"
            )
        return [
            Run(
                pull=number_at(pull, "number"),
                head=head,
                fork=source != repository,
                run=number_at(run, "id"),
                url=text_at(run, "html_url"),
                done=at(event, "action") == "completed",
            )
            for pull in pulls
        ]

    def _pulls(self, run: Json) -> list[Json]:
        owner, branch = (
            text_at(run, "head_repository", "owner", "login"),
            text_at(run, "head_branch"),
        )
        return list(
            self.client.pages(f"{self._repository}/pulls", state="open", head=f"{owner}:{branch}")
        )

    def head(self, pull: int) -> str:
        """Return the commit that a pull request is at now."""
        return text_at(self.client.get(f"{self._repository}/pulls/{pull}"), "head", "sha")

    def archives(self, run: Run) -> Iterator[bytes]:
        """Yield the run's artefacts with plans, as zip archives."""
        return self._archives(run.run, ARTEFACT)

    def _archives(self, run: int, prefix: str) -> Iterator[bytes]:
        path = f"{self._repository}/actions/runs/{run}/artifacts"
        for artefact in self.client.pages(path, "artifacts"):
            if text_at(artefact, "name").startswith(prefix) and not at(artefact, "expired"):
                number = number_at(artefact, "id")
                yield self.client.download(
                    f"{self._repository}/actions/artifacts/{number}/zip", MOST_ARCHIVE_BYTES
                )

    def reviewed(self, stack: str) -> Iterator[Run]:
        """Yield the runs of the workflow for the state, of the pull request that was merged.

        A run of a fork's commit is none: a fork may change the workflow.
        """
        commit = variable(self._environment, "GITHUB_SHA", "the commit that was merged")
        pulls = [
            pull for pull in self.client.pages(f"{self._repository}/commits/{commit}/pulls")
            if at(pull, "merged_at") and at(pull, "merge_commit_sha") == commit
        ]  # fmt: skip
        if not pulls:
            raise ForgeError(
                f"no merged pull request has the commit {commit}: what was pushed without one was "
                f"not reviewed. Revert it, or run this workflow by hand for {stack}"
            )
        head, repository = text_at(pulls[0], "head", "sha"), at(pulls[0], "base", "repo", "id")
        path = f"{self._repository}/actions/runs"
        for run in self.client.pages(path, "workflow_runs", head_sha=head, event="pull_request"):
            workflow = text_at(run, "path").partition("@")[0]
            if workflow == STATE_WORKFLOW and at(run, "head_repository", "id") == repository:
                yield Run(
                    pull=number_at(pulls[0], "number"),
                    head=head,
                    fork=False,
                    run=number_at(run, "id"),
                    url=text_at(run, "html_url"),
                )

    def comments(self, pull: int) -> ApiThread:
        """Return the comments of a pull request, which GitHub has with those of issues."""
        return ApiThread(
            client=self.client,
            path=f"{self._repository}/issues/{pull}/comments",
            item_path=f"{self._repository}/issues/comments",
            read=partial(_item, "id"),
            others="",
            edit_method="PATCH",
        )

    def issues(self, title: str) -> ApiThread:
        """Return the open issues, among which GitHub lists pull requests."""
        path = f"{self._repository}/issues"
        return ApiThread(
            client=self.client,
            path=path,
            query={"state": "open"},
            item_path=path,
            read=partial(_item, "number"),
            others="pull_request",
            fields={"title": title},
            edit_method="PATCH",
            removal=("PATCH", {"state": "closed", "state_reason": "completed"}),
        )

    def _event(self) -> Json:
        path = variable(self._environment, "GITHUB_EVENT_PATH", "the file of the event")
        return load(path, "GITHUB_EVENT_PATH")


def _item(key: str, value: Json) -> Item:
    # An account that was deleted is null, and an empty text is null too.
    user, login, body = at(value, "user", "id"), at(value, "user", "login"), at(value, "body")
    author = Account(user if isinstance(user, int) else -2, login if isinstance(login, str) else "")
    return Item(number_at(value, key), author, body if isinstance(body, str) else "")


def _needs(method: str, url: str) -> str:
    """Return what a job has to give its token for a request."""
    if "/actions/" in url:
        return "`permissions: actions: read` in the job"
    if method == "GET":
        return "`permissions: contents: read, pull-requests: read, issues: read` in the job"
    if "/comments" in url:
        return "`permissions: pull-requests: write` in the job; jobs of forks cannot have it"
    return "`permissions: issues: write` in the job"
