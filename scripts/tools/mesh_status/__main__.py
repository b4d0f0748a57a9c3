"""`python -m tools.mesh_status`, started by `./scripts/status` in the virtual environment."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from components.local import scripting

from . import assess, cli, pulumi, read, render_json, render_svg, render_table, verify
from .model import Mesh


def main() -> int:
    os.environ.pop("PYTHONPATH", None)  # the launcher's; it is not meant for the programs that are called from here
    arguments = cli.parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in a shell's background
        signal.signal(signal.SIGINT, _interrupt)
    scripting.accept_hangups(_interrupt)
    variables = pulumi.environment()
    try:
        result = verify.run(variables, arguments.stack) if arguments.verify else None
        mesh = assess.mesh(read.facts(variables, arguments.stack), result)
    except pulumi.StackError as error:
        print(error, file=sys.stderr)
        return cli.UNREADABLE
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return cli.INTERRUPTED
    if arguments.svg and not _draw(mesh, arguments.svg):
        return cli.UNREADABLE
    try:
        print(render_json.text(mesh)) if arguments.json else render_table.show(mesh)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    failed = mesh.health != "healthy" or (result and result.error)
    return cli.NOT_HEALTHY if failed else cli.HEALTHY


def _interrupt(*_: object) -> None:
    """End what threads wait for, and the main thread: the interpreter waits for all of them."""
    scripting.end_all()
    raise KeyboardInterrupt


def _draw(mesh: Mesh, file: Path) -> bool:
    try:
        file.write_text(render_svg.draw(mesh))
    except OSError as error:
        print(f"the drawing cannot be written to {file}: {error.strerror}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
