"""docs/acceptance.md: every case has a test, and the page is up to date."""

from __future__ import annotations

from tests.support import acceptance_page


def test_the_page_is_what_the_markers_say() -> None:
    assert (acceptance_page.ROOT / "docs" / "acceptance.md").read_text() == acceptance_page.page(), f"run {acceptance_page.COMMAND}"
