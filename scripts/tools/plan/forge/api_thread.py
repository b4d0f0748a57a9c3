"""Comments and issues in the API of a forge. Both forges have them alike, but for their words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .client import Client, Json
from .reading import at
from .settle import Item


@dataclass(frozen=True, kw_only=True)
class ApiThread:
    """The items of one list of the API: a `Thread`.

    path: of the list; what is sent there creates an item. query: of the list.
    item_path: of an item, without its number.
    read: returns the item that an answer describes.
    others: the field that is there, and not false, where an entry of the list is something else.
    text: the field of an item's text. fields: further ones of an item that is created.
    edit_method: the method that replaces fields of an item.
    removal: the method by which an item is deleted or closed, and what is sent.
    """

    client: Client
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    item_path: str
    read: Callable[[Json], Item]
    others: str
    text: str = "body"
    fields: Mapping[str, str] = field(default_factory=dict)
    edit_method: str
    removal: tuple[str, Mapping[str, Json]] = ("DELETE", {})

    def items(self) -> list[Item]:
        """Return all items."""
        listed = self.client.pages(self.path, **self.query)
        return [self.read(value) for value in listed if at(value, self.others) in (None, False)]

    def create(self, body: str) -> Item:
        """Create an item."""
        return self.read(self.client.send("POST", self.path, {**self.fields, self.text: body}))

    def edit(self, number: int, body: str) -> None:
        """Replace an item's text."""
        self.client.send(self.edit_method, f"{self.item_path}/{number}", {self.text: body})

    def remove(self, number: int) -> None:
        """Delete a comment, or close an issue."""
        method, body = self.removal
        self.client.send(method, f"{self.item_path}/{number}", body)
