"""For tests of graphs."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Google's SDK has deprecated classes, and warns of them when its modules are first imported."""
    config.addinivalue_line("filterwarnings", r"ignore:gcp\..* has been deprecated:DeprecationWarning")
