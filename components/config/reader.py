"""Read stack files: from YAML or Pulumi's configuration to a checked stack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..names import config_key
from . import checks
from .checks.texts import check_readable
from .gateway_machines import add_gateway_machines
from .problems import Problem, SettingsError, keys_of, problems_of, suggestion
from .stack import Settings

STACKS = Path(__file__).parents[2] / "stacks"
MOST_BYTES, MOST_VALUES, MOST_DEPTH = 4_000_000, 1_000_000, 50
"""Of a stack file: its bytes, its values with those that aliases repeat, and how deep they are.

A machine has about 10 values.
"""


def load(raw: Mapping[str, Any]) -> Settings:
    """Validate a stack's configuration; see `config.load`."""
    keys = keys_of(Settings)
    problems = [
        Problem(key, "unknown key" + suggestion(key, keys)) for key in raw if key not in keys
    ]
    settings = None
    try:
        settings = Settings.model_validate(
            {key: value for key, value in raw.items() if key in keys}, by_alias=True, by_name=False
        )
    except ValidationError as error:
        problems += problems_of(error, Settings)
    if settings is not None:
        problems += list(check_readable(raw)) or checks.check(settings)
    if settings is None or problems:
        raise SettingsError(problems)
    return add_gateway_machines(settings)


def stacks(directory: Path = STACKS) -> list[str]:
    """Return the names of the stacks that have a file, sorted."""
    return sorted(filter(None, (stack_of(file.name) for file in directory.glob("*"))))


def stack_of(file: str) -> str:
    """Return the stack whose file has this name; "" for none."""
    match = re.fullmatch(r"Pulumi\.(.+)\.yaml", file)
    return match[1] if match else ""


def file_of(stack: str, directory: Path = STACKS) -> Path:
    """Return the path of a stack's file, which Pulumi names so."""
    return directory / f"Pulumi.{stack}.yaml"


def no_file(stack: str, directory: Path = STACKS) -> str:
    """Return the message for a stack without a file. It names the stack that may be meant."""
    hint = suggestion(stack, stacks(directory))
    return f"there is no stack file {file_of(stack, directory)}{hint}"


def load_file(stack: str, directory: Path = STACKS) -> Settings:
    """Read and validate a stack file; see `config.load_file`."""
    return load(read_file(stack, directory))


def read_file(stack: str, directory: Path = STACKS) -> dict[str, Any]:
    """Read `Pulumi.<stack>.yaml` without validating it.

    Returns what `load` takes: values by key without the project's prefix. Keys of other projects
    and of providers are left out.
    Raises SettingsError for a file that cannot be read, and for secrets.
    """
    content = read_document(stack, directory)
    # As Pulumi passes it on: JSON, in which every key is a string.
    try:
        config = json.loads(json.dumps(content.get("config") or {}, default=str))
    except (ValueError, TypeError, RecursionError) as error:
        raise SettingsError([Problem(stack, f"its stack file is no JSON: {error}")]) from None
    if not isinstance(config, dict):
        raise SettingsError([Problem(stack, "`config` of its stack file has no keys")])
    values = {
        key.removeprefix(config_key("")): value
        for key, value in config.items()
        if key.startswith(config_key(""))
    }
    if problems := list(secret_problems({key: _is_secret(value) for key, value in values.items()})):
        raise SettingsError(problems)
    return values


def read_document(stack: str, directory: Path = STACKS) -> dict[str, Any]:
    """Read the whole of `Pulumi.<stack>.yaml`, for tools that write another one from it.

    Raises SettingsError for a file that does not exist, or is no YAML with keys.
    """
    import yaml

    file = file_of(stack, directory)
    if not file.exists():
        raise SettingsError([Problem(stack, no_file(stack, directory))])
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        _size(node, {}, MOST_DEPTH)
        content = (loader.construct_document(node) if node else None) or {}
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingsError([Problem(stack, f"{file} is no YAML: {error.problem}{line}")]) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError([Problem(stack, f"{file} cannot be read: {error}")]) from None
    if not isinstance(content, dict):
        raise SettingsError([Problem(stack, f"{file} has no keys: `config` is expected")])
    return content


def _size(node: Any, sizes: dict[int, int], depth: int) -> int:
    """Return how many values a YAML node has where every alias is what it refers to.

    sizes: those of nodes that were counted. Raises ValueError over the limits.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    if not depth:
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep, or contains itself")
    parts = getattr(node, "value", "")
    children = [] if isinstance(parts, str) else parts
    size = 1 + sum(
        _size(child, sizes, depth - 1)
        for each in children
        for child in (each if isinstance(each, tuple) else (each,))
    )
    if size > MOST_VALUES:
        raise ValueError(f"its aliases make more than {MOST_VALUES:,} values of it")
    sizes[id(node)] = size
    return size


def secret_problems(is_secret: Mapping[str, bool]) -> Iterator[Problem]:
    """Yield a problem for each secret: no key of this program is one.

    is_secret: whether a value is encrypted, by key.
    """
    for key, secret in is_secret.items():
        if secret:
            yield Problem(key, "must not be a secret: the value becomes part of resource names")


def _is_secret(value: Any) -> bool:
    """Whether Pulumi encrypted a value of a stack file, or a part of it."""
    if isinstance(value, Mapping):
        return value.keys() == {"secure"} or any(map(_is_secret, value.values()))
    return isinstance(value, list) and any(map(_is_secret, value))
