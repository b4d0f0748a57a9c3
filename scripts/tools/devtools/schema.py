"""`python -m tools.devtools.schema`, started by `./scripts/schema`: writes what editors and readers need to know of stack files, from the settings' classes.

`docs/stack.schema.json` is a JSON Schema (draft 2020-12) of `stacks/Pulumi.<stack>.yaml`, `docs/settings.md` a reference page,
`docs/costs.md` what the stacks cost. A test holds them against what they are written from.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from tools import ROOT

from . import costs

PROJECT = "istio-vm-mesh"
SCHEMA, PAGE = ROOT / "docs" / "stack.schema.json", ROOT / "docs" / "settings.md"
_WORDS = {str: ("string", "text"), int: ("integer", "whole number"), bool: ("boolean", "true or false"), float: ("number", "number")}


def parser() -> argparse.ArgumentParser:
    """The command line; standard library only, like everything at the top of this file."""
    top = argparse.ArgumentParser(prog="./scripts/schema", description="Writes docs/stack.schema.json, docs/settings.md and docs/costs.md.")
    top.set_defaults(needs_lab=False)
    return top


def _settings() -> type:
    from components.config.stack import Settings

    return Settings


def _key(field: str) -> str:
    from components.config.decode import key_of

    return key_of(field)


def _choices(expected: Any) -> list[Any]:
    """The alternatives of a type, None left out."""
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        return [choice for choice in typing.get_args(expected) if choice is not type(None)]
    return [expected]


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _plain(value: Any) -> Any:
    """A default as a stack file would have it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {_key(field.name): _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {key: item for key, item in fields.items() if item is not None}
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _default(field: dataclasses.Field[Any]) -> Any:
    return _plain(field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default)


def _schema_of(expected: Any, classes: dict[str, type]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    choices = _choices(expected)
    if len(choices) > 1:
        return {"oneOf": [_schema_of(choice, classes) for choice in choices]}
    (only,) = choices
    if only is not expected:
        return _schema_of(only, classes)
    if expected is Any:
        return {}
    if origin is typing.Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _schema_of(arguments[0], classes)}
    if origin is not None:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], classes)}
    if isinstance(expected, type) and dataclasses.is_dataclass(expected):
        classes.setdefault(expected.__name__, expected)
        return {"$ref": f"#/$defs/{expected.__name__}"}
    return {"type": _WORDS[expected][0]}


def _object(cls: type, classes: dict[str, type], prefix: str = "") -> dict[str, Any]:
    """The schema of a class; `prefix` goes before its keys."""
    hints = typing.get_type_hints(cls)
    properties, required = {}, []
    for field in dataclasses.fields(cls):
        properties[prefix + _key(field.name)] = _schema_of(hints[field.name], classes)
        if _required(field):
            required.append(prefix + _key(field.name))
        elif (default := _default(field)) not in (None, [], {}) and not isinstance(default, dict):
            properties[prefix + _key(field.name)]["default"] = default
    schema: dict[str, Any] = {"type": "object", "description": _text(cls), "properties": properties, "required": required}
    if not prefix:
        schema["additionalProperties"] = False
    return schema


def _text(cls: type) -> str:
    """A class' docstring in one piece, paragraphs apart, with the keys as stack files have them."""
    names = {field.name for field in dataclasses.fields(cls)}
    lines = (inspect.getdoc(cls) or "").splitlines()
    text = "\n".join(lines)
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(f"`{name}`", f"`{_key(name)}`")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def schema() -> str:
    """The JSON Schema of stack files."""
    settings, classes = _settings(), dict[str, type]()

    config = _object(settings, classes, f"{PROJECT}:")
    from components.config.reader import SECRETS

    for name in sorted(SECRETS):
        config["properties"][f"{PROJECT}:{name}"] = {"type": "object", "description": "A secret: `pulumi config set --secret`."}
    # Keys of other projects and providers are allowed.
    config |= {"patternProperties": {f"^(?!{PROJECT}:)": {}}, "additionalProperties": False}
    definitions: dict[str, Any] = {}
    while waiting := [name for name in classes if name not in definitions]:
        for name in waiting:
            definitions[name] = _object(classes[name], classes)
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A stack file of {PROJECT}",
        "type": "object",
        "properties": {"config": config, "encryptionsalt": {"type": "string"}, "secretsprovider": {"type": "string"}},
        "required": ["config"],
        "$defs": dict(sorted(definitions.items())),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _named(expected: Any) -> str:
    """A type in words, with links to the classes that it names."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    choices = _choices(expected)
    if len(choices) > 1:
        return " or ".join(_named(choice) for choice in choices)
    (only,) = choices
    if only is not expected:
        return _named(only)
    if expected is Any:
        return "anything"
    if origin is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return f"list of {_named(arguments[0])}"
    if origin is not None:
        return f"map of {_named(arguments[1])}"
    if isinstance(expected, type) and dataclasses.is_dataclass(expected):
        return f"[{expected.__name__}](#{expected.__name__.lower()})"
    return _WORDS[expected][1]


def _section(cls: type, title: str) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    yield f"## {title}\n\n{_text(cls)}\n\n| key | type | default |\n| --- | --- | --- |\n"
    for field in dataclasses.fields(cls):
        default = "required" if _required(field) else _default(field)
        shown = "" if default in (None, [], {}) else default if _required(field) else f"`{json.dumps(default, ensure_ascii=False)}`"
        yield f"| `{_key(field.name)}` | {_named(hints[field.name])} | {shown} |\n"
    yield "\n"


def page() -> str:
    """The reference page of stack files."""
    settings, classes = _settings(), dict[str, type]()
    _object(settings, classes)
    done: list[str] = []
    while waiting := [name for name in classes if name not in done]:
        for name in waiting:
            _object(classes[name], classes)
            done.append(name)
    text = [
        "# Settings\n\nWhat `stacks/Pulumi.<stack>.yaml` may say, key by key. Written by `./scripts/schema` from the classes in "
        "`components/config`; change those.\nEvery key stands under `config` with the project's name before it "
        f"(`{PROJECT}:networks`). Editors that know JSON Schema complete and check stack files with\n`docs/stack.schema.json`, where a file "
        "begins with `# yaml-language-server: $schema=../docs/stack.schema.json`. A wrong file is refused before anything is\nmade, with all its "
        "problems at once.\n\nSecrets are keys of their own, set with `pulumi config set --secret`: "
        f"`{PROJECT}:kubeconfig` (of an existing cluster), `{PROJECT}:sshPrivateKey`\n(of existing machines and bastions).\n\n"
    ]
    text += _section(settings, "The whole file")
    for name in done:
        text += _section(classes[name], name)
    return "".join(text).rstrip() + "\n"


def main() -> int:
    parser().parse_args()
    for file, text in ((SCHEMA, schema()), (PAGE, page()), (costs.PAGE, costs.page())):
        file.write_text(text)
        print(file.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
