"""Keep the state small: leave out where in the program's text each resource is declared."""

from __future__ import annotations

from pulumi.runtime import resource
from pulumi.runtime.proto import source_pb2


def install() -> None:
    """Store no stack traces.

    The SDK records all frames of the program, of itself and of Python with each resource. They are
    a quarter of a machine's state, differ between computers, and change with every shifted line.
    """
    resource._get_stack_trace = source_pb2.StackTrace
