"""Waits for a join or a leave that still runs on a machine.

It may be of an update that was killed: without its connection it ends by itself, after its current
wait. The scripts on machines ask for the wait (installation.sh, `take_lock`).
"""

from __future__ import annotations

import base64
import sys
from time import monotonic

from ...local.conversation import Pause
from ..bundle import DEADLINE_S, SLOWER_STOP_S

TOPIC = "busy"
"""First word of the question. The second is who holds the machine, in base64."""
WAIT_S = DEADLINE_S + 3 * SLOWER_STOP_S
"""Seconds. A join that has lost its connection ends within them, whatever mesh it is of (`slower_s`)."""
PAUSE_S = 1.0


class LockWait:
    """Answers whether a script should try to take its machine's lock again.

    machine: the machine, for messages.
    """

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._end: float | None = None

    def answer(self, encoded: str, pause: Pause) -> str:
        """Return `yes` after a pause, or `no` with the reason once the wait has been too long.

        encoded: who holds the machine, in base64.
        """
        holder = " ".join(base64.b64decode(encoded).decode(errors="replace").split())
        if self._end is None:
            self._end = monotonic() + WAIT_S
            sentence = f"machine {self._machine}: waiting until {holder} has ended, {WAIT_S} s at most"
            print(sentence, file=sys.stderr, flush=True)
        elif monotonic() > self._end:
            return f"no {holder} still runs on this machine: run the update again when it has ended"
        pause(PAUSE_S)
        return "yes"
