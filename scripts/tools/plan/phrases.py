"""Sentences whose words are ours and whose values are not.

`phrase("{} leaves {}", name, network)` keeps the values apart from the words until a renderer
quotes them in its own way. So no text of a stack file can be part of the words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .untrusted import LINE, NAME

SHOWN = 8
"""Names that a sentence lists; the others are counted."""


@dataclass(frozen=True)
class Value:
    """A text that is not trusted, of which at most `limit` characters are shown."""

    text: str
    limit: int = NAME


@dataclass(frozen=True)
class Phrase:
    """A sentence, or a part of one. parts: trusted words, and values."""

    parts: tuple[str | Value, ...]

    def render(self, quote: Callable[[str, int], str]) -> str:
        """Return the text. quote: a function of `untrusted` with text and limit, for values."""
        return "".join(
            quote(each.text, each.limit) if isinstance(each, Value) else each for each in self.parts
        )

    def __bool__(self) -> bool:
        return bool(self.parts)


def phrase(template: str, *values: str | int | float | Phrase) -> Phrase:
    """Return `template` with a value in place of each `{}`.

    template: a constant of the program. values: texts, which are not trusted; numbers; phrases.
    Raises ValueError where their numbers differ.
    """
    words = template.split("{}")
    if len(words) != len(values) + 1:
        raise ValueError(f"{template!r} takes {len(words) - 1} values, not {len(values)}")
    parts: list[str | Value] = [words[0]]
    for value, word in zip(values, words[1:], strict=True):
        parts += [*_parts(value), word]
    return Phrase(tuple(each for each in parts if each))


def _parts(value: str | int | float | Phrase) -> Sequence[str | Value]:
    match value:
        case Phrase(parts=parts):
            return parts
        case str():
            # Also of an enumeration: a word for it is looked up, not printed.
            return (Value(str(value)),)
        case float():
            return (f"{value:,.0f}",)
        case _:
            return (f"{value:,}",)


def long_text(text: str) -> Phrase:
    """Return a text that is not trusted and may be longer than a name: a sentence, a reason."""
    return Phrase((Value(text, LINE),))


def joined(parts: Iterable[Phrase], separator: str = ", ") -> Phrase:
    """Return phrases after each other. separator: trusted."""
    result: list[str | Value] = []
    for each in parts:
        result += [*([separator] if result else []), *each.parts]
    return Phrase(tuple(result))


def listed(names: Sequence[str], shown: int = SHOWN) -> Phrase:
    """Return names in a list: "a, b and 3 more"."""
    first = joined(phrase("{}", name) for name in names[:shown])
    return phrase("{} and {} more", first, len(names) - shown) if len(names) > shown else first


def counted(number: int, one: str, many: str = "") -> Phrase:
    """Return a number with its noun. one, many: trusted; default: `one` with an s."""
    return phrase(f"{{}} {one if number == 1 else many or f'{one}s'}", number)
