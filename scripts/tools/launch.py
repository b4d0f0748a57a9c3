"""Starts a tool: checks the machine, makes the virtual environment, runs the tool's module in it.

Standard library only, and syntax of any Python 3: an old one must get as far as its error message.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING

from tools import FAILED, INTERRUPTED, PYTHONPATH, UNFIT

if TYPE_CHECKING:
    from tools.venv import Install

_LAB = "tools.lab.preflight"
COMMANDS = {
    "lab": ("tools.lab", "tools.lab.cli", _LAB),
    "test": ("tools.devtools.test_runner", "tools.devtools.runner_cli", _LAB),
    "plan": ("tools.plan", "tools.plan.cli", None),
    "status": ("tools.mesh_status", "tools.mesh_status.cli", None),
    "dev": ("tools.devtools.dev", "tools.devtools.dev", _LAB),
    "live-run": ("tools.live_run", "tools.live_run.cli", None),
    "schema": ("tools.devtools.schema", "tools.devtools.schema", _LAB),
    "bench": ("tools.devtools.bench", "tools.devtools.bench.cli", _LAB),
    "mutations": ("tools.devtools.mutate", "tools.devtools.mutate", _LAB),
}
"""The module that each command runs, the module with its `parser()`, and the module that prepares
this machine. The last two need the standard library only.

The commands of operators change nothing on this machine but `.venv`, so they have no third module.
That of the others has `unmet_requirements()` and `install(step, packages)`.

What the parser returns has these fields:
- `needs_lab`: whether this machine must be able to run the lab
- `json`, if there is one: standard output is for data alone
- `failed`, if there is one: the exit code where the environment cannot be made
"""


def run(command):  # type: (str) -> None
    """Replace this process by `python -m <module>` in the virtual environment, same arguments.

    Prints usage, unmet requirements and errors itself.
    """
    if sys.version_info < (3, 11):  # noqa: UP036
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"./scripts/{command} needs Python 3.11 or newer, python3 is {version}: install it (Debian 12: apt-get install python3)")

    module, parser, preparation = COMMANDS[command]
    options = vars(importlib.import_module(parser).parser().parse_args())
    machine = importlib.import_module(preparation) if preparation else None
    if machine and options["needs_lab"]:
        unmet = machine.unmet_requirements()
        if unmet:
            print("This machine cannot run the lab:", *unmet, sep="\n- ", file=sys.stderr)
            sys.exit(UNFIT)
    from tools import venv

    python = str(venv.PYTHON)
    if not venv.complete():
        install = machine.install if machine else None
        _make_environment(install, to_stderr=bool(options.get("json")), failed=options.get("failed", FAILED))
    os.execve(python, [python, "-m", module, *sys.argv[1:]], {**os.environ, "PYTHONPATH": PYTHONPATH})


def _make_environment(install: "Install | None", to_stderr: bool, failed: int) -> None:
    from tools import steps, venv

    try:
        # Plain lines: the live display needs a package of the environment.
        venv.ensure(steps.Display(sys.stderr if to_stderr else sys.stdout), install)
    except steps.StepFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(failed)
    except KeyboardInterrupt:
        print("Interrupted. The same command continues.", file=sys.stderr)
        sys.exit(INTERRUPTED)
