"""Pulumi's plugins: the official ones where this machine has them, else the stand-ins.

Nothing else imports these.
"""

from __future__ import annotations

from pathlib import Path

from tools.standins import install

from . import paths


def ensure(sdk: Path) -> dict[str, str]:
    """Install the plugins for the CLI in `.lab/bin`; returns what `installed` returns.

    `sdk` has the two files of the Go module github.com/pulumi/pulumi/sdk/v3 that the language host
    needs.
    """
    return install.install(paths.BIN, paths.HOME, sdk)


def installed() -> dict[str, str]:
    """Return "official <version>", "stand-in" or "missing" for the language host and each
    provider.
    """
    return install.in_use(paths.BIN, paths.HOME)
