"""Commands beside Pulumi, and commands on machines: one constructor for each.

Both are `command:local:Command`s that run a script of this package with `python3 -I` on the
computer that runs Pulumi (see `local`). The rules of this project for commands are here alone:

- A payload, with all that is secret, is JSON on standard input. No secret is in a command line, in
  the environment, or in a log; the output of an earlier run is not handed on.
- Standard output is the result as JSON. Messages go to standard error, which Pulumi shows.
- A script's text is not in the state. Its path is relative to the project where it can be, so two
  checkouts of one version show no difference.
- A command whose object goes with another resource has `deleted_with` in its options.

When a script of this project changes (rule of `CommandOptions.converges`):

- What only looks or converges (a join, a proof, a verification, the CRDs) runs again. Its script's
  digest is an input beside the payload, so Pulumi shows an update, and nothing is deleted.
- What makes an object once (a cluster, a network, a container, a key) and what ends one (a drain)
  has no digest: nothing runs, and nothing is replaced. Such a script must keep what exists, because
  a changed payload does run it again. Its deletion uses the script of the day.
- `triggers` hold the identity of what a command acts on, and never a digest. pulumi-command
  replaces a command whose triggers change, and would delete the object with it (pulumi-command:
  provider/pkg/provider/local, `replaceOnChanges`).
"""

from __future__ import annotations

import ast
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pulumi
from pulumi_command import local

from .dependencies import without_dependencies
from .local import openssh, over_ssh, run, scripting

ROOT = Path(__file__).parent
T = TypeVar("T")


