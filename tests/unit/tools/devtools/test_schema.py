"""The schema and the reference page of stack files are those of the classes, and accept what the program accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from components.config import reader
from tools import ROOT, costs
from tools.devtools import schema
from tools.google_model import declared, google_page
from tools.live_run import page

SCHEMA = json.loads(schema.SCHEMA.read_text())
STACKS = reader.stacks()


def test_the_files_are_up_to_date() -> None:
    assert schema.SCHEMA.read_text() == schema.schema(), "run ./scripts/schema"
    assert schema.PAGE.read_text() == schema.page(), "run ./scripts/schema"


def test_pages_on_google_cloud_are_up_to_date() -> None:
    clouds = declared.clouds()
    assert costs.PAGE.read_text() == costs.page(clouds), "run ./scripts/schema"
    text = google_page.PAGE.read_text()
    assert text == google_page.page(text, clouds), "run ./scripts/schema"
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->") == 2


def test_the_rows_of_a_live_run_are_up_to_date() -> None:
    text = page.PAGE.read_text()
    assert text == page.page(text), "run ./scripts/schema"
    assert text.count("<!-- rows: ") == text.count("<!-- end of rows -->") == 6


def test_every_stack_on_google_cloud_has_its_price() -> None:
    names = [stack for stack in STACKS if "google" in str(file(stack)["config"].keys())]
    assert [name for name, _ in costs.stacks()] == names == ["fleet", "multi-network", "single-network"]
    prices = yaml.safe_load(costs.PRICES.read_text())["prices"]
    for _, settings in costs.stacks():
        assert set(+costs.bill(settings)[0]) <= set(prices)


def test_the_readme_states_the_same_costs() -> None:
    readme, prices = (ROOT / "README.md").read_text(), costs.PAGE.read_text()
    for stack in ("single-network", "multi-network", "fleet"):
        (cost,) = re.findall(rf"^\| \[{stack}\]\(#{stack}\) \| (\d+) \|", prices, re.MULTILINE)
        assert cost in next(line for line in readme.splitlines() if line.startswith("|") and f"`{stack}`" in line)


TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)}


def problems(value: Any, wanted: dict[str, Any], path: str = "") -> Iterator[str]:
    """What a value violates of the parts of JSON Schema that ours uses."""
    if "$ref" in wanted:
        wanted = SCHEMA["$defs"][wanted["$ref"].rpartition("/")[2]]
    if "oneOf" in wanted:
        fitting = [choice for choice in wanted["oneOf"] if not list(problems(value, choice))]
        if len(fitting) != 1:
            yield f"{path}: fits {len(fitting)} of {len(wanted['oneOf'])} choices"
    if ("const" in wanted and value != wanted["const"]) or ("enum" in wanted and value not in wanted["enum"]):
        yield f"{path}: {value!r} is no choice"
    if "type" in wanted and (not isinstance(value, TYPES[wanted["type"]]) or (isinstance(value, bool) and wanted["type"] != "boolean")):
        yield f"{path}: {value!r} is no {wanted['type']}"
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from problems(item, wanted.get("items", {}), f"{path}[{index}]")
    if isinstance(value, dict):
        yield from (f"{path}.{key}: is missing" for key in wanted.get("required", []) if key not in value)
        more = wanted.get("additionalProperties", True)
        for key, item in value.items():
            patterns = [schema_of_key for pattern, schema_of_key in wanted.get("patternProperties", {}).items() if re.search(pattern, key)]
            if key in wanted.get("properties", {}):
                yield from problems(item, wanted["properties"][key], f"{path}.{key}")
            elif not patterns and more is False:
                yield f"{path}.{key}: unknown key"
            elif not patterns and isinstance(more, dict):
                yield from problems(item, more, f"{path}.{key}")


def file(stack: str) -> dict[str, Any]:
    return reader.read_document(stack)


@pytest.mark.parametrize("name", ["name", "role"])
def test_internal_fields_have_no_key(name: str) -> None:
    workload = SCHEMA["$defs"]["WorkloadSettings"]["properties"]
    assert name not in workload and "namespace" in workload


@pytest.mark.parametrize("stack", STACKS)
def test_the_files_of_this_repository_fit(stack: str) -> None:
    assert list(problems(file(stack), SCHEMA)) == []


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("machnes", {}, ".config.istio-vm-mesh:machnes: unknown key"),
        ("verify", {"mode": "off"}, ".config.istio-vm-mesh:verify.mode: 'off' is no choice"),
        ("networks", {"pods": {"cidrs": "10.0.0.0/8"}}, ".config.istio-vm-mesh:networks.pods.cidrs: '10.0.0.0/8' is no array"),
        ("cluster", {"platform": "kin", "network": "pods"}, ".config.istio-vm-mesh:cluster: fits 0 of 3 choices"),
    ],
)
def test_an_editor_says_what_does_not(key: str, value: Any, problem: str) -> None:
    broken = file("lab")
    broken["config"][f"istio-vm-mesh:{key}"] = value
    assert list(problems(broken, SCHEMA)) == [problem]


def test_what_the_program_ignores_an_editor_ignores() -> None:
    allowed = file("existing")
    allowed["config"]["gcp:project"] = "mine"
    assert list(problems(allowed, SCHEMA)) == []


def test_every_platform_is_on_the_page() -> None:
    text = schema.PAGE.read_text()
    for platform in ("kind", "gke", "existing", "docker", "gce", "gce-instance-group", "ssh"):
        assert f"| `platform` | `{platform}` | required |" in text
