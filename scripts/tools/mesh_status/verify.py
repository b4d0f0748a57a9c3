"""Verification on demand.

The commands that verify are resources whose inputs are everything that can change the result. So an
update without changes does not run them. `pulumi up --target-replace` on them alone does, with the
same inputs. They have no `delete` command, so a replacement only runs `create` again. If that
fails, the old resource stays, with the evidence of the last success. If it succeeds, the new
evidence is in the stack's outputs, and the resources have new `modified` times. A change of
`triggers` would do the same, but would have to come from the program. Nothing else changes:
resources that the stack file has changed meanwhile are not targets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rich.console import Console

from . import pulumi, read_state
from .model import Verification


def run(variables: Mapping[str, str], name: str | None) -> Verification:
    """Verify a stack's mesh. Raises StackError where the stack cannot be read, or has nothing that verifies."""
    proofs = read_state.read(variables, name).proofs
    if not proofs:
        raise pulumi.StackError(
            "nothing of this stack is ever verified: `verify` is none in its stack file, or `pulumi up` did not come so far"
        )
    targets = [f"--target-replace={urn}" for urn in proofs]
    which = ["--stack", name] if name else []
    with Console(stderr=True).status("verifying the mesh"):
        code, output = pulumi.update(variables, *which, *targets)
    return Verification(error=cause(output) if code else "")


def cause(output: str) -> str:
    """Return why an update failed, without the lines that Pulumi adds."""
    if "--target" in output:
        return (
            "the stack has changes that are not applied yet, which a verification alone cannot bring: run `pulumi up`, which verifies too"
        )
    lines = [line.strip() for line in pulumi.explanation(output).splitlines()]
    # Neither Pulumi's headings nor the evidence (tab-separated) of endpoints that did answer.
    causes = [line for line in lines if not re.match(r"\S+ \(\S+\):$|error: (Process exited|exit status|update failed)|\w+\t", line)]
    return " ".join(dict.fromkeys(line.removeprefix("error: ") for line in causes or lines))
