"""Files of Go modules, as the lab gets them: Istio's charts and kinds, those of the Gateway API."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.lab.offline.programs import Tools
from tools.steps import Steps


@cache
def directory(name: str) -> Path:
    """Return the files of a Go module, as the lab uses them."""
    with TemporaryDirectory() as logs, Steps("test", 1, logs=Path(logs), retry_command="the same command").step(f"get {name}") as step:
        return Tools().directory(step, name).path
