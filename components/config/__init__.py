"""Read and check stack files. Importing this package loads no other module of it."""

# Type checkers take this name for True; nothing is imported when the package is loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from .stack import Settings


def load(raw: "Mapping[str, Any]") -> "Settings":
    """Validate a stack's configuration.

    raw: the values by key, without the project's prefix.

    Returns the stack, including the machines of its network gateways.
    Raises SettingsError with every problem.
    """
    from .reader import load

    return load(raw)


def load_file(stack: str, directory: "Path | None" = None) -> "Settings":
    """Read and validate `Pulumi.<stack>.yaml`.

    stack: the stack's name.
    directory: the directory of the stack files; default: `stacks/` of this repository.

    Returns the stack, including the machines of its network gateways.
    Raises SettingsError with every problem, also for a file that does not exist.
    """
    from .reader import STACKS, load_file

    return load_file(stack, directory or STACKS)
