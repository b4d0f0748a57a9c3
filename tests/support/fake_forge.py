"""A server that answers as the APIs of GitHub and GitLab document, and fails as they fail.

Sources: docs.github.com, REST API version 2022-11-28 (issues, pulls, actions, pagination, rate
limits, troubleshooting); docs.gitlab.com, REST API (notes, merge requests, pipelines, jobs).
"""

from __future__ import annotations

import http.server
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

REPOSITORY, REPOSITORY_ID, FORK_ID, PULL = "mesh/infra", 15, 99, 7
TOKEN = "canary-token-7f3a"
BOT = {"id": 41898282, "login": "github-actions[bot]"}
PERSON = {"id": 3, "login": "someone"}
HEAD, NEWER = "a" * 40, "b" * 40
Body = dict[str, Any]


def archive(files: Mapping[str, str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return buffer.getvalue()


@dataclass
class Fault:
    """An answer in the place of the usual one.

    method, path: patterns of the requests. done: whether the request is carried out all the same.
    times: how often. action: what happens first. A status of 0 leaves the usual answer.
    """

    method: str
    path: str
    status: int
    body: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    done: bool = False
    times: int = 1
    action: Callable[[], object] | None = None


@dataclass
class World:
    """What is on the forge.

    comments, issues: in the order of their creation. head: the commit of the pull request.
    source: the id of its repository. archives: artefacts of the run, by name.
    page: items of a page at most. longest: characters of a text.
    log: the requests, "METHOD path". permissions: of GitHub's token; None: all.
    """

    permissions: Mapping[str, str] | None = None

    comments: list[Body] = field(default_factory=list)
    issues: list[Body] = field(default_factory=list)
    head: str = HEAD
    source: int = REPOSITORY_ID
    state: str = "open"
    merged: str = ""
    archives: dict[str, bytes] = field(default_factory=dict)
    run_head: str = HEAD
    run_source: int = REPOSITORY_ID
    pipeline: str = "success"
    page: int = 2
    longest: int = 65_536
    faults: list[Fault] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    next: int = 1000
    tokens: set[str] = field(default_factory=set)
    elsewhere: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def number(self) -> int:
        """Return a number that nothing else has; later ones are higher."""
        self.next += 1
        return self.next

    def bodies(self) -> list[str]:
        """Return the texts of the comments of this program."""
        return [str(comment["body"]) for comment in self.comments if comment["user"] == BOT]


class Refusal(Exception):
    """An error that the API answers with."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Forge:
    """The server. url: of its root. world: what is on it."""

    url: str
    world: World

    def environment(self, forge: str) -> dict[str, str]:
        """Return the variables of a job of "github" or "gitlab" that lead here."""
        if forge == "github":
            return {
                "GITHUB_API_URL": f"{self.url}/api/v3",
                "GITHUB_GRAPHQL_URL": f"{self.url}/api/graphql",
                "GITHUB_SERVER_URL": self.url,
                "GITHUB_REPOSITORY": REPOSITORY,
                "GITHUB_TOKEN": TOKEN,
                "GITHUB_RUN_ID": "70",
                "no_proxy": "*",
            }
        return {
            "CI_API_V4_URL": f"{self.url}/api/v4",
            "CI_PROJECT_ID": str(REPOSITORY_ID),
            "GITLAB_TOKEN": TOKEN,
            "no_proxy": "*",
        }


@contextmanager
def running() -> Iterator[Forge]:
    """Serve an empty forge during the block."""
    world = World()
    handler = type("Handler", (_Handler,), {"world": world})
    other = type("Other", (_Elsewhere,), {"world": world})
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), other) as store,
    ):
        handler.store = f"http://127.0.0.1:{store.server_port}"  # type: ignore[attr-defined]
        for each in (server, store):
            threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield Forge(f"http://127.0.0.1:{server.server_port}", world)
        finally:
            server.shutdown()
            store.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    world: World
    store: str
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        parts = urlsplit(self.path)
        world = self.world
        world.tokens.add(self.headers.get("Authorization", ""))
        with world.lock:
            world.log.append(f"{self.command} {parts.path}")
            fault = self._fault(parts.path)
        if fault and fault.action:
            fault.action()
        with world.lock:
            if fault and fault.status and not fault.done:
                return self._answer(fault.status, fault.body.encode(), fault.headers)
            try:
                status, value, headers = self._carry_out(parts.path, parse_qs(parts.query), data)
            except Refusal as refusal:
                status, value, headers = refusal.status, {"message": str(refusal)}, {}
        if fault and fault.status:
            return self._answer(fault.status, fault.body.encode(), fault.headers)
        return self._answer(status, b"" if value is None else json.dumps(value).encode(), headers)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

    def _fault(self, path: str) -> Fault | None:
        for fault in self.world.faults:
            if fault.times and re.fullmatch(fault.method, self.command) and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def _carry_out(self, path: str, query: Mapping[str, list[str]], data: bytes) -> tuple[int, Any, dict[str, str]]:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "Bad credentials")
        body: Body = json.loads(data) if data else {}
        for pattern, name in _ROUTES:
            method, _, route = pattern.partition(" ")
            if self.command == method and (match := re.fullmatch(route, path)):
                self._permit(path)
                value = getattr(self, name)(body, *match.groups())
                if isinstance(value, _Redirect):
                    return 302, None, {"Location": value.url}
                if isinstance(value, _Listed):
                    return self._page(value, path, query)
                return {"POST": 201, "DELETE": 204}.get(method, 200), value, {}
        raise Refusal(404, "Not Found")

    def _permit(self, path: str) -> None:
        """Refuse what GitHub refuses a job's token ("Permissions required for GitHub Apps")."""
        granted = self.world.permissions
        if granted is None or not path.startswith("/api/v3"):
            return
        right = "read" if self.command == "GET" else "write"
        names = ["issues"]
        if re.search("/actions/", path):
            names = ["actions"]
        elif re.search("/pulls|/commits/", path):
            names = ["pull-requests"]
        elif "/comments" in path:
            names = ["pull-requests", "issues"]
        if not any(granted.get(name) in (right, "write") for name in names):
            raise Refusal(403, "Resource not accessible by integration")

    def _page(self, listed: _Listed, path: str, query: Mapping[str, list[str]]) -> tuple[int, Any, dict[str, str]]:
        size = min(self.world.page, int(query.get("per_page", ["30"])[0]))
        number = int(query.get("page", ["1"])[0])
        values = listed.values[(number - 1) * size : number * size]
        headers = {}
        if number * size < len(listed.values):
            rest = "".join(f"&{key}={value[0]}" for key, value in query.items() if key != "page")
            following = f"http://{self.headers['Host']}{path}?page={number + 1}{rest}"
            headers["Link"] = f'<{following}>; rel="next", <{following}>; rel="last"'
        return 200, {listed.key: values, "total_count": len(listed.values)} if listed.key else values, headers

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""

    # What both forges have, in the words of each.

    def _text(self, body: Body, key: str) -> str:
        text = str(body[key])
        if not text.strip():
            raise Refusal(422, "Validation Failed: body can't be blank")
        if len(text) > self.world.longest:
            raise Refusal(422, f"Validation Failed: body is too long (maximum is {self.world.longest} characters)")
        return text

    def _entry(self, entries: list[Body], number: str) -> Body:
        for entry in entries:
            if entry["id"] == int(number):
                return entry
        raise Refusal(404, "Not Found")

    def viewer(self, _body: Body) -> Any:
        return {"data": {"viewer": {"login": BOT["login"], "databaseId": BOT["id"]}}}

    def user(self, _body: Body) -> Any:
        return {"id": BOT["id"], "username": BOT["login"]}

    def list_comments(self, _body: Body) -> Any:
        return _Listed(self.world.comments)

    def create_comment(self, body: Body) -> Any:
        author = {"user": BOT, "author": {"id": BOT["id"], "username": BOT["login"]}}
        comment = {"id": self.world.number(), "body": self._text(body, "body"), "system": False, **author}
        self.world.comments.append(comment)
        return comment

    def edit_comment(self, body: Body, number: str) -> Any:
        comment = self._entry(self.world.comments, number)
        comment["body"] = self._text(body, "body")
        return comment

    def delete_comment(self, _body: Body, number: str) -> Any:
        self.world.comments.remove(self._entry(self.world.comments, number))

    def list_issues(self, _body: Body) -> Any:
        return _Listed([issue for issue in self.world.issues if issue["state"] in ("open", "opened")])

    def create_issue(self, body: Body) -> Any:
        number = self.world.number()
        text = {"body": body.get("body"), "description": body.get("description")}
        author = {"user": BOT, "author": {"id": BOT["id"], "username": BOT["login"]}}
        self.world.issues.append({"id": number, "number": number, "iid": number, "title": body["title"], "state": "open", **text, **author})
        return self.world.issues[-1]

    def edit_issue(self, body: Body, number: str) -> Any:
        issue = self._entry(self.world.issues, number)
        issue.update({key: value for key, value in body.items() if key in ("body", "description", "state")})
        if body.get("state_event") == "close":
            issue["state"] = "closed"
        return issue

    def pull(self, _body: Body, number: str) -> Any:
        if int(number) != PULL:
            raise Refusal(404, "Not Found")
        world = self.world
        return {
            "number": PULL,
            "state": world.state,
            "head": {"sha": world.head, "repo": {"id": world.source}},
            "base": {"repo": {"id": REPOSITORY_ID}},
            "merged_at": "2026-11-26T05:00:00Z" if world.merged else None,
            "merge_commit_sha": world.merged or None,
        }

    def pulls(self, _body: Body) -> Any:
        return _Listed([self.pull({}, str(PULL))] if self.world.state == "open" else [])

    def pulls_of_commit(self, _body: Body) -> Any:
        return _Listed([self.pull({}, str(PULL))])

    def runs(self, _body: Body) -> Any:
        run = {
            "id": 70,
            "path": ".github/workflows/plan-state.yaml",
            "head_sha": self.world.run_head,
            "head_repository": {"id": self.world.run_source},
            "html_url": f"http://{self.headers['Host']}/{REPOSITORY}/actions/runs/70",
        }
        return _Listed([run], "workflow_runs")

    def artifacts(self, _body: Body) -> Any:
        names = enumerate(self.world.archives)
        return _Listed([{"id": number, "name": name, "expired": False} for number, name in names], "artifacts")

    def artifact(self, _body: Body, number: str) -> Any:
        return _Redirect(f"{self.store}/{number}")

    def merge_request(self, _body: Body, number: str) -> Any:
        pull = self.pull({}, number)
        return {
            "iid": PULL,
            "state": {"open": "opened"}.get(self.world.state, self.world.state),
            "sha": self.world.head,
            "source_project_id": self.world.source,
            "target_project_id": REPOSITORY_ID,
            "merged": pull["merged_at"],
            "head_pipeline": {
                "id": 70,
                "project_id": self.world.source,
                "sha": self.world.run_head,
                "ref": f"refs/merge-requests/{PULL}/head",
                "status": self.world.pipeline,
                "web_url": f"http://{self.headers['Host']}/{REPOSITORY}/-/pipelines/70",
            },
        }

    def merge_requests(self, _body: Body) -> Any:
        return _Listed([self.merge_request({}, str(PULL))])

    def jobs(self, _body: Body) -> Any:
        jobs = [{"id": number, "name": f"plan:{name}"} for number, name in enumerate(self.world.archives)]
        return _Listed([*jobs, {"id": 90, "name": "test"}, {"id": 91, "name": "plan:canceled"}])


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    """The store of artefacts, on another origin."""

    world: World

    def do_GET(self) -> None:
        self.world.elsewhere.append(self.headers.get("Authorization", ""))
        body = list(self.world.archives.values())[int(self.path.strip("/"))]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@dataclass
class _Listed:
    values: list[Any]
    key: str = ""


@dataclass
class _Redirect:
    url: str


_GITHUB = f"/api/v3/repos/{REPOSITORY}"
_GITLAB = f"/api/v4/projects/{REPOSITORY_ID}"
_ROUTES = (
    ("POST /api/graphql", "viewer"),
    (f"GET {_GITHUB}/issues/{PULL}/comments", "list_comments"),
    (f"POST {_GITHUB}/issues/{PULL}/comments", "create_comment"),
    (rf"PATCH {_GITHUB}/issues/comments/(\d+)", "edit_comment"),
    (rf"DELETE {_GITHUB}/issues/comments/(\d+)", "delete_comment"),
    (f"GET {_GITHUB}/issues", "list_issues"),
    (f"POST {_GITHUB}/issues", "create_issue"),
    (rf"PATCH {_GITHUB}/issues/(\d+)", "edit_issue"),
    (rf"GET {_GITHUB}/pulls/(\d+)", "pull"),
    (f"GET {_GITHUB}/pulls", "pulls"),
    (f"GET {_GITHUB}/commits/[0-9a-f]+/pulls", "pulls_of_commit"),
    (f"GET {_GITHUB}/actions/runs", "runs"),
    (f"GET {_GITHUB}/actions/runs/70/artifacts", "artifacts"),
    (rf"GET {_GITHUB}/actions/artifacts/(\d+)/zip", "artifact"),
    ("GET /api/v4/user", "user"),
    (f"GET {_GITLAB}/merge_requests/{PULL}/notes", "list_comments"),
    (f"POST {_GITLAB}/merge_requests/{PULL}/notes", "create_comment"),
    (rf"PUT {_GITLAB}/merge_requests/{PULL}/notes/(\d+)", "edit_comment"),
    (rf"DELETE {_GITLAB}/merge_requests/{PULL}/notes/(\d+)", "delete_comment"),
    (f"GET {_GITLAB}/issues", "list_issues"),
    (f"POST {_GITLAB}/issues", "create_issue"),
    (rf"PUT {_GITLAB}/issues/(\d+)", "edit_issue"),
    (rf"GET {_GITLAB}/merge_requests/(\d+)", "merge_request"),
    (f"GET {_GITLAB}/merge_requests", "merge_requests"),
    (f"GET {_GITLAB}/repository/commits/[0-9a-f]+/merge_requests", "merge_requests"),
    (r"GET /api/v4/projects/\d+/pipelines/70/jobs", "jobs"),
    (r"GET /api/v4/projects/\d+/jobs/([0-8])/artifacts", "artifact"),
)
