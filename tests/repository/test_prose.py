"""The rules of docs/style.md for sentences, as far as they can be checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from tests.support import prose
from tools import ROOT

MOST_WORDS = 25
MOST_COLUMNS = 100
REFUSED = re.compile(r"\b(whoever|somebody|nobody|theirs|anew|dial(?:s|led|ling)?|ought|shall|asks|tells|knows|says)\b", re.IGNORECASE)
"""Words for persons that do what software does, and words in place of the field's (docs/style.md)."""
EXCEPTED = re.compile(r"dial tcp")
"""What other programs print."""
GENERATED = {"acceptance.md", "costs.md", "plan.md", "settings.md"}
"""Pages that programs write, or parts of them. Their lines may be longer."""


@cache
def sentences() -> Sequence[prose.Sentence]:
    return tuple(prose.of_repository())


def test_sentences_are_short() -> None:
    long = [f"{each.place}: {each.words} words: {each.text}" for each in sentences() if each.words > MOST_WORDS]
    assert not long, f"say it in sentences of at most {MOST_WORDS} words"


def test_software_is_no_person() -> None:
    refused = [
        f"{each.place}: {match[0]}: {each.text}"
        for each in sentences()
        if not each.place.startswith(("tests/", "docs/style.md"))
        if (match := REFUSED.search(EXCEPTED.sub("", each.text)))
    ]
    assert not refused, "name what happens, in the words of the field"


def test_lines_of_documents_are_short() -> None:
    long = []
    for file in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))):
        if file.name in GENERATED:
            continue
        text = re.sub(r"```.*?```", lambda block: "\n" * block[0].count("\n"), file.read_text(), flags=re.DOTALL)
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > MOST_COLUMNS and " " in line.strip() and not line.lstrip().startswith(("|", "![")):
                long.append(f"{file.relative_to(ROOT)}:{number}: {len(line)} columns")
    assert not long, f"wrap at {MOST_COLUMNS} columns"


def words_of(text: str, kind: str = "document") -> list[str]:
    """Return the sentences that are seen in a text of a kind."""
    match kind:
        case "document":
            found_sentences = prose.of_document("x", text)
        case "python":
            found_sentences = prose.of_python("x", text, with_messages=True)
        case _:
            found_sentences = prose.of_shell("x", text)
    return [each.text for each in found_sentences]


def test_every_kind_of_text_is_seen() -> None:
    document = "# A title\n\nOne. Two\nlines.\n- an item\n- `code` in [a link](x)\n\n```sh\nnot this\n```\n| a cell | half; other half |\n"
    assert words_of(document) == ["A title", "One.", "Two lines.", "an item", "`…` in a link", "a cell", "half", "other half"]
    python = (
        '"""A docstring.\n\nname: a field.\n    It goes on.\n"""\n# A comment\n# of two lines.\n\nraise X(f"a {b} message" " in parts")\n'
    )
    assert words_of(python, "python") == [
        *("A docstring.", "name: a field.", "It goes on."),
        *("A comment of two lines.", "a `…` message in parts"),
    ]
    shell = "#!/bin/sh\n# A comment\n# of two lines.\necho not this # and not that\n"
    assert words_of(shell, "shell") == ["A comment of two lines."]


def test_code_and_values_are_one_word() -> None:
    [each] = prose.sentences("x", "run `./scripts/lab up --stack lab` - and see")
    assert each.words == 4
