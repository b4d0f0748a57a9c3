"""`python -m tools.lab`, started by `./scripts/lab` in the virtual environment: runs one command
and turns what went wrong into an exit code.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from tools import FAILED, INTERRUPTED, OK, steps
from tools.steps import StepError, StepFailedError, quiet

from . import cli, paths

if TYPE_CHECKING:
    from .offline.programs import Publishers


def main() -> int:
    os.environ.pop("PYTHONPATH", None)  # the launcher's; it is not meant for the programs that are called from here
    arguments = cli.parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    try:
        match arguments.command:
            case "up":
                from . import up

                up.run(arguments.stack, _publishers(arguments.sources))
            case "down":
                from . import down

                down.run(arguments.stack, arguments.purge)
            case "tools":
                _tools(arguments.names, _publishers(arguments.sources))
            case "env":
                _env()
            case "logs":
                return _logs(arguments.step)
    except StepFailedError as error:
        print(error, file=sys.stderr)
        return FAILED
    except StepError as error:
        print(": ".join(filter(None, [error.cause, error.hint])), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        of = cli.stack_option(getattr(arguments, "stack", paths.STACK))
        others = f" or ./scripts/lab down{of} to remove what there is" if arguments.command == "up" else ""
        print(f"\nInterrupted. What is done is kept: run ./scripts/lab {arguments.command}{of} to continue{others}.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as in `lab logs 3 | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _publishers(sources: str) -> Publishers | None:
    from .official.sources import Sources

    return None if sources == cli.OFFLINE else Sources(required=sources == cli.OFFICIAL)


def _tools(names: list[str], publishers: Publishers | None) -> None:
    from .offline.programs import DIRECTORIES, PROGRAMS, Tools

    tools = Tools(publishers)
    if not names:
        table(["tool", "version", "from"], [*tools.listing(), *_surroundings()])
        return
    if unknown := [name for name in names if name not in PROGRAMS | DIRECTORIES and name != "envoy"]:
        raise StepError(f"no such tool: {', '.join(unknown)} (`./scripts/lab tools` lists them)")
    step = quiet("tools", steps.LOGS / "tools.log")
    for name in names:
        tool = tools.envoy(step) if name == "envoy" else tools.program(step, name) if name in PROGRAMS else tools.directory(step, name)
        print(tool.path)


def _surroundings() -> list[tuple[str, str, str]]:
    """What is no program or file of the lab's, but used by it: engine, images, plugins."""
    from . import engine, plugins
    from .offline import images

    answering = engine.find()
    origin = "not running" if answering is None else "Debian docker.io, started by the lab" if answering.host else "the machine's"
    rows = [("Docker engine", answering.docker("version", "--format", "{{.Server.Version}}") if answering else "-", origin)]
    for name, what in images.listing(answering):
        image, _, tag = name.rpartition(":")
        rows.append((image, tag, f"image, {what}"))
    for name, what in plugins.installed().items():
        rows.append((f"Pulumi {name}", "-", "not installed before the first `up`" if what == "missing" else what))
    return rows


def table(head: list[str], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table with columns as wide as needed."""
    lines = [tuple(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _env() -> None:
    first = shlex.quote(f"{paths.BIN}:{paths.VENV}/bin")
    print(f'export PATH={first}:"$PATH"')
    for name, value in paths.pulumi_env().items():
        print(f"export {name}={shlex.quote(value)}")
    print(f"unset {' '.join(paths.UNSET)}")


def _logs(wanted: str | None) -> int:
    logs = sorted(steps.LOGS.glob("*.log"), key=lambda log: log.stat().st_mtime)
    if wanted is None:
        for log in logs:
            print(log.relative_to(paths.ROOT))
        if not logs:
            print("no logs yet: `./scripts/lab up` writes them", file=sys.stderr)
        return OK
    part = f"{int(wanted):02d}-" if wanted.isdigit() else wanted
    if not (matching := [log for log in logs if part in log.name]):
        print(f"no step {wanted} has a log: `./scripts/lab logs` lists those that there are", file=sys.stderr)
        return FAILED
    sys.stdout.write(matching[-1].read_text(errors="replace"))
    return OK


if __name__ == "__main__":
    sys.exit(main())
