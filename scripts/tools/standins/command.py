"""Stand-in for the provider plugin `command`: `command:local:Command` and `command:remote:Command`.

Behaviour as in pulumi/pulumi-command v1.2.1 (`provider/pkg/provider`): commands run in create, update and delete, never in a preview;
without `update`, `create` runs again when an input changes; `triggers` replace; the state is the inputs with `stdout` and `stderr`, and a
secret input is secret in the state under its own name only. `CustomTimeouts` end a running command, which the official provider does for
local ones only.
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
    secret,
    serve,
)

LOCAL, REMOTE = "command:local:Command", "command:remote:Command"

_BOTH: frozenset[Stream] = frozenset({"stdout", "stderr"})
_SHOWN: dict[str | None, frozenset[Stream]] = {
    None: _BOTH,
    "stdoutAndStderr": _BOTH,
    "stdout": frozenset({"stdout"}),
    "stderr": frozenset({"stderr"}),
    "none": frozenset(),
}
_Schema = Mapping[str, type | tuple[type, ...]]
_COMMON: _Schema = {
    "create": str,
    "update": str,
    "delete": str,
    "triggers": list,
    "stdin": str,
    "logging": str,
    "environment": dict,
    "addPreviousOutputInEnv": bool,
}
_INPUTS: Mapping[str, _Schema] = {
    LOCAL: {**_COMMON, "interpreter": list, "dir": str},
    REMOTE: {**_COMMON, "connection": dict},
}
_PROXY: _Schema = {
    "host": str,
    "user": str,
    "port": (int, float),
    "password": str,
    "privateKey": str,
    "privateKeyPassword": str,
    "agentSocketPath": str,
    "dialErrorLimit": int,
    "perDialTimeout": int,
    "hostKey": str,
}
_CONNECTION: _Schema = {**_PROXY, "proxy": dict}
_SECRETS = ("password", "privateKey", "privateKeyPassword")
_CONNECTION_DEFAULTS = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}


class Command(Provider):
    """The provider."""

    name, version = "command", "1.2.1"
    types = frozenset({LOCAL, REMOTE})

    def check(self, request: Request) -> Checked:
        inputs = {key: value for key, value in request.inputs.items() if value is not None}
        failures = list(_misfits(inputs, _INPUTS[request.type], ""))
        if isinstance(logging := plain(inputs.get("logging")), str) and logging not in _SHOWN:
            failures.append(Failure("logging", f"must be one of {', '.join(name for name in _SHOWN if name)}"))
        if request.type == REMOTE:
            connection = plain(inputs.get("connection"))
            if connection is None:
                failures.append(Failure("connection", "is required: say which machine to connect to"))
            elif isinstance(connection, dict):
                filled = _with_defaults(connection)
                failures += _connection_problems(filled)
                connection = _with_secrets(filled)
            # All of it is secret, as in the official provider, and the keys and passwords in it once more.
            inputs["connection"] = secret(connection)
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
    """Run the command of `properties` called `which`, if there is one. Returns the outputs, which are `previous` without a command."""
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
            if request.type == LOCAL:
                arguments = [*(settings.get("interpreter") or ["/bin/sh", "-c"]), command]
                shell.run(request, arguments, output, stdin=stdin, environment={**environment, **handed_on}, directory=settings.get("dir"))
            else:
                from . import ssh  # not needed, and slow to load, for local commands

                ssh.run(request, settings["connection"], command, output, ssh.Variables(environment, handed_on), stdin)
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


def _connection_problems(connection: Properties) -> Iterator[Failure]:
    yield from _misfits(connection, _CONNECTION, "connection.")
    hops = [("connection", connection)]
    if isinstance(connection.get("proxy"), dict):
        yield from _misfits(connection["proxy"], _PROXY, "connection.proxy.")
        hops.append(("connection.proxy", connection["proxy"]))
    for path, hop in hops:
        if hop.get("host") is None:
            yield Failure(f"{path}.host", "is required: the address of the machine")
        if hop.get("privateKey") is None and hop.get("password") is None:
            yield Failure(path, "needs `privateKey` or `password`; the lab's stand-in does not use an SSH agent")


def _with_defaults(connection: Properties) -> Properties:
    filled = {**_CONNECTION_DEFAULTS, **{key: value for key, value in connection.items() if value is not None}}
    if isinstance(filled.get("proxy"), dict):
        filled["proxy"] = _with_defaults(filled["proxy"])
    return filled


def _with_secrets(connection: Properties) -> Properties:
    marked = {key: secret(value) if key in _SECRETS else value for key, value in connection.items()}
    if isinstance(proxy := connection.get("proxy"), dict):
        marked["proxy"] = _with_secrets(proxy)
    return marked


def _misfits(inputs: Mapping[str, Any], schema: _Schema, prefix: str) -> Iterator[Failure]:
    """What is not in `schema`, or not of the type it says there. Unknown values fit everywhere."""
    for key, value in plain(dict(inputs)).items():
        if key not in schema:
            yield Failure(prefix + key, "is not implemented by the lab's stand-in for the command provider, or does not exist")
        elif value is not UNKNOWN and value is not None and not isinstance(value, schema[key]):
            yield Failure(prefix + key, f"has the wrong type: {type(value).__name__}")


if __name__ == "__main__":
    serve(Command())
