"""No text of a stack file, a cluster or a fork does anything where a plan is shown, but being read."""

from __future__ import annotations

import io
import random
import re
import unicodedata
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from tests.support.tiers import some_quick
from tests.unit.tools.plan.plans import HOSTILE, MARK, hostile
from tools.plan import mermaid, render_json, render_markdown, render_text
from tools.plan.model import Verdict
from tools.plan.untrusted import NAME, clean, code_block, code_span, log_line

FOLD = re.compile(
    r"<details><summary>(All resources: [a-z0-9, ]+|Differences)</summary>|</details>"
)
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def mixtures() -> list[str]:
    """Return texts of random pieces of the hostile ones, the same in every run."""
    chance = random.Random(12)
    pieces = [piece for text in HOSTILE for piece in re.split(r"(\W+)", text[:200]) if piece]
    return [MARK.join(chance.choices(pieces, k=chance.randint(2, 12))) for _ in range(40)]


TEXTS = [*HOSTILE, *(pytest.param(text, marks=pytest.mark.slow) for text in mixtures())]


def tokens(markdown: str) -> Iterator[Token]:
    """Yield all tokens, those within paragraphs too."""
    for token in MarkdownIt("commonmark").parse(markdown):
        yield token
        yield from token.children or ()


def assert_harmless(markdown: str) -> None:
    """Check that only code holds untrusted text, and that folds open and close in order."""
    folds = []
    for token in tokens(markdown):
        assert token.type not in ("html_inline", "link_open", "image"), token
        if token.type == "html_block":
            assert FOLD.fullmatch(token.content.strip()), token.content
            folds.append(token.content.startswith("</"))
        if token.type == "text":
            assert MARK not in token.content, token.content
            assert not re.search(r"@|#\d|://|www\.", token.content), token.content
    assert folds == [False, True] * (len(folds) // 2)


@pytest.mark.parametrize("text", TEXTS)
def test_a_comment_holds_untrusted_text_as_code_alone(text: str) -> None:
    assert_harmless(render_markdown.text(hostile(text), limit=10**9))


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_harmless(verdict: Verdict) -> None:
    assert_harmless(render_markdown.text(hostile(f"</details>@{MARK}", verdict)))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_line_of_a_comment_is_a_command_of_a_forge(text: str) -> None:
    """GitLab's quick actions begin a line, also one that it takes to be after a code block."""
    lines = render_markdown.text(hostile(text)).splitlines()
    assert [line for line in lines if line.startswith("/")] == []
    assert len([line for line in lines if line.startswith("```")]) % 2 == 0


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("terminal", some_quick([False, True], False))
def test_a_log_holds_no_command_of_a_runner(text: str, terminal: bool) -> None:
    file = io.StringIO()
    console = Console(
        file=file, highlight=False, markup=False, emoji=False, force_terminal=terminal, width=40
    )
    render_text.show(hostile(text), verbose=True, console=console)
    for line in file.getvalue().split("\n"):
        plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
        assert not plain.lstrip().startswith("::"), line
        assert not re.search(r"##\w*\[", plain), line
        assert not {unicodedata.category(each) for each in plain} & HIDDEN, ascii(line)


@pytest.mark.parametrize("text", TEXTS)
def test_a_picture_holds_untrusted_text_as_labels_alone(text: str) -> None:
    label = r'"(?:[\w \-.,/:()…]|#\d+;|<br/>)*"'
    line = re.compile(
        rf"flowchart LR|  subgraph n\d+\[{label}\]|    b\d+\[{label}\]:::(added|changed|removed|same)"
        rf"|  end|  n\d+ (-->|-\.->)\|[\w :]+\| n\d+|  more\[{label}\]:::same|  classDef \w+ [\w:#,-]+"
    )
    assert [each for each in mermaid.picture(hostile(text)) if not line.fullmatch(each)] == []


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_json_is_what_is_read_again(text: str) -> None:
    written = render_json.text(hostile(text))
    assert render_json.text(render_json.read(written.encode())) == written


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_one_short_line_of_characters_that_are_seen(text: str) -> None:
    shown = clean(text)
    assert len(shown) <= NAME
    assert shown.isprintable()


@pytest.mark.parametrize(
    "text", ["billing-1", "10.0.0.0/24", "::1", "Ünï-ж-名前", "a\\b", "x" * NAME]
)
def test_text_that_is_harmless_is_shown_as_it_is(text: str) -> None:
    assert clean(text) == text
    assert code_span(text) == f"`{text}`"


def test_hidden_characters_are_shown_by_their_codes() -> None:
    assert clean("a\u202eb\u200bc\n\td\x1b\xa0\U000e0041") == (
        r"a\u202eb\u200bc\n\td\x1b\xa0\U000e0041"
    )


def test_blank_characters_and_towers_of_marks_are_shown_by_their_codes() -> None:
    assert clean("\u3164\u2800\ufe0f\u115f") == r"\u3164\u2800\ufe0f\u115f"
    assert clean("x" + "\u0323" * 5) == "x\u0323\u0323" + r"\u0323" * 3


def test_long_text_keeps_its_end() -> None:
    assert clean("a" * 200 + "-7", 30) == "a" * 19 + "…" + "a" * 8 + "-7"


@pytest.mark.parametrize("text", ["`", "``", "a`b", "`a", "a`", "a ``` b `", " a", "a ", " ` "])
def test_a_code_span_reads_back_as_its_text(text: str) -> None:
    [paragraph] = [
        each for each in MarkdownIt("commonmark").parse(code_span(text)) if each.children
    ]
    [code] = paragraph.children or []
    assert (code.type, code.content) == ("code_inline", text)


def test_a_code_block_is_longer_than_any_fence_in_it() -> None:
    first, lines, last = code_block(["```", "`````", "</details>", "/close"])
    assert first == last == "``````"
    assert lines == ["  ```", "  `````", "  </details>", "  /close"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("::error::x", ": :error::x"),
        ("  ::error::x", "  : :error::x"),
        ("\x1b[1m::error::x", "\x1b[1m: :error::x"),
        ("address ::1", "address ::1"),
        ("a ##[debug]x", "a # #[debug]x"),
        ("##vso[x]", "# #vso[x]"),
        ("## a heading", "## a heading"),
    ],
)
def test_commands_of_runners_are_taken_apart(line: str, shown: str) -> None:
    assert log_line(line) == shown
