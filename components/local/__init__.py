"""What runs beside Pulumi, on the operator's computer: the runner of scripts and their helpers.

The scripts lie with their concept (`machines/scripts/drain.py`); components start them by
`commands.local_command`. Scripts and helpers need Python 3.9 and its standard library
alone. `python3` on PATH runs them, on macOS and on any Linux, outside of the project's environment.
A script is a module with

- `Payload`: a frozen dataclass, what it reads from standard input as JSON;
- `run(payload)`: the work; returns a frozen dataclass, which is printed as JSON, or None;
- errors: `scripting.Failed`, one sentence, which goes to standard error with exit status 1.
"""
