"""What the scripts have in common: look at the machine, make the virtual environment, and run a module of this directory in it.

Standard library only, and words that any Python 3 understands: telling an old one apart is what it is for.
"""

import os
import sys


def run(module):  # type: (str) -> None
    """Replace this process by `python -m <module>` in the virtual environment, with the same arguments. Prints usage, obstacles and errors itself."""
    script = "./scripts/" + os.path.basename(sys.argv[0])
    if sys.version_info < (3, 11):  # noqa: UP036
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"{script} needs Python 3.11 or newer, python3 is {found}: install it (Debian 12: apt-get install python3)")

    from lab import cli, preflight, steps, venv

    options = vars(cli.PARSERS[module]().parse_args())
    obstacles = preflight.obstacles() if options["needs_lab"] else []
    if obstacles:
        print("This machine cannot run the lab:", *obstacles, sep="\n- ", file=sys.stderr)
        sys.exit(cli.UNFIT)
    try:
        python = str(venv.ensure(steps.Display(sys.stderr) if options.get("json") else None))
    except steps.StepFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(options.get("failed", cli.FAILED))
    except KeyboardInterrupt:
        print("Interrupted. The same command continues.", file=sys.stderr)
        sys.exit(cli.INTERRUPTED)
    packages = os.path.dirname(os.path.realpath(__file__))
    path = os.pathsep.join([packages, os.path.dirname(os.path.dirname(packages))])  # the checkout too, for the package `components`
    os.execve(python, [python, "-m", module, *sys.argv[1:]], {**os.environ, "PYTHONPATH": path})
