"""Pulumi's plugins: the official ones where this machine has them, else the stand-ins.

Nothing else imports these.
"""

from __future__ import annotations

from pathlib import Path

from tools.standins import install
from tools.steps import Step

from . import paths
from .offline.programs import Tools


def ensure(step: Step, tools: Tools, binaries: Path = paths.BIN, home: Path = paths.HOME) -> dict[str, str]:
    """Install the plugins for a CLI; returns what `installed` returns.

    binaries: has the CLI. home: its PULUMI_HOME. What is not there at all comes from its publisher,
    and everything does if that is required.
    """
    homes = []
    if publishers := tools.publishers:
        wanted = install.absent(home, standins=publishers.required)
        homes = [plugin for name, version in wanted.items() if (plugin := publishers.plugin(step, name, version))]
    return install.install(binaries, home, lambda: tools.directory(step, "pulumi-python").path, homes)


def replace_by_inert(home: Path, answers: Path, log: Path) -> None:
    """Put providers into a PULUMI_HOME that create nothing: they log, and answer from a file.

    answers: outputs by the name or the type of a resource, as JSON. log: names the operations.
    """
    install.install_inert(home, answers, log)


def installed() -> dict[str, str]:
    """Return "official <version>", "stand-in" or "missing" for the language host and each
    provider.
    """
    return install.in_use(paths.BIN, paths.HOME)
