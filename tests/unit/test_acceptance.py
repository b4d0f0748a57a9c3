"""docs/acceptance.md: every item of the list has a test that exists."""

from __future__ import annotations

import re

from tools import ROOT

ITEMS = {1, 2, 4, 6, 8, 11, 14, 16, 17, 19, 21, 22, *range(26, 31)}


def test_every_item_of_the_acceptance_list_has_a_test() -> None:
    text = (ROOT / "docs" / "acceptance.md").read_text()
    rows = {int(number): row for number, row in re.findall(r"^\| (\d+) \|(.*)\|$", text, re.MULTILINE)}
    assert set(rows) == ITEMS
    previous = ""
    for number, row in sorted(rows.items()):
        named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", row)
        assert named or ("the same test" in row and previous), f"item {number} names no test"
        for file, name in named:
            assert re.search(rf"^ *def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"item {number}: {file} has no {name}"
        previous = row
