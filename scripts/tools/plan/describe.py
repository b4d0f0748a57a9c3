"""What programs declare. `python -m tools.plan.describe --stack NAME --output DIR CHECKOUT...`

It runs the program of each checkout under mocks: no cloud, cluster, state, plugin or secret is read
or changed. The parent process sets another directory for HOME and private files, and an environment
without credentials (`files.describe`). What the program of checkout number N prints is in `N.log`.
`N.json` has:

- `resources`: what the program declares (`resources.Resource`)
- `machine_files`: digests by role and path
- `local_files`: paths that the stack file names
- `problems`: one line each, instead of all that, where the program refuses the file

Pulumi's SDKs take most of the time, so they are imported once. A process for each checkout is
forked then, because each has its own modules `components`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

SDKS = (
    "pulumi.dynamic",
    "pulumi_command.local",
    "pulumi_kubernetes",
    "pydantic.fields",
    "tools.plan.mocks",
    "tools.mock_engine",
)
"""What programs import that takes long. What is missing here is imported for each checkout."""
GOOGLE_SDKS = (
    "pulumi_gcp.compute",
    "pulumi_gcp.container",
    "pulumi_gcp.dns",
    "pulumi_gcp.projects",
    "pulumi_gcp.serviceaccount",
)
"""The same for stacks that have the key `google`."""
LOCAL_PATHS = ("sha256", "charts", "gatewayApi", "kubeconfig", "privateKey")
"""Keys of a stack file whose values may be paths on the computer that runs Pulumi."""


def local_files(values: Any) -> Iterator[str]:
    """Yield the paths that a stack file names, relative to the checkout."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key in LOCAL_PATHS and isinstance(value, str) and "://" not in value:
                yield value
            yield from local_files(value)
    elif isinstance(values, list):
        for value in values:
            yield from local_files(value)


def without_local_files(values: Any) -> Any:
    """Return a stack's configuration that needs no file beside the checkout.

    Private keys are left out: no input of a resource holds a key or its path. A package's digest
    that is a file's becomes a digest of the path.
    """
    if isinstance(values, list):
        return [without_local_files(value) for value in values]
    if not isinstance(values, Mapping):
        return values
    kept = {key: without_local_files(value) for key, value in values.items() if key != "privateKey"}
    sha256 = kept.get("sha256")
    if isinstance(sha256, str) and not (
        len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")
    ):
        kept["sha256"] = hashlib.sha256(sha256.encode()).hexdigest()
    return kept


def describe(root: Path, stack: str) -> dict[str, Any]:
    """Return what the program in `root` declares for a stack.

    Raises what the program raises where it cannot run.
    """
    from components.config import reader
    from components.config.problems import SettingsError

    try:
        raw = reader.read_file(stack)
    except SettingsError as error:
        return {"problems": str(error).splitlines()}
    return declared(root / "__main__.py", stack, raw)


def declared(main_file: Path, stack: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a program declares for a configuration.

    main_file: the program. raw: values by key, without the project's prefix.
    """
    import pulumi

    from tools import mock_engine

    from . import mocks

    files = sorted(set(local_files(raw)))
    recorder = mock_engine.Recorder(mocks.Answers())
    program = mock_engine.Program(main_file, mock_engine.MAIN.project)
    try:
        mock_engine.run_program(
            recorder, without_local_files(raw), preview=False, program=program, stack=stack
        )
    except pulumi.RunError as error:
        return {"problems": str(error).splitlines(), "local_files": files}
    return {
        "resources": [_plain(node) for node in recorder.nodes],
        "machine_files": _machine_files(),
        "local_files": files,
    }


def _machine_files() -> dict[str, dict[str, str]]:
    """Return digests of the units and scripts that machines get, by role and path."""
    from components.machines.bundle import role_files

    return {
        role: {
            file.path: hashlib.sha256(f"{file.mode} {file.owner} {file.text}".encode()).hexdigest()[
                :12
            ]
            for file in role_files(role)
        }
        for role in ("sidecar", "router")
    }


def _plain(node: Any) -> dict[str, Any]:
    read = set(node.inputs) == {"id"}
    return {
        "type": node.type,
        "name": node.name,
        "parent": node.parent,
        "inputs": _without_secrets(node.inputs),
        "outputs": {}
        if read
        else _without_secrets(
            {key: value for key, value in node.state.items() if key not in node.inputs}
        ),
        "read": read,
        "ignored": node.options.get("ignore_changes", []),
        "deleted_with": node.options.get("deleted_with", ""),
        "retained": bool(node.options.get("retain_on_delete")),
    }


def _without_secrets(value: Any) -> Any:
    from .resources import SECRET

    if isinstance(value, Mapping):
        return (
            SECRET
            if set(value) == {"secret"}
            else {key: _without_secrets(item) for key, item in value.items()}
        )
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value


def _import_sdks(stack: str, roots: list[Path]) -> None:
    """Import what the programs share. Nothing of a checkout runs here, so none of their readers."""
    files = (root / "stacks" / f"Pulumi.{stack}.yaml" for root in roots)
    google = any(b"istio-vm-mesh:google" in file.read_bytes() for file in files if file.exists())
    for name in (*SDKS, *(GOOGLE_SDKS if google else ())):
        # What is lazy is loaded at the first look (pulumi/_utils.py, `_LazyModule`).
        getattr(importlib.import_module(name), "__all__", None)


def _use_components(root: Path) -> None:
    """Have `components` be the package of a checkout. Other modules of it cannot be imported.

    Raises ModuleNotFoundError where the checkout has no such package.
    """
    spec = PathFinder.find_spec("components", [str(root)])
    if not spec or not spec.loader:
        raise ModuleNotFoundError("No module named 'components'")
    package = sys.modules["components"] = module_from_spec(spec)
    spec.loader.exec_module(package)


def _start(number: int, root: Path, stack: str, output: Path) -> int:
    """Describe a checkout in a process of its own; return the process's number."""
    if child := os.fork():
        return child
    code = 1
    try:
        log = os.open(output / f"{number}.log", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        home, written = output / f"home-{number}", output / f"{number}.part"
        home.mkdir()
        os.environ.update({"HOME": str(home), "XDG_STATE_HOME": str(home / "state")})
        os.chdir(root)
        _use_components(root)
        written.write_text(json.dumps(describe(root, stack)))
        written.rename(output / f"{number}.json")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # what the parent process registered to run at its end is not the child's


def main(arguments: list[str] | None = None) -> int:
    """Write the descriptions; return the exit code."""
    parser = argparse.ArgumentParser(description="Writes what programs declare, as JSON.")
    parser.add_argument("--stack", required=True, help="the stack")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of the files")
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT", help="a directory")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    gc.disable()  # thousands of classes of the SDKs: collections would take a sixth of the time
    _import_sdks(options.stack, options.checkouts)
    gc.freeze()
    gc.enable()
    children = [
        _start(number, root, options.stack, options.output)
        for number, root in enumerate(options.checkouts)
    ]
    for child in children:
        os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