@dataclass(frozen=True)
class Script:
    """A script and what it is given.

    module: a module with `Payload` and `run` (see `local`).
    payload: an instance of its `Payload`.
    """

    module: ModuleType
    payload: pulumi.Input[Any]


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What distinguishes one command from others.

    converges: whether the script runs again when its text changes; not with a deletion.
    changes: a value that makes a script that converges run again.
    triggers: identity of what the command acts on; another one replaces the command.
    secret_result: whether the result is secret.
    quiet: whether standard error stays out of Pulumi's output; it is shown on failure all the same.
    timeout_s: seconds for one run; None leaves it to the script.
    names_dependencies: whether `depends_on` of the resource's options has all that its payload and
        `changes` depend on, at least by way of others. The state then names nothing else.
    """

    converges: bool = False
    changes: pulumi.Input[str] | None = None
    triggers: Sequence[pulumi.Input[Any]] = ()
    secret_result: bool = False
    quiet: bool = False
    timeout_s: int | None = None
    names_dependencies: bool = False


@dataclass(frozen=True, kw_only=True)
class MachineScript:
    """A script for a machine.

    target: the machine.
    purpose: what it does, for messages: "proof".
    script: its text, for `bash -s`.
    body: a script of this package that follows it (`over_ssh.Payload`).
    last_line: what its output must end with; None accepts any end.
    changes: a value that makes it run again, beside its text.
    timeout_s: seconds for one connection.
    patience_s: seconds in which a connection that fails is tried again.
    triggers: identity of the machine.
    module: a module whose `Payload` has all of that of `over_ssh`, and what its `run` returns is the
        result. further: values of the fields that its `Payload` has besides.
    """

    target: pulumi.Input[openssh.Target]
    purpose: str
    script: pulumi.Input[str]
    last_line: pulumi.Input[str] | None = None
    changes: pulumi.Input[str] | None = None
    timeout_s: int = over_ssh.TIMEOUT_S
    patience_s: int = 0
    triggers: Sequence[pulumi.Input[Any]] = field(default=())
    body: str = ""
    module: ModuleType = over_ssh
    further: Mapping[str, pulumi.Input[Any]] = field(default_factory=dict)


def local_command(
    name: str,
    create: Script | None,
    opts: pulumi.ResourceOptions,
    *,
    delete: Script | None = None,
    options: CommandOptions | None = None,
) -> local.Command:
    """Declare a command beside Pulumi.

    name: the resource's name.
    create: what runs on creation and on updates; None runs nothing.
    opts: the resource's options.
    delete: what runs on deletion; None runs nothing.

    Returns the resource; its result is `result(command, module.Result)`.
    Raises ValueError for a deletion of what converges.
    """
    options = options or CommandOptions()
    if options.converges and delete is not None:
        raise ValueError(f"{name}: a command that converges has nothing to delete")
    scripts = {"create": create, "delete": delete}
    payloads = {key: script.payload for key, script in scripts.items() if script}
    environment: dict[str, pulumi.Input[str]] = {}
    if create and options.converges:
        environment["SCRIPT_DIGEST"] = digest(create.module)

    def stored(value: pulumi.Output[str]) -> pulumi.Output[str]:
        return without_dependencies(value) if options.names_dependencies else value

    if options.changes is not None:
        environment["CHANGES"] = stored(pulumi.Output.from_input(options.changes))
    timeout = f"{options.timeout_s}s" if options.timeout_s else None
    own_opts = pulumi.ResourceOptions(
        additional_secret_outputs=["stdout"] if options.secret_result else None,
        custom_timeouts=pulumi.CustomTimeouts(create=timeout, update=timeout) if timeout else None,
    )
    return local.Command(
        name,
        create=command_line(create.module, "create") if create else None,
        delete=command_line(delete.module, "delete") if delete else None,
        stdin=stored(pulumi.Output.all(**payloads).apply(scripting.encode)) if payloads else None,
        environment=environment or None,
        triggers=list(options.triggers) or None,
        logging=local.Logging.NONE if options.quiet else local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions.merge(own_opts, opts),
    )


def machine_command(name: str, work: MachineScript, opts: pulumi.ResourceOptions) -> local.Command:
    """Declare a command on a machine, over one SSH connection.

    It runs again whenever its text or a script of this project changes. It fails where the machine
    did not run it, or not to its last line: Pulumi then does not store it, and runs it next time.

    name: the resource's name.
    opts: the resource's options. They name all that the script depends on in `depends_on`.

    Returns the resource; its result is `result(command, over_ssh.Result)`, unless `module` has another.
    """

    def payload(values: dict[str, Any]) -> Any:
        return work.module.Payload(
            purpose=work.purpose,
            timeout_s=work.timeout_s,
            patience_s=work.patience_s,
            body=work.body,
            **values,
        )

    # Records pass through `Output.all` as they are, where their fields are no outputs.
    values = pulumi.Output.all(target=work.target, script=work.script, last_line=work.last_line, **work.further)
    options = CommandOptions(
        converges=True,
        changes=pulumi.Output.all(work.changes or "", body_digest(work.body)).apply(" ".join),
        triggers=work.triggers,
        quiet=True,
        names_dependencies=True,
    )
    script = Script(work.module, values.apply(payload))
    return local_command(name, script, opts, options=options)


def body_digest(body: str) -> str:
    """Return a digest of a script that is in no input."""
    return hashlib.sha256(over_ssh.text("", body).encode()).hexdigest()[:16] if body else ""


def result(command: local.Command, record: type[T]) -> pulumi.Output[T]:
    """Return what a script returned, as a record of its `Result`."""
    return command.stdout.apply(lambda text: scripting.decode(record, json.loads(text)))


def command_line(module: ModuleType, operation: str) -> str:
    """Return the command that runs a script; its operation names the payload to use."""
    return shlex.join(runner_words(module, operation))


def runner_words(module: ModuleType, operation: str) -> list[str]:
    """Return the words of the command that runs a script."""
    runner, script = Path(run.__file__), _file(module).relative_to(ROOT)
    if runner.is_relative_to(Path.cwd()):
        runner = runner.relative_to(Path.cwd())
    return ["python3", "-I", str(runner), script.as_posix(), operation]


@cache
def digest(module: ModuleType) -> str:
    """Return a digest of a script and of all modules of this package that it imports."""
    hashed = hashlib.sha256()
    for file in sorted(sources(module)):
        hashed.update(f"{file.relative_to(ROOT).as_posix()}\n".encode() + file.read_bytes())
    return hashed.hexdigest()[:16]


def sources(module: ModuleType) -> set[Path]:
    """Return the files of a script and of all modules of this package that it imports."""
    return {_file(run), *_imports(_file(scripting)), *_imports(_file(module))}


def _file(module: ModuleType) -> Path:
    return Path(str(module.__file__))


@cache
def _imports(file: Path) -> frozenset[Path]:
    """Return a file and the files that it imports relatively, and those that they import."""
    files = {file}
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        directory = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        candidates = [directory / f"{alias.name}.py" for alias in node.names]
        for candidate in [*candidates, directory.with_suffix(".py")]:
            if candidate.is_file():
                files |= _imports(candidate)
    return frozenset(files)
