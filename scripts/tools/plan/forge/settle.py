"""Keep one text per key on a forge, although several runs write at the same time.

Forges have no conditional writes. So a run writes, looks again, and is done when what is there is
what is to be there. Where two runs created a text each, the oldest stays, and both see which one
that is. A write that failed is not repeated as it is either: it may have been carried out, and
another run may have written meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from .client import Client
from .errors import AbsentError, BusyError, ForgeError
from .marker import Marker, parse

MOST_ROUNDS = 20


@dataclass(frozen=True)
class Account:
    """Who the token is of. number: the account's id. login: its name."""

    number: int
    login: str


@dataclass(frozen=True)
class Item:
    """A comment or an open issue. number: ascending by age."""

    number: int
    author: Account
    body: str

    @property
    def marker(self) -> Marker | None:
        """What it is about."""
        return parse(self.body)


class Thread(Protocol):
    """Where items are: the comments of a pull request, or the open issues of a repository."""

    def items(self) -> list[Item]:
        """Return all items."""

    def create(self, body: str) -> Item:
        """Create an item."""

    def edit(self, number: int, body: str) -> None:
        """Replace an item's text. Raises AbsentError."""

    def remove(self, number: int) -> None:
        """Delete a comment, or close an issue. Raises AbsentError."""


class Keep:
    """A decision: leave what is there."""


class Remove:
    """A decision: nothing is to be there."""


Decision = Keep | Remove | str
"""What is to be there: a text with its marker, or one of the above."""


def mine(thread: Thread, account: Account) -> list[Item]:
    """Return the items of this program, the oldest first."""
    items = [item for item in thread.items() if item.marker and _is_by(item, account)]
    return sorted(items, key=lambda item: item.number)


def _is_by(item: Item, account: Account) -> bool:
    return item.author.number == account.number or item.author.login == account.login


@dataclass
class Settler:
    """Keeps one text per key in a thread."""

    client: Client
    thread: Thread
    account: Account

    def settle(self, key: tuple[str, str], decide: Callable[[Item | None], Decision]) -> str:
        """Bring about what `decide` returns for what is there; return what was done, as a text.

        decide: is called again before each write, because another run may have written.
        """
        created: Item | None = None
        done, patience = "left as it is", self.client.patience()
        for _ in range(MOST_ROUNDS):
            try:
                oldest = self._oldest(key, created)
                decision = decide(oldest)
                if isinstance(decision, Keep) or (oldest is None and isinstance(decision, Remove)):
                    return done
                if isinstance(decision, Remove):
                    self._remove(oldest)
                    return "removed"
                if oldest is None:
                    created, done = self.thread.create(decision), "created"
                    continue
                if oldest.marker == parse(decision):
                    return done
                done = "created" if created and created.number == oldest.number else "edited"
                if not self._edit(oldest, decision):
                    created = None
            except BusyError as busy:
                patience.wait(busy)
        raise ForgeError(f"other runs keep writing about {key[1]}: {MOST_ROUNDS} attempts")

    def _oldest(self, key: tuple[str, str], created: Item | None) -> Item | None:
        """Return the oldest item of a key, and remove the others.

        created: what this run created. It counts although a list may lag behind, because another
        item would be created for it.
        """
        items = [
            item
            for item in mine(self.thread, self.account)
            if item.marker and item.marker.key == key
        ]
        if created and created.number not in {item.number for item in items}:
            items = sorted([*items, created], key=lambda item: item.number)
        for extra in items[1:]:
            self._remove(extra)
        return items[0] if items else None

    def _edit(self, item: Item, body: str) -> bool:
        """Replace an item's text; return whether it was there."""
        try:
            self.thread.edit(item.number, body)
        except AbsentError:
            return False
        return True

    def _remove(self, item: Item | None) -> None:
        if item is None:
            return
        with suppress(AbsentError):  # another run removed it
            self.thread.remove(item.number)
