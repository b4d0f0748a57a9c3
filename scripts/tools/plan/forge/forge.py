"""What this program needs of a forge. One class for each forge has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from .client import Client
from .settle import Account, Thread

MOST_ARCHIVE_BYTES = 20_000_000
"""Bytes of an artefact's archive."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that computes plans of a pull request, as the forge names it.

    pull: the pull request's number. head: the commit that the run is of.
    fork: whether the commit is of another repository, whose code computed the plans.
    run: the run's number. project: of the repository in which it ran, on GitLab.
    url: of the run's page. done: whether the run has ended.
    """

    pull: int
    head: str
    fork: bool
    run: int
    project: int = 0
    url: str
    done: bool = True


class Forge(Protocol):
    """A repository on a forge.

    word: what a pull request is called there, before its number.
    """

    client: Client
    word: str

    def account(self) -> Account:
        """Return who the token is of."""

    def runs(self) -> list[Run]:
        """Return the runs that this program was started for; none if there is nothing to post."""

    def head(self, pull: int) -> str:
        """Return the commit that a pull request is at now."""

    def archives(self, run: Run) -> Iterator[bytes]:
        """Yield the run's artefacts with plans, as zip archives."""

    def reviewed(self, stack: str) -> Iterator[Run]:
        """Yield the runs that computed a stack's plan for what was merged, the newest first.

        The merged commit is the one that this program was started for.
        """

    def comments(self, pull: int) -> Thread:
        """Return the comments of a pull request."""

    def issues(self, title: str) -> Thread:
        """Return the open issues; those that are created get this title."""
