"""Pulumi's plugins: the official ones where this machine has them, else the stand-ins.

Nothing else imports these.
"""

from __future__ import annotations

from tools.standins import install

from . import paths
from .offline.programs import Tools
from .steps import Step


def ensure(step: Step, tools: Tools) -> dict[str, str]:
    """Install the plugins for the CLI in `.lab/bin`; returns what `installed` returns.

    A publisher is asked for what is not there at all, or for everything if it is required.
    """
    homes = []
    if publishers := tools.publishers:
        wanted = install.absent(paths.HOME, standins=publishers.required)
        homes = [home for name, version in wanted.items() if (home := publishers.plugin(step, name, version))]
    return install.install(paths.BIN, paths.HOME, lambda: tools.directory(step, "pulumi-python").path, homes)


def installed() -> dict[str, str]:
    """Return "official <version>", "stand-in" or "missing" for the language host and each
    provider.
    """
    return install.in_use(paths.BIN, paths.HOME)
