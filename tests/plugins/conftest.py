"""The selection of tests for the official plugins."""

from __future__ import annotations

import pytest

from tests.support.cli_stack import OFFICIAL


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With PLUGINS=official, leave out tests of the stand-ins alone: those marked `standin`, and
    those without a plugin.
    """
    if OFFICIAL:
        selected = [
            item
            for item in items
            if not item.get_closest_marker("standin") and {"commands", "objects", "installed"} & set(getattr(item, "fixturenames", ()))
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in selected])
        items[:] = selected
