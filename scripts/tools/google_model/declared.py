"""The graphs of the shipped stacks on Google Cloud, for pages that are generated from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from .cloud import Cloud


def clouds() -> Mapping[str, Cloud]:
    """Return the resources of each shipped stack that is on Google Cloud, by the stack's name.

    The program runs under mocks: no account is needed, and nothing is created.
    """
    from components.config import reader

    return {stack: cloud(stack) for stack in reader.stacks() if "google" in reader.read_file(stack)}


def cloud(stack: str) -> Cloud:
    """Return the resources of a stack, as `clouds` does."""
    from components.config import reader
    from tools import mock_engine
    from tools.plan import mocks

    recorder = mock_engine.Recorder(mocks.Answers())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mock_engine.run_program(recorder, reader.read_file(stack), preview=False, stack=stack)
    return Cloud.of(recorder.nodes)
