"""Show text that is not trusted: from stack files, clusters, clouds and other people's artefacts.

Every text of a `Plan` goes through one of these functions before it is printed.
Sources:

- CommonMark 0.31: "Code spans", "Fenced code blocks"
- GitHub's filters, which do not change code
- actions/runner: `ActionCommand`, "::" at the start of a line, "##[" anywhere in it
- Mermaid: "Entity codes to escape characters"
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

NAME, LINE = 100, 300
"""Characters that are shown of a name, and of a line of other text."""
LABEL = 40
"""Characters that are shown of a name in a diagram."""

_TAIL = 20
"""Characters that are shown of the end of a text that is cut."""

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that are not seen, or that change how others are seen."""

# Characters of other categories that look like nothing (Unicode: Default_Ignorable_Code_Point).
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_MARKS = 2
"""Combining marks that are shown on one character; more would cover the lines around."""


def clean(text: str, limit: int = NAME) -> str:
    """Return `text` as one line in which every character is seen, of at most `limit` characters.

    Control, bidirectional, zero-width, blank and unassigned characters are shown as in Python's
    literals: `\\n`, `\\u202e`. A longer text is cut before its end, where an ellipsis stands.
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    # Cut once before, so that the work is bounded, and once after, because escapes are longer.
    marks, shown = 0, []
    for character in _cut(
        unicodedata.normalize("NFC", text[: 8 * limit] + text[8 * limit :][-limit:]), limit
    ):
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        shown.append(_escape(character) if marks > _MARKS or _is_hidden(character) else character)
    return _cut("".join(shown), limit)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = min(_TAIL, limit // 3)
    return f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    space = category == "Zs" and character != " "
    return category in _HIDDEN or space or _BLANK.match(character) is not None


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def code_span(text: str, limit: int = NAME) -> str:
    """Return `text` as a code span of Markdown: no mention, link, HTML or formatting is seen in it.

    Its delimiters are longer than each run of backticks in the text.
    """
    shown = clean(text, limit)
    if not shown.strip():
        return "`(blank)`" if shown else "`(empty)`"
    fence = "`" * (_longest_run(shown) + 1)
    # One space is taken from both ends; backticks at an end would join the delimiter.
    pad = " " if shown[0] in " `" or shown[-1] in " `" else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def code_block(lines: Sequence[str]) -> tuple[str, list[str], str]:
    """Return the first line, the lines and the last line of a fenced code block of Markdown.

    lines: each is cleaned, cut to `LINE` characters and indented, so that none begins with what
    GitLab takes for a quick action (`/close`).
    """
    shown = [f"  {clean(line, LINE)}" for line in lines]
    fence = "`" * max(3, 1 + max(map(_longest_run, shown), default=0))
    return fence, shown, fence


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def log_line(line: str) -> str:
    """Return a line of a log without the commands that runners of workflows read in logs.

    `::` at its start is not a command of GitHub's runner any more, nor is `##[` anywhere in it, nor
    is `##vso[` of Azure's. Colours may come before.
    """
    line = re.sub(r"^((?:\s|\x1b\[[0-9;]*m)*):(?=:)", r"\1: ", line)
    return re.sub(r"#(?=#\w*\[)", "# ", line)


def mermaid_label(text: str) -> str:
    """Return `text` for a label of Mermaid within quotes.

    All characters but letters, digits, spaces and `-_.,/:()` are entity codes (`#35;`): quotes,
    brackets, HTML, comments and directives (`%%{`) have no meaning.
    """
    shown = clean(text, LABEL)
    plain = re.compile(r"[\w \-.,/:()…]")
    return "".join(each if plain.match(each) else f"#{ord(each)};" for each in shown)
