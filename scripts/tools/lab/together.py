"""Parts of a step that run at the same time, each with a log of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from tools.process import Group
from tools.steps import Display, Step, StepError

WORKERS = 2
"""How many parts run at the same time."""

Part = Callable[[Step], object]


def run(step: Step, parts: Mapping[str, Part]) -> None:
    """Run the parts in their order, `WORKERS` at a time.

    If one fails, or this is interrupted, those that run are stopped, and no other starts. Raises
    StepError that names the part; its log is then at the end of the step's.
    """
    together = _Together(step)
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for future in [pool.submit(together.run, name, part) for name, part in parts.items()]:
                future.result()
        finally:
            together.group.stop()
    if together.failures:
        _fail(step, *together.failures[0])
    step.note("")


def _fail(step: Step, part: Step, error: Exception) -> NoReturn:
    """Raise the error of a part as one of the step; an error of this program as it is."""
    if not isinstance(error, StepError | OSError):
        raise error
    step.write(part.log.read_text(errors="replace"))
    if isinstance(error, OSError):
        raise StepError(f"{part.title}: {error}") from error
    raise StepError(f"{part.title}: {error.cause}", error.hint, error.show_log) from error


class _Together(Display):
    """Runs parts in threads, and shows those that run as one note of their step."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.group = Group()
        self.failures: list[tuple[Step, Exception]] = []
        """The first one is the cause of the others, which are stopped by it."""
        self._step = step
        self._running: dict[str, Step] = {}

    def run(self, name: str, part: Part) -> None:
        """Run a part to its end, or to its failure. Nothing if the group is stopped."""
        if self.group.stopped:
            return
        log = self._step.log.with_name(f"{self._step.log.stem}-{name.replace(' ', '-')}.log")
        log.write_text("")
        self._running[name] = step = Step(name, log, self, group=self.group)
        try:
            part(step)
        except Exception as error:
            self.failures.append((step, error))
            self.group.stop()
        finally:
            del self._running[name]

    def print(self, text: str) -> None:
        self._step.line(text.strip())

    def refresh(self, step: Step) -> None:
        self._step.note("; ".join(part.detail for part in [*self._running.values()] if part.detail))
