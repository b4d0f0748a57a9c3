"""What differs in the program itself."""

from __future__ import annotations

import json
from pathlib import Path

from components.machines.bundle import role_files
from tools import ROOT
from tools.plan import program
from tools.plan.model import Mark, Operation, ProgramChange


def schema(default: object) -> str:
    return json.dumps({"$defs": {"Pods": {"properties": {"replicas": {"default": default}}}}})


def test_a_default_that_differs_is_named_with_both_values() -> None:
    change = ProgramChange(
        what="default", name="Pods.replicas", mark=Mark.CHANGED, before="1", after="2"
    )
    assert list(program.defaults(schema(1), schema(2))) == [change]
    assert list(program.defaults(schema(1), schema(1))) == []
    assert list(program.defaults("", schema(1))) == []


def test_every_script_on_machines_counts_as_a_file_on_machines() -> None:
    scripts = [Path(file.path) for file in role_files("sidecar") if file.path.endswith(".sh")]
    assert len(scripts) > 3
    paths = {f"components/machines/scripts/{script.name}": "M" for script in scripts}
    paths["components/machines/scripts/installation.sh"] = "M"  # undo.sh begins with it
    assert {each.what for each in program._files(paths)} == {"machine-files"}
    assert all((ROOT / path).exists() for path in paths)


def test_a_file_of_joins_concerns_machines_where_it_has_them_joined_again() -> None:
    change = ProgramChange(what="join", name="components/local/run.py", mark=Mark.CHANGED)
    join = Operation(op="update", type="command:local:Command", name="web-1-join", parent="web-1")
    assert program.of_operations([change], [join]) == (change,)
    (other,) = program.of_operations([change], [])
    assert other.what == "program"
