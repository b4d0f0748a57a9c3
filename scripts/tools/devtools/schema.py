"""`python -m tools.devtools.schema`, started by `./scripts/schema`: generate what editors and readers need for stack files.

It writes:

- `docs/stack.schema.json`: JSON Schema, draft 2020-12, of `stacks/Pulumi.<stack>.yaml`
- `docs/settings.md`: the reference of all keys
- `docs/costs.md`: costs and quotas of the stacks
- `docs/plan.schema.json`: JSON Schema of `./scripts/plan --json`
- tables in `docs/google.md` and `docs/first-live-run.md`, examples in `docs/plan.md`

Tests compare them with the records in `components/config` and `tools/plan/model.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from tools import ROOT

SCHEMA, PAGE = ROOT / "docs" / "stack.schema.json", ROOT / "docs" / "settings.md"
PLAN_SCHEMA = ROOT / "docs" / "plan.schema.json"
HEAD = """# Settings

What `stacks/Pulumi.<stack>.yaml` may contain, key by key. `./scripts/schema` generates this page from
the records in `components/config`. Every key is under `config` with the prefix `istio-vm-mesh:`, as
in `istio-vm-mesh:networks`. A file with problems is refused before any resource is created, with all
its problems at once.

Editors with JSON Schema complete and check a stack file that begins with
`# yaml-language-server: $schema=../docs/stack.schema.json`.

No value of a stack file is a secret.

"""


def parser() -> argparse.ArgumentParser:
    """Return the command line; standard library only, like everything at the top of this file."""
    top = argparse.ArgumentParser(
        prog="./scripts/schema",
        description="Generates docs/stack.schema.json, docs/settings.md, docs/costs.md, docs/plan.schema.json, the tables in docs/google.md "
        "and docs/first-live-run.md, and the examples in docs/plan.md.",
    )
    top.set_defaults(needs_lab=False)
    return top


def records() -> dict[str, Any]:
    """Return the JSON Schema of the records, without their internal fields.

    The schema of the stack is at the top, those of all other records are in `$defs`. Lines of descriptions are joined.
    """
    from components.config.stack import Settings

    schema: dict[str, Any] = _simplified(Settings.model_json_schema())
    return schema


def _simplified(node: Any) -> Any:
    """Remove from a schema what is no part of stack files: internal fields, titles, null, and defaults that are empty."""
    from components.config.record import INTERNAL_ALIASES

    if isinstance(node, list):
        return [_simplified(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" in node:
        [choice] = [each for each in node["anyOf"] if each != {"type": "null"}]
        node = {**choice, **{key: value for key, value in node.items() if key != "anyOf"}}
    result = {key: _simplified(value) for key, value in node.items() if key not in ("title", "discriminator")}
    if "properties" in node:
        result["properties"] = {key: _simplified(each) for key, each in node["properties"].items() if key not in INTERNAL_ALIASES}
        result["required"] = [key for key in node.get("required", []) if key not in INTERNAL_ALIASES]
    if result.get("default", 0) in (None, [], {}):
        del result["default"]
    if isinstance(result.get("description"), str):
        result["description"] = "\n\n".join(" ".join(text.split()) for text in result["description"].split("\n\n"))
    return result


def schema() -> str:
    """Return the JSON Schema of stack files. Keys of other projects and of providers are allowed."""
    stack = records()
    from components.names import PROJECT, config_key

    definitions = stack.pop("$defs")
    config = {
        **stack,
        "properties": {config_key(key): value for key, value in stack["properties"].items()},
        "required": [config_key(key) for key in stack["required"]],
        "patternProperties": {f"^(?!{PROJECT}:)": {}},
    }
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A stack file of {PROJECT}",
        "type": "object",
        "properties": {"config": config, "encryptionsalt": {"type": "string"}, "secretsprovider": {"type": "string"}},
        "required": ["config"],
        "$defs": definitions,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _type(node: dict[str, Any]) -> str:
    """A type in words, with links to the records that it names."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "oneOf" in node:
        return " or ".join(_type(each) for each in node["oneOf"])
    if "const" in node or "enum" in node:
        return " or ".join(f"`{word}`" for word in node.get("enum", [node.get("const")]))
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    if node.get("type") == "object":
        values = node["additionalProperties"]
        return f"map of {_type(values)}" if isinstance(values, dict) else "map"
    types = node["type"]
    return " or ".join(types) if isinstance(types, list) else str(types)


def _section(title: str, record: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}\n\n{record['description']}\n\n| key | type | default | description |\n| --- | --- | --- | --- |\n"
    for key, node in record["properties"].items():
        default = f"`{json.dumps(node['default'], ensure_ascii=False)}`" if "default" in node else ""
        default = "required" if key in record["required"] else default
        yield f"| `{key}` | {_type(node)} | {default} | {node['description']} |\n"
    yield "\n"


def page() -> str:
    """Return the reference page of stack files: a section for each record, in the order in which they are named."""
    stack = records()
    definitions = stack.pop("$defs")
    names = _references(stack)
    for name in names:
        names += [each for each in _references(definitions[name]) if each not in names]
    sections = [*_section("The whole file", stack)]
    for name in names:
        sections += _section(name, definitions[name])
    return HEAD + "".join(sections).rstrip() + "\n"


def _references(node: Any) -> list[str]:
    """The names of the records that a schema refers to, each once."""
    if isinstance(node, list):
        return list(dict.fromkeys(name for each in node for name in _references(each)))
    if not isinstance(node, dict):
        return []
    if "$ref" in node:
        return [node["$ref"].rpartition("/")[2]]
    return _references(list(node.values()))


def main() -> int:
    parser().parse_args()
    import tools.live_run.page
    from tools import costs
    from tools.google_model import declared, google_page
    from tools.plan import render_json

    from . import plan_examples

    clouds = declared.clouds()
    for file, text in (
        (SCHEMA, schema()),
        (PAGE, page()),
        (costs.PAGE, costs.page(clouds)),
        (google_page.PAGE, google_page.page(google_page.PAGE.read_text(), clouds)),
        (tools.live_run.page.PAGE, tools.live_run.page.page(tools.live_run.page.PAGE.read_text())),
        (PLAN_SCHEMA, render_json.schema()),
        (plan_examples.PAGE, plan_examples.page(plan_examples.PAGE.read_text())),
    ):
        file.write_text(text)
        print(file.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
