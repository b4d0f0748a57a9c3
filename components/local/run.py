"""Runs one script: `python3 -I components/local/run.py machines/scripts/drain.py delete`.

Standard input is a JSON object with one payload per operation (`create`, `delete`); the second
argument names the operation. The script's path is relative to this package. Where a program gives no
standard input, a third argument is the JSON object; it is no place for secrets.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from pathlib import Path

PACKAGE = "istio_vm_mesh"


def load(script: str) -> types.ModuleType:
    """Import a script of this package as the package's module, so that relative imports work.

    Parents become bare packages: their `__init__.py` may import Pulumi, which `python3` on PATH
    need not have.
    """
    root = Path(__file__).resolve().parent.parent
    parts = Path(script).with_suffix("").parts
    for depth in range(len(parts)):
        name = ".".join([PACKAGE, *parts[:depth]])
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(root.joinpath(*parts[:depth]))]
            sys.modules[name] = package
    return importlib.import_module(".".join([PACKAGE, *parts]))


if __name__ == "__main__":
    load("local/scripting.py").main(load(sys.argv[1]), *sys.argv[2:])
    # Python's own end takes all modules apart first, which is a tenth of a script's processor time.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
