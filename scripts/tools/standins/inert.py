"""A provider of any package that creates nothing: it logs each operation, and answers from a file.

For measurements of the engine and of programs. `python -I run.py inert NAME VERSION ANSWERS LOG` is
the plugin. ANSWERS is JSON: outputs of a resource beside its inputs, by the resource's name, and by
its type for those without a name there. LOG gets a line for each operation that an update does.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from .operations import Created, Difference, Found, Request
from .properties import UNKNOWN, Properties, differences
from .provider import Provider, serve


class Inert(Provider):
    """The provider."""

    def __init__(self, name: str, version: str, answers: Mapping[str, Properties], log: Path) -> None:
        self.name, self.version = name, version
        self._answers, self._log, self._lock = answers, log, threading.Lock()

    def supports(self, type: str) -> bool:
        return True

    def diff(self, request: Request) -> Difference:
        """Compare the inputs. Only the triggers of a command replace it."""
        changes = differences(request.old_inputs, request.inputs)
        return Difference(changes, frozenset(path for path in changes if path.startswith("triggers")))

    def create(self, request: Request) -> Created:
        return Created("" if request.preview else f"{request.name}-id", self._done("create", request))

    def update(self, request: Request) -> Properties:
        return self._done("update", request)

    def read(self, request: Request) -> Found | None:
        return Found(request.id, {**request.state, **self._answer(request)}, request.inputs)

    def delete(self, request: Request) -> None:
        self._note("delete", request)

    def _done(self, operation: str, request: Request) -> Properties:
        answer = self._answer(request)
        if request.preview:
            return {**request.inputs, **dict.fromkeys(answer, UNKNOWN)}
        self._note(operation, request)
        return {**request.inputs, **answer}

    def _answer(self, request: Request) -> Properties:
        return self._answers.get(request.name) or self._answers.get(request.type, {})

    def _note(self, operation: str, request: Request) -> None:
        with self._lock, self._log.open("a") as log:
            log.write(f"{operation} {request.type} {request.name}\n")


if __name__ == "__main__":
    serve(Inert(sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text()), Path(sys.argv[4])))
