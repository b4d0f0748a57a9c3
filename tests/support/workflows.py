"""Runs the workflow files of this repository: their `run` steps as they are, in a clone.

An action does here what its documentation says, as far as a workflow of this repository uses it.
Sources: docs.github.com, "Workflow syntax for GitHub Actions", "Contexts reference", "Evaluate
expressions"; docs.gitlab.com, "CI/CD YAML syntax reference".
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.fake_forge import REPOSITORY, REPOSITORY_ID, Forge
from tools import ROOT, venv

WORKFLOWS = ROOT / ".github" / "workflows"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".lab", "__pycache__", ".*_cache", ".grimp_cache")
GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
SHELLS = {"bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"]}
"""How GitHub runs a shell that a workflow names."""

PULUMI = """#!/usr/bin/env bash
printf '%s\\n' "pulumi $*" >>"$HOME/pulumi.log"
env >>"$HOME/pulumi.env"
[[ $1 == login ]] && exit 0
[[ $1 == up ]] && exit 0
if [[ "$1 $2" == "stack export" ]]; then
  echo '{"version": 3, "deployment": {"manifest": {}, "resources": []}}'
  exit 0
fi
if [[ -e $HOME/preview.json ]]; then
  cat "$HOME/preview.json"
  exit 0
fi
echo "error: the state cannot be read" >&2
exit 255
"""
CURL = """#!/usr/bin/env bash
printf '%s\\n' "curl $*" >>"$HOME/curl.log"
[[ $1 == -fsSL && $2 == --output && $4 == "https://github.com/pulumi/pulumi/releases/download/v"*/"$3" ]] || exit 22
cp "$HOME/pulumi.tar.gz" "$3"
"""
"""curl, which has no network here: it gives an archive of Pulumi."""


def load(path: Path) -> dict[str, Any]:
    """Return a workflow; YAML 1.1 reads the key `on` as true."""
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict)
    return {("on" if key is True else key): value for key, value in document.items()}


@cache
def archive_of_pulumi() -> bytes:
    """Return an archive like those of Pulumi's releases."""
    buffer, member = io.BytesIO(), tarfile.TarInfo("pulumi/pulumi")
    member.mode, member.size = 0o755, len(PULUMI.encode())
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        opened.addfile(member, io.BytesIO(PULUMI.encode()))
    return buffer.getvalue()


def pin_pulumi(checkout: Path) -> None:
    """Have the archive's digest in a checkout, in place of those of Pulumi's."""
    file, digest = checkout / ".ci" / "pulumi.sha256", hashlib.sha256(archive_of_pulumi()).hexdigest()
    file.write_text(re.sub(r"^\w+", digest, file.read_text(), flags=re.MULTILINE))


@dataclass(frozen=True)
class Origin:
    """The repository on the forge. base, head: of the pull request, whose branch is `branch`."""

    path: Path
    base: str
    head: str


