"""Interruptions that come while a program is being started."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tools import interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_in_the_block_comes_after_it(number: signal.Signals) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before, steps = signal.signal(number, interrupt), list[str]()
    try:
        with pytest.raises(KeyboardInterrupt):
            with interruption.postponed():
                os.kill(os.getpid(), number)
                steps.append("completed")
            while True:
                steps.append("and then")
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert steps[0] == "completed"


def test_other_threads_need_nothing() -> None:
    done = threading.Event()

    def block() -> None:
        with interruption.postponed():
            done.set()

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert done.is_set()
