"""Rules that need more than one record of a stack. Importing this package loads nothing else."""

# Type checkers take this name for True; nothing is imported when the package is loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..problems import Problem
    from ..stack import Settings


def check(settings: "Settings") -> "Iterator[Problem]":
    """Yield every problem of a stack whose records are valid."""
    from . import (
        capture,
        docker,
        existing,
        google,
        machines,
        mesh,
        networks,
        rules,
        workloads,
    )

    yield from networks.check(settings)
    yield from docker.check(settings)
    yield from existing.check(settings)
    yield from google.check(settings)
    yield from mesh.check(settings)
    yield from workloads.check(settings)
    yield from machines.check(settings)
    yield from capture.check(settings)
    yield from rules.check(settings)
