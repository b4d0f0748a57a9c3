"""A project on GitLab.

Sources: docs.gitlab.com, "REST API" for notes, merge requests, pipelines, jobs, job artifacts and
issues; "Predefined CI/CD variables reference"; "Webhook events", pipeline and merge request events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from .api_thread import ApiThread
from .client import Access, Client, Json
from .errors import AbsentError, ForgeError
from .forge import MOST_ARCHIVE_BYTES, Run
from .reading import at, load, number_at, text_at, variable
from .settle import Account, Item

JOB = "plan:"
"""What the names of jobs with plans begin with."""
ENDED = ("success", "failed")
"""States of pipelines that computed what they could."""


class GitLab:
    """A project, and what started this program, both from the environment of a job."""

    word = "!"

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read the variables that GitLab sets, and GITLAB_TOKEN: a job's token cannot comment."""
        api = environment.get("CI_API_V4_URL") or "https://gitlab.com/api/v4"
        purpose = "a project access token, scope `api`, role Reporter, as a protected variable"
        token = variable(environment, "GITLAB_TOKEN", purpose)
        self.client = Client(Access(api.rstrip("/"), token, "GITLAB_TOKEN", {}), _needs)
        self._number = int(variable(environment, "CI_PROJECT_ID", "the number of the project"))
        self._project = f"/projects/{self._number}"
        self._environment = environment

    def account(self) -> Account:
        """Return who the token is of."""
        user = self.client.get("/user")
        return Account(number_at(user, "id"), text_at(user, "username"))

    def runs(self) -> list[Run]:
        """Return the newest pipelines of the merge requests that this program was started for.

        Those are the one of the event that triggered the pipeline (TRIGGER_PAYLOAD), the one of a
        merge request's pipeline, or all open ones.
        """
        path = f"{self._project}/merge_requests"
        requests = [self.client.get(f"{path}/{number}") for number in self._numbers(path)]
        opened = [request for request in requests if at(request, "state") == "opened"]
        return [run for request in opened if (run := self._newest(request))]

    def _numbers(self, path: str) -> list[int]:
        """Return the numbers of the merge requests that this program was started for."""
        if payload := self._environment.get("TRIGGER_PAYLOAD"):
            event = load(payload, "TRIGGER_PAYLOAD")
            if number_at(event, "project", "id") != self._number:
                raise ForgeError("TRIGGER_PAYLOAD is of another project: correct the webhook")
            key = "merge_request" if at(event, "object_kind") == "pipeline" else "object_attributes"
            # The event of a branch's pipeline names no merge request.
            return [number_at(event, key, "iid")] if at(event, key) is not None else []
        if number := self._environment.get("CI_MERGE_REQUEST_IID"):
            return [int(number)]
        return [number_at(request, "iid") for request in self.client.pages(path, state="opened")]

    def _newest(self, request: Json) -> Run | None:
        """Return the last pipeline of a merge request, if there is one."""
        pipeline = at(request, "head_pipeline")
        if not isinstance(pipeline, dict):
            return None
        merged = text_at(pipeline, "ref").endswith(("/merge", "/train"))
        return Run(
            pull=number_at(request, "iid"),
            # Of a merged result or a train the pipeline's commit is a merge that is in no branch.
            head=text_at(request if merged else pipeline, "sha"),
            fork=at(request, "source_project_id") != self._number,
            run=number_at(pipeline, "id"),
            project=number_at(pipeline, "project_id"),
            url=text_at(pipeline, "web_url"),
            done=at(pipeline, "status") in ENDED,
        )

    def head(self, pull: int) -> str:
        """Return the commit that a merge request is at now."""
        return text_at(self.client.get(f"{self._project}/merge_requests/{pull}"), "sha")

    def archives(self, run: Run) -> Iterator[bytes]:
        """Yield the artefacts of the pipeline's jobs with plans, as zip archives."""
        for job in self.client.pages(f"/projects/{run.project}/pipelines/{run.run}/jobs"):
            if text_at(job, "name").startswith(JOB):
                yield from self._archive(run.project, number_at(job, "id"))

    def _archive(self, project: int, job: int) -> Iterator[bytes]:
        try:
            yield self.client.download(
                f"/projects/{project}/jobs/{job}/artifacts", MOST_ARCHIVE_BYTES
            )
        except AbsentError:
            return  # a job that ended before it had some, or whose artefacts have expired

    def reviewed(self, stack: str) -> Iterator[Run]:
        """Yield the last pipeline of the merge request that was merged, unless it is of a fork."""
        commit = variable(self._environment, "CI_COMMIT_SHA", "the commit that was merged")
        path = f"{self._project}/repository/commits/{commit}/merge_requests"
        requests = [
            request for request in self.client.pages(path)
            if at(request, "state") == "merged" and at(request, "target_project_id") == self._number
        ]  # fmt: skip
        if not requests:
            raise ForgeError(
                f"no merge request has the commit {commit}: what was pushed without one was not "
                f"reviewed. Revert it, or update {stack} by hand"
            )
        number = number_at(requests[0], "iid")
        run = self._newest(self.client.get(f"{self._project}/merge_requests/{number}"))
        if run and run.project == self._number and not run.fork:
            yield run

    def comments(self, pull: int) -> ApiThread:
        """Return the notes of a merge request, without those that GitLab writes itself."""
        path = f"{self._project}/merge_requests/{pull}/notes"
        return ApiThread(
            client=self.client,
            path=path,
            query={"sort": "asc", "order_by": "created_at"},
            item_path=path,
            read=partial(_item, "id", "body"),
            others="system",
            edit_method="PUT",
        )

    def issues(self, title: str) -> ApiThread:
        """Return the open issues; those that are created get this title."""
        path = f"{self._project}/issues"
        return ApiThread(
            client=self.client,
            path=path,
            query={"state": "opened"},
            item_path=path,
            read=partial(_item, "iid", "description"),
            others="",
            text="description",
            fields={"title": title},
            edit_method="PUT",
            removal=("PUT", {"state_event": "close"}),
        )


def _item(key: str, text: str, value: Json) -> Item:
    body = at(value, text)
    author = Account(number_at(value, "author", "id"), text_at(value, "author", "username"))
    return Item(number_at(value, key), author, body if isinstance(body, str) else "")


def _needs(method: str, url: str) -> str:
    """Return what a token has to be given for a request."""
    if method == "GET":
        return "the scope `api`, and a role in the project (and in a fork that is private)"
    return "the scope `api`, and at least the role Reporter in the project"
