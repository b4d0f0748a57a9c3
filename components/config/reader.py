"""Decode and check a stack file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .checks import check
from .decode import decode, key_of
from .problems import Problem, SettingsError, suggestion
from .stack import Settings

# Secrets of a stack, each a key of its own in the configuration (`pulumi config set --secret`).
SECRETS = frozenset({"kubeconfig", "sshPrivateKey"})


def load(raw: Mapping[str, Any], secrets: Collection[str] = ()) -> Settings:
    """Decode and check a stack's configuration (keys without the project's name, values as plain data).

    `secrets` names the secrets of `SECRETS` that are set; their values stay where they are.

    Raises SettingsError with every problem that was found. Checks that reach across run only on what could be decoded.
    """
    problems: list[Problem] = []
    known = {key_of(name): name for name in Settings.__dataclass_fields__}
    problems.extend(Problem(key, "unknown key" + suggestion(key, known)) for key in raw if key not in known)
    settings = decode(Settings, {key: value for key, value in raw.items() if key in known}, "", problems)
    problems = [Problem(problem.path.removeprefix("."), problem.message) for problem in problems]
    if settings is not None:
        problems.extend(check(settings, secrets))
    if problems:
        raise SettingsError(problems)
    return settings
