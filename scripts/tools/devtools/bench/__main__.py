"""`python -m tools.devtools.bench`, started by `./scripts/bench` in the virtual environment."""

from __future__ import annotations

import json
import os
import signal
import sys

from components.config.problems import SettingsError
from tools.steps import StepError, StepFailedError

from . import cli, preview


def main() -> int:
    arguments = cli.parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        match arguments.command:
            case "one":
                print(json.dumps(preview.measure(arguments.stack, arguments.machines)))
                return cli.GOOD
            case "preview":
                good = preview.show(preview.run(arguments.stack), arguments.stack, arguments.json)
            case "fleet":
                os.environ.pop("PYTHONPATH", None)
                from . import figures, fleet

                good = figures.show(fleet.run(arguments.machines, arguments.json), arguments.json)
            case "scale":
                from . import figures, scale

                good = figures.show(scale.run(arguments.machines, arguments.rounds, arguments.json), arguments.json)
            case _:
                os.environ.pop("PYTHONPATH", None)  # the launcher's; it is not meant for the programs that are called from here
                from . import figures, mesh

                good = figures.show(mesh.run(arguments.machines, arguments.rounds, arguments.json), arguments.json)
    except (StepFailedError, StepError, SettingsError) as error:
        print(error, file=sys.stderr)
        return cli.BAD
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return cli.INTERRUPTED
    return cli.GOOD if good else cli.BAD


if __name__ == "__main__":
    sys.exit(main())
