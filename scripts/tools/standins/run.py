"""Runs a plugin from this directory, wherever it is: `python -I run.py command`.

The plugins are one package, and their relative imports need it to have a name. This file gives the
directory the name `standins`. It changes neither `sys.path` nor the environment, because the user's
commands inherit the environment of the plugin.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

PACKAGE = "standins"


def main() -> None:
    """Run the module named by the first argument, with the arguments after it."""
    module = f"{PACKAGE}.{sys.argv.pop(1)}"
    directory = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(PACKAGE, directory / "__init__.py", submodule_search_locations=[str(directory)])
    assert spec and spec.loader
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
