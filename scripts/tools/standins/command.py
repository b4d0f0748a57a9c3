"""Stand-in for the provider plugin `command`: `command:local:Command`.

Behaviour as in pulumi/pulumi-command v1.2.1 (`provider/pkg/provider`):

- Commands run in create, update and delete, never in a preview.
- Without `update`, `create` runs again when an input changes. A change of `triggers` replaces.
- The state is the inputs with `stdout` and `stderr`. A secret input is secret in the state under
  its own name only.
- `CustomTimeouts` end a running command.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from . import shell
from .output import Output, Stream
from .provider import (
    UNKNOWN,
    Cancelled,
    Checked,
    Created,
    Difference,
    Failure,
    Properties,
    Provider,
    ProviderError,
    Request,
    differences,
    plain,
    serve,
)

LOCAL = "command:local:Command"

_BOTH: frozenset[Stream] = frozenset({"stdout", "stderr"})
_SHOWN: dict[str | None, frozenset[Stream]] = {
    None: _BOTH,
    "stdoutAndStderr": _BOTH,
    "stdout": frozenset({"stdout"}),
    "stderr": frozenset({"stderr"}),
    "none": frozenset(),
}
_INPUTS: Mapping[str, type] = {
    "create": str,
    "update": str,
    "delete": str,
    "triggers": list,
    "stdin": str,
    "logging": str,
    "environment": dict,
    "addPreviousOutputInEnv": bool,
    "interpreter": list,
    "dir": str,
}


class Command(Provider):
    """The provider."""

    name, version = "command", "1.2.1"
    types = frozenset({LOCAL})

    def check(self, request: Request) -> Checked:
        inputs = {key: value for key, value in request.inputs.items() if value is not None}
        failures = list(_misfits(inputs))
        if isinstance(logging := plain(inputs.get("logging")), str) and logging not in _SHOWN:
            failures.append(Failure("logging", f"must be one of {', '.join(name for name in _SHOWN if name)}"))
        return Checked(inputs, failures)

    def diff(self, request: Request) -> Difference:
        changes = differences(request.old_inputs, request.inputs)
        return Difference(changes, frozenset(path for path in changes if path == "triggers" or path.startswith("triggers[")))

    def create(self, request: Request) -> Created:
        id = f"{request.name}{secrets.token_hex(4)}"
        if request.preview:
            return Created(id, {**request.inputs, "stdout": UNKNOWN, "stderr": UNKNOWN})
        return Created(id, {**request.inputs, **_run(request, request.inputs, "create", {})})

    def update(self, request: Request) -> Properties:
        if request.preview:
            return {**request.inputs, "stdout": UNKNOWN, "stderr": UNKNOWN}
        previous = {key: request.state.get(key, "") for key in ("stdout", "stderr")}
        which = "update" if request.inputs.get("update") is not None else "create"
        return {**request.inputs, **_run(request, request.inputs, which, previous)}

    def delete(self, request: Request) -> None:
        previous = {key: request.state.get(key, "") for key in ("stdout", "stderr")}
        _run(request, request.state, "delete", previous)


def _run(request: Request, properties: Properties, which: str, previous: Properties) -> Properties:
    """Run the command of `properties` called `which`, if there is one. Returns the outputs,
    which are `previous` without a command.
    """
    settings, before = plain(properties), plain(previous)
    command = settings.get(which)
    if command is None:
        return {"stdout": "", "stderr": "", **previous}
    output = Output(request.status, _SHOWN[settings.get("logging")])
    environment = settings.get("environment") or {}
    handed_on = {
        f"PULUMI_COMMAND_{key.upper()}": value
        for key, value in before.items()
        if value and settings.get("addPreviousOutputInEnv") is not False
    }
    stdin = settings.get("stdin") or ""
    try:
        with _time_limit(request):
            arguments = [*(settings.get("interpreter") or ["/bin/sh", "-c"]), command]
            shell.run(request, arguments, output, stdin=stdin, environment={**environment, **handed_on}, directory=settings.get("dir"))
    except ProviderError as error:
        raise ProviderError(f"{error}: running {json.dumps(command, ensure_ascii=False)}:\n{output.together()}") from error
    finally:
        output.finish()
    return dict(output.result())


@contextmanager
def _time_limit(request: Request) -> Iterator[None]:
    """End what runs in the block after the time that the user granted."""
    if not request.timeout:
        yield
        return
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        request.cancel()

    timer = threading.Timer(request.timeout, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Cancelled as error:
        if expired.is_set():
            raise ProviderError(f"timed out after {request.timeout:g} s") from error
        raise
    finally:
        timer.cancel()


def _misfits(inputs: Mapping[str, Any]) -> Iterator[Failure]:
    """Yield what is not in `_INPUTS`, or not of its type there. Unknown values fit everywhere."""
    for key, value in plain(dict(inputs)).items():
        if key not in _INPUTS:
            yield Failure(key, "is not implemented by the lab's stand-in for the command provider, or does not exist")
        elif value is not UNKNOWN and value is not None and not isinstance(value, _INPUTS[key]):
            yield Failure(key, f"has the wrong type: {type(value).__name__}")


if __name__ == "__main__":
    serve(Command())
