"""What differs in the program itself."""

from __future__ import annotations

import json

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


def test_a_file_of_joins_concerns_machines_where_it_has_them_joined_again() -> None:
    change = ProgramChange(what="join", name="components/local/run.py", mark=Mark.CHANGED)
    join = Operation(op="update", type="command:local:Command", name="web-1-join", parent="web-1")
    assert program.of_operations([change], [join]) == (change,)
    (other,) = program.of_operations([change], [])
    assert other.what == "program"
