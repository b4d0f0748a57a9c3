"""The code behind the commands in `scripts/`.

- `mesh_status`: for operators; it needs neither the lab nor the stand-ins.
- `plan`: for reviewers and pull requests: what an update does; it needs neither of both as well.
- `mock_engine`: runs the program in the tool's process, without an engine.
- `google_model`, `costs`: what Google Cloud does with what a stack declares; what that costs.
- `live_run`: the first live run on Google Cloud, row by row.
- `lab`: the lab; `lab.offline` builds from package registries what the machine does not have.
- `standins`: Pulumi plugins for the lab alone; no other tool than `lab.plugins` imports them.
- `devtools`: test runner, schema and reference pages, benchmark, mutations, newer releases of pins.
- `launch`, `venv`: run a tool in the project's virtual environment.
- `steps`, `process`, `interruption`, `directories`: steps with progress and logs, child processes;
  they need no lab.

Inside one of these packages imports are relative; from one to another they begin with `tools`.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
VENV = ROOT / ".venv"
PYTHONPATH = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])
"""Where Python finds the packages `tools` and `components`; for processes that run a tool."""

OK, FAILED, UNFIT, INTERRUPTED = 0, 1, 3, 130
"""Exit codes besides argparse's 2 for a wrong command line: a step failed, this machine cannot run
the lab, Ctrl-C.
"""
