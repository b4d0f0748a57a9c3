"""What the documents say: stack files that work, paths that exist, versions that are the pinned ones."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from components.config import load, reader
from components.machines import bootstrap, files
from components.machines.bundle import Bundle, Exclusions, Owner
from components.versions import KUBERNETES_OF_ISTIO
from tests.support.samples import FACTS, PRODUCT
from tools import ROOT, venv
from tools.lab.offline import versions

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_explains_the_labs_own_stack_file() -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shown = yaml.safe_load(block)["config"]
    real = reader.read_document("lab")["config"]
    del real["istio-vm-mesh:mesh"]["values"]
    assert shown == real
    load({key.removeprefix("istio-vm-mesh:"): value for key, value in shown.items()})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    absent = [link for link in links if not (document.parent / link).exists()]
    named = re.findall(r"`((?:components|scripts|stacks|tests|docs)/[\w./-]*)`", text)
    absent += [path for path in named if not (ROOT / path).exists()]
    assert not absent


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_an_item_of_a_list_begins_a_line(document: Path) -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", document.read_text(), flags=re.DOTALL)
    assert re.findall(r".*[.:;] -(?: .*|$)", text, re.MULTILINE) == []


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and GitLab make them."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_anchors_are_headings(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", document.read_text())
    local = [(document.parent / link if link else document, anchor) for link, anchor in links if "://" not in link]
    assert [(target.name, anchor) for target, anchor in local if anchor not in anchors(target)] == []


def test_every_document_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)", index.read_text())}
    documents = {path for path in DOCUMENTS if path.parent != ROOT and path.parent.name != "adr"} | {ROOT / "docs" / "adr" / "README.md"}
    assert documents - listed == {index}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    ("github", "gitlab"),
    [
        ("pull_request_template.md", "merge_request_templates/Default.md"),
        ("ISSUE_TEMPLATE/bug.md", "issue_templates/Bug.md"),
        ("ISSUE_TEMPLATE/idea.md", "issue_templates/Idea.md"),
    ],
)
def test_both_forges_have_the_same_templates(github: str, gitlab: str) -> None:
    *_, text = (ROOT / ".github" / github).read_text().rpartition("---\n")
    assert (ROOT / ".gitlab" / gitlab).read_text() == text.lstrip("\n")


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_versions_are_the_pinned_ones(document: Path) -> None:
    text = document.read_text()
    requirements = dict(re.findall(r"^([\w-]+)==([\d.]+)", venv.REQUIREMENTS.read_text(), re.MULTILINE))
    wanted = {
        r"pulumi\.com.*--version ([\d.]+)": versions.PULUMI.removeprefix("v"),
        r"resource kubernetes ([\d.]+\d)": requirements["pulumi-kubernetes"],
        r"resource command ([\d.]+\d)": requirements["pulumi-command"],
        r"kindest/node:(v[\d.]+)": versions.KUBERNETES,
        r"istio/(?:pilot|proxyv2):([\d.]+\d)": versions.ISTIO,
        r"`(1\.31\.0-\w+)`": versions.ISTIO_BUILD,
    }
    for pattern, version in wanted.items():
        assert set(re.findall(pattern, text)) <= {version}, pattern


def test_the_pairs_of_istio_and_kubernetes_are_those_of_the_settings() -> None:
    page = (ROOT / "docs" / "how-to" / "upgrades.md").read_text()
    rows = re.findall(r"^\| 1\.(\d+) \| 1\.(\d+) to 1\.(\d+) \|$", page, re.MULTILINE)
    assert {(1, int(istio)): (int(first), int(last)) for istio, first, last in rows} == KUBERNETES_OF_ISTIO


OWNER = Owner("istio-vm-mesh", "prod", "m", "r", "shop", "product")
SLOW = {"terminationDrainDuration": "45s", "proxyMetadata": {"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"}}
DEFAULT = {**FACTS.default_config, **SLOW}
PROXY = {**bootstrap.proxy_config(replace(FACTS, default_config=DEFAULT), PRODUCT, "far"), "statusPort": 15099}
ROUTER = Bundle(OWNER, PROXY, "10.0.0.2", "10.0.0.1", "", "", role="router", fail_closed=True, firewall="manage", grace_s=20)
EXCLUSIONS = Exclusions(inbound_ports=(9100,), outbound_ports=(2049,), outbound_cidrs=("10.9.0.0/16",), interfaces=("eth1",))
SIDECAR = replace(ROUTER, role="sidecar", exclusions=EXCLUSIONS)


def test_every_key_that_differs_from_istioctls_files_has_its_reason() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "machines.md").read_text(), re.MULTILINE)
    assert rows == list(dict.fromkeys(rows))
    of_group = replace(SIDECAR, owner=replace(OWNER, registration=""))
    written = "".join(map(files.overrides_env, (ROUTER, SIDECAR, of_group)))
    assert set(rows) == set(re.findall(r"^(\w+)=", written, re.MULTILINE))
