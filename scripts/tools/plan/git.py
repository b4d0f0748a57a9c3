"""What git has of a checkout. Nothing is written into the repository."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tools import ROOT

PROGRAM = ("__main__.py", "Pulumi.yaml", "components", "requirements.txt", "stacks")
"""What a stack follows from."""
SCHEMA = "docs/stack.schema.json"
"""It has the defaults of all settings."""


class GitError(Exception):
    """A command of git failed: one sentence with cause and fix."""


def _call(*words: str, root: Path = ROOT) -> bytes:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is not on PATH, so nothing can be compared: install it") from None
    if b"not a git repository" in done.stderr:
        raise GitError(f"{root} is no clone of a repository, so nothing can be compared")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise GitError(f"`git {words[0]}` failed: {lines[-1] if lines else 'it gave no reason'}")
    return done.stdout


def _line(*words: str) -> str:
    return _call(*words).decode().strip()


def head() -> str:
    """Return the commit of the checkout, with `+` where files of the program differ from it."""
    commit = _line("rev-parse", "HEAD")
    return f"{commit}+" if _line("status", "--porcelain", "--", *PROGRAM) else commit


def default_base() -> str:
    """Return what to compare with: the target of a pull request, else the main branch.

    Raises GitError.
    """
    _require()
    target = os.environ.get("GITHUB_BASE_REF") or os.environ.get(
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME"
    )
    for name in filter(
        None, (target and f"origin/{target}", target, "origin/HEAD", "origin/main", "main")
    ):
        try:
            _line("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        except GitError:
            continue
        return name
    raise GitError(f"there is no branch to compare with: name one with --base{_shallow()}")


def merge_base(reference: str) -> str:
    """Return the commit at which the checkout left `reference`. Raises GitError."""
    _require()
    try:
        commit = _line("rev-parse", "--verify", "--end-of-options", f"{reference}^{{commit}}")
    except GitError:
        problem = f"there is no branch or commit {reference} here: correct --base, or fetch it"
        raise GitError(f"{problem}{_shallow()}") from None
    try:
        return _line("merge-base", commit, "HEAD")
    except GitError:
        raise GitError(f"{reference} and this branch have no common commit{_shallow()}") from None


def _require() -> None:
    """Raise GitError where there is no git, or no repository."""
    _call("rev-parse", "--git-dir")


def _shallow() -> str:
    """Return what may be missing of a clone, for the end of a message."""
    if _line("rev-parse", "--is-shallow-repository") != "true":
        return ""
    fix = "`git fetch --unshallow`; in a job, fetch-depth 0 (GitHub) or GIT_DEPTH 0 (GitLab)"
    return f". The clone is shallow: {fix}"


def extract(commit: str, directory: Path) -> None:
    """Write the program as it was at a commit into an empty directory. Raises GitError."""
    present = [path for path in PROGRAM if exists(commit, path)]
    archive = _call("archive", "--format=tar", commit, "--", *present)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")


def exists(commit: str, path: str) -> bool:
    """Return whether a commit has a path."""
    return bool(_line("ls-tree", "--name-only", commit, "--", path))


def text(commit: str, path: str) -> str:
    """Return the text of a file at a commit, "" where there is none."""
    return (
        _call("show", f"{commit}:{path}").decode(errors="replace") if exists(commit, path) else ""
    )


def changed(commit: str, paths: Sequence[str] = PROGRAM) -> dict[str, str]:
    """Return the paths that differ between a commit and the checkout.

    Returns letters by path: A added, M modified, D deleted; also for files that git does not track.
    """
    fields = (
        _call("diff", "--name-status", "--no-renames", "-z", commit, "--", *paths)
        .decode(errors="replace")
        .split("\0")
    )
    letters = dict(zip(fields[1::2], (letter[:1] for letter in fields[::2]), strict=False))
    untracked = _call("ls-files", "--others", "--exclude-standard", "-z", "--", *paths).decode(
        errors="replace"
    )
    return {**letters, **{path: "A" for path in untracked.split("\0") if path}}
