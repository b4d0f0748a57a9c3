"""Starts a tool: checks the machine, makes the virtual environment, runs the tool's module in it.

Standard library only, and syntax of any Python 3: an old one must get as far as its error message.
"""

import importlib
import os
import sys

from tools import FAILED, INTERRUPTED, PYTHONPATH, UNFIT

COMMANDS = {
    "lab": ("tools.lab", "tools.lab.cli"),
    "test": ("tools.devtools.test_runner", "tools.devtools.runner_cli"),
    "plan": ("tools.plan", "tools.plan.cli"),
    "status": ("tools.mesh_status", "tools.mesh_status.cli"),
    "dev": ("tools.devtools.dev", "tools.devtools.dev"),
    "live-run": ("tools.live_run", "tools.live_run.cli"),
    "schema": ("tools.devtools.schema", "tools.devtools.schema"),
    "bench": ("tools.devtools.bench", "tools.devtools.bench.cli"),
    "mutations": ("tools.devtools.mutate", "tools.devtools.mutate"),
}
"""The module that each command runs, and the module with its `parser()` (standard library only).

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

    module, parser = COMMANDS[command]
    options = vars(importlib.import_module(parser).parser().parse_args())
    if options["needs_lab"]:
        from tools.lab import preflight

        unmet = preflight.unmet_requirements()
        if unmet:
            print("This machine cannot run the lab:", *unmet, sep="\n- ", file=sys.stderr)
            sys.exit(UNFIT)
    from tools import venv

    python = str(venv.PYTHON)
    if not venv.complete():
        _make_environment(to_stderr=bool(options.get("json")), failed=options.get("failed", FAILED))
    os.execve(python, [python, "-m", module, *sys.argv[1:]], {**os.environ, "PYTHONPATH": PYTHONPATH})


def _make_environment(to_stderr, failed):  # type: (bool, int) -> None
    from tools import venv
    from tools.lab import steps

    try:
        venv.ensure(steps.Display(sys.stderr) if to_stderr else None)
    except steps.StepFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(failed)
    except KeyboardInterrupt:
        print("Interrupted. The same command continues.", file=sys.stderr)
        sys.exit(INTERRUPTED)
