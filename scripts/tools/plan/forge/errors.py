"""What goes wrong between this program and a forge."""

from __future__ import annotations


class ForgeError(Exception):
    """A request that no repetition helps; the text names the cause and the fix."""


class AbsentError(ForgeError):
    """What a request is about is not there, or the token cannot see it."""


class TooLongError(ForgeError):
    """A text is longer than the forge accepts."""


class BusyError(ForgeError):
    """A request that may succeed later. It may have been carried out, so look before a repetition.

    wait_s: seconds until then.
    """

    def __init__(self, text: str, wait_s: float) -> None:
        super().__init__(text)
        self.wait_s = wait_s