def create_origin(directory: Path, stack: str, before: str, after: str, branch: str) -> Origin:
    """Return a repository with the files of this checkout, and a branch that changes a stack file.

    The other stack files are left out: each takes seconds.
    """
    shutil.copytree(ROOT, directory, ignore=LEFT_OUT, symlinks=True)

    def git(*words: str) -> str:
        done = subprocess.run([*GIT, *words], cwd=directory, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    for other in (directory / "stacks").iterdir():
        if other.name != f"Pulumi.{stack}.yaml":
            other.unlink()
    pin_pulumi(directory)
    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--message=base")
    base = git("rev-parse", "HEAD")
    file = directory / "stacks" / f"Pulumi.{stack}.yaml"
    text = file.read_text()
    assert before in text
    git("switch", "--quiet", "--create", branch)
    file.write_text(text.replace(before, after, 1))
    git("commit", "--quiet", "--all", "--message=head")
    head = git("rev-parse", "HEAD")
    git("switch", "--quiet", "main")
    return Origin(directory, base, head)


@dataclass
class Step:
    """A step that ran. code: its exit code. output: both streams."""

    name: str
    code: int
    output: str


@dataclass
class Computer:
    """What runs a job: a home, a workspace, and programs on PATH.

    variables: of the environment beside those of the job.
    """

    directory: Path
    origin: Origin
    forge: Forge
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        for each in (self.home, self.temporary, self.programs):
            each.mkdir(parents=True, exist_ok=True)
        (self.home / "pulumi.tar.gz").write_bytes(archive_of_pulumi())
        self._program("curl", CURL)
        self._program("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def workspace(self) -> Path:
        return self.directory / "workspace"

    @property
    def temporary(self) -> Path:
        return self.directory / "temporary"

    @property
    def programs(self) -> Path:
        return self.directory / "programs"

    def _program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def variables(self) -> dict[str, str]:
        """Return the environment of a runner, without that of the tests."""
        return {
            "PATH": os.pathsep.join([str(self.programs), os.environ["PATH"]]),
            "HOME": str(self.home),
            "RUNNER_TEMP": str(self.temporary),
            "CI": "true",
            "no_proxy": "*",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def check_out(self, commit: str) -> None:
        """Clone the origin, as actions/checkout does with all history."""
        shutil.rmtree(self.workspace, ignore_errors=True)
        command = ["git", "clone", "--quiet", "--no-hardlinks", str(self.origin.path), str(self.workspace)]
        subprocess.run(command, check=True, capture_output=True)
        subprocess.run(["git", "checkout", "--quiet", "--detach", commit], cwd=self.workspace, check=True, capture_output=True)
        # The environment of the tests stands in for the one that the launcher would make.
        (self.workspace / ".venv" / "bin").mkdir(parents=True)
        python = self.workspace / ".venv" / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        (self.workspace / ".venv" / ".complete").write_text(venv.recipe())

    def call(self, name: str, shell: Sequence[str], text: str, environment: Mapping[str, str]) -> Step:
        """Run a script of a workflow as a runner does: from a file."""
        script = self.temporary / f"{len(self.steps)}.sh"
        script.write_text(text)
        done = subprocess.run(
            [*shell, str(script)],
            cwd=self.workspace,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.steps.append(Step(name, done.returncode, done.stdout))
        return self.steps[-1]

    def archive(self, path: str) -> bytes | None:
        """Return files of the workspace as an artefact; None where there are none."""
        files = [file for file in sorted((self.workspace / path).rglob("*")) if file.is_file()]
        if not files:
            return None
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as opened:
            for file in files:
                opened.write(file, file.relative_to(self.workspace / path))
        return buffer.getvalue()

    def log(self, name: str) -> str:
        """Return what a program that stands in for another one was called with."""
        path = self.home / f"{name}.log"
        return path.read_text() if path.exists() else ""


@dataclass
class Job:
    """A job of a workflow of GitHub.

    event: its name and its payload. vars, secrets: of the repository and the environment.
    sha: the commit that GitHub names for the event.
    """

    computer: Computer
    workflow: str
    name: str
    event: tuple[str, Mapping[str, Any]]
    vars: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    sha: str = ""
    matrix: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        document = load(WORKFLOWS / self.workflow)
        self.defaults = document["defaults"]["run"]
        self.definition = document["jobs"][self.name]
        self.failed = False
        self.more: dict[str, str] = {}
        environment = self.computer.forge.environment("github")
        self.token = environment.pop("GITHUB_TOKEN")
        self.environment = environment

    def is_started(self) -> bool:
        """Return whether the job's condition holds."""
        return bool(self._value(self.definition.get("if", "true")))

    def stacks(self) -> list[str]:
        """Return the values of its matrix."""
        values = self._value(self.definition["strategy"]["matrix"]["stack"])
        assert isinstance(values, list)
        return values

    def run(self) -> bool:
        """Run the job; return whether it succeeded."""
        assert self.is_started()
        self.computer.forge.world.permissions = self.definition["permissions"]
        for step in self.definition["steps"]:
            condition = str(step.get("if", "success()"))
            if not re.search(r"\b(success|always|cancelled|failure)\(", condition):
                condition = f"success() && ({condition.removeprefix('${{').removesuffix('}}')})"
            if self._value(condition):
                self._step(step)
        return not self.failed

    def _step(self, step: Mapping[str, Any]) -> None:
        if "run" in step:
            self._run(step)
            return
        inputs = {key: self._text(value) for key, value in step.get("with", {}).items()}
        getattr(self, "_" + re.sub(r"\W", "_", step["uses"].partition("@")[0]))(inputs)

    def _run(self, step: Mapping[str, Any]) -> None:
        files = {name: self.computer.temporary / name for name in ("GITHUB_ENV", "GITHUB_PATH")}
        for file in files.values():
            file.write_text("")
        event = self.computer.temporary / "event.json"
        event.write_text(json.dumps(self.event[1]))
        environment = {
            **self.computer.variables(),
            **self.environment,
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": self.event[0],
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_SHA": self.sha,
            **{name: str(file) for name, file in files.items()},
            **{key: self._text(value) for key, value in self.definition.get("env", {}).items()},
            **self.more,
            **{key: self._text(value) for key, value in step.get("env", {}).items()},
        }
        done = self.computer.call(step["name"], SHELLS[self.defaults["shell"]], step["run"], environment)
        self.failed = self.failed or done.code != 0
        for line in files["GITHUB_ENV"].read_text().splitlines():
            name, _, value = line.partition("=")
            self.more[name] = value
        for line in files["GITHUB_PATH"].read_text().splitlines():
            self.more["PATH"] = os.pathsep.join([line, self.more.get("PATH", self.computer.variables()["PATH"])])

    def _actions_checkout(self, inputs: Mapping[str, str]) -> None:
        assert inputs["persist-credentials"] == "false"
        self.computer.check_out(inputs.get("ref", self.sha))

    def _actions_setup_python(self, inputs: Mapping[str, str]) -> None:
        assert set(inputs) == {"python-version"}

    def _actions_upload_artifact(self, inputs: Mapping[str, str]) -> None:
        content = self.computer.archive(inputs["path"])
        if content:
            self.computer.forge.world.archives[inputs["name"]] = content

    def _google_github_actions_auth(self, inputs: Mapping[str, str]) -> None:
        assert set(inputs) == {"workload_identity_provider", "service_account"}
        assert self.definition["permissions"]["id-token"] == "write"
        self.more["GOOGLE_APPLICATION_CREDENTIALS"] = str(self.computer.temporary / "google.json")

    def _value(self, text: str) -> Any:
        match = re.fullmatch(r"\s*(?:\$\{\{)?(.*?)(?:\}\})?\s*", str(text), re.DOTALL)
        assert match
        return Expression(match[1], self._contexts(), self.failed).value()

    def _text(self, text: object) -> str:
        if isinstance(text, bool):
            return str(text).lower()
        values = self._contexts()
        return re.sub(r"\$\{\{(.*?)\}\}", lambda match: _shown(Expression(match[1], values, self.failed).value()), str(text))

    def _contexts(self) -> dict[str, Any]:
        github = {"event": self.event[1], "repository": REPOSITORY, "sha": self.sha, "token": self.token}
        return {"github": github, "vars": self.vars, "secrets": self.secrets, "matrix": self.matrix}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


class Expression:
    """An expression of a workflow. failed: whether an earlier step failed."""

    TOKEN = re.compile(r"\s*('(?:[^']|'')*'|\d+|[\w.-]+|\|\||&&|==|!=|[!(),])")

    def __init__(self, text: str, contexts: Mapping[str, Any], failed: bool) -> None:
        self._tokens, self._contexts, self._failed = list(self._split(text)), contexts, failed

    def _split(self, text: str) -> Iterator[str]:
        text = text.strip()
        while text:
            match = self.TOKEN.match(text)
            assert match, text
            yield match[1]
            text = text[match.end() :].strip()

    def value(self) -> Any:
        """Return its value."""
        value = self._or()
        assert not self._tokens, self._tokens
        return value

    def _take(self, *tokens: str) -> str | None:
        return self._tokens.pop(0) if self._tokens and self._tokens[0] in tokens else None

    def _or(self) -> Any:
        value = self._and()
        while self._take("||"):
            other = self._and()
            value = value or other
        return value

    def _and(self) -> Any:
        value = self._equal()
        while self._take("&&"):
            other = self._equal()
            value = value and other
        return value

    def _equal(self) -> Any:
        value = self._unary()
        while operator := self._take("==", "!="):
            other = self._unary()
            value = (("" if value is None else value) == ("" if other is None else other)) == (operator == "==")
        return value

    def _unary(self) -> Any:
        value: Any
        if self._take("!"):
            return not self._unary()
        if self._take("("):
            value = self._or()
            assert self._take(")")
            return value
        token = self._tokens.pop(0)
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if self._take("("):
            return self._call(token)
        if token in ("true", "false"):
            return token == "true"
        value = self._contexts
        for key in token.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def _call(self, name: str) -> Any:
        arguments = []
        while not self._take(")"):
            arguments.append(self._or())
            self._take(",")
        match name:
            case "contains":
                return arguments[1] in arguments[0]
            case "fromJSON":
                return json.loads(arguments[0])
            case "cancelled":
                return False
            case "success":
                return not self._failed
        raise AssertionError(f"no function {name}")


@cache
def gitlab() -> dict[str, Any]:
    """Return the pipeline file of GitLab, with `extends` and `default` filled in."""
    document = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())

    def resolved(name: str) -> dict[str, Any]:
        job = document[name]
        parent = resolved(job["extends"]) if "extends" in job else dict(document["default"])
        merged = {**parent, **{key: value for key, value in job.items() if key != "extends"}}
        merged["variables"] = {**parent.get("variables", {}), **job.get("variables", {})}
        return merged

    names = [name for name, value in document.items() if isinstance(value, dict) and not name.startswith(".") and name != "default"]
    return {name: resolved(name) for name in names}


def run_gitlab(computer: Computer, name: str, commit: str, variables: Mapping[str, str]) -> bool:
    """Run a job of GitLab; return whether it succeeded. All lines are of one shell."""
    job = gitlab()[name]
    computer.check_out(commit)
    environment = {
        **computer.variables(),
        "CI_PROJECT_DIR": str(computer.workspace),
        "CI_PROJECT_ID": str(REPOSITORY_ID),
        "CI_DEFAULT_BRANCH": "main",
        **{key: str(value) for key, value in job["variables"].items()},
        **variables,
    }
    lines = "\n".join([*job.get("before_script", ()), *job["script"]])
    done = computer.call(name, ["bash", "--noprofile", "--norc"], f"set -eo pipefail\n{lines}\n", environment)
    for path in job.get("artifacts", {}).get("paths", ()):
        content = computer.archive(path)
        if content:
            computer.forge.world.archives[name.removeprefix("plan:")] = content
    return done.code == 0
