"""The lab's first rule: a program on PATH is used at the right version only; the pins in the modules and in the code agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.lab import paths
from tools.lab.offline import golang, programs, versions
from tools.steps import Step, quiet

ISTIOCTL = '{{"clientVersion": {{"version": "{0}", "revision": "x", "golang_version": "go1.26", "status": "Clean", "tag": "{0}"}}}}'
KUBECTL = '{{"clientVersion": {{"major": "1", "gitVersion": "{0}", "goVersion": "go1.25"}}, "kustomizeVersion": "v5.7.1"}}'


def _program(directory: Path, name: str, answer: str, code: int = 0) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / name
    file.write_text(f"#!/bin/sh\necho 'warning: noise' >&2\nprintf '%s\\n' '{answer}'\nexit {code}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("name", "answer", "version"),
    [
        ("pulumi", "v3.259.0", "v3.259.0"),
        ("pulumi", "v3.259.1", None),
        ("pulumi", "v3.259.0-dev.1", None),
        ("istioctl", ISTIOCTL.format("1.31.0"), "1.31.0"),
        ("istioctl", ISTIOCTL.format(versions.ISTIO_BUILD), versions.ISTIO_BUILD),
        ("istioctl", ISTIOCTL.format("1.31.01"), None),
        ("istioctl", ISTIOCTL.format("1.31.0-rc.1"), None),
        ("kubectl", KUBECTL.format("v1.35.4"), "v1.35.4"),
        ("kubectl", KUBECTL.format("v1.35.4+k3s1"), None),
        ("kubectl", KUBECTL.format("v1.34.4"), None),
        ("kubelet", "Kubernetes v1.35.4", "v1.35.4"),
        ("kubeadm", "v1.35.5", None),
        ("helm", "v3.9.0", "v3.9.0"),
        ("helm", "v4.0.1", None),
        ("kind", "kind v0.29.0 go1.24 linux/amd64", "v0.29.0"),
        ("kind", "kind v1.0.0 go1.24 linux/amd64", None),
        ("etcd", "etcd Version: 3.6.5", None),  # goes into an image only
    ],
)
def test_a_program_on_path_is_used_at_the_right_version(tmp_path: Path, name: str, answer: str, version: str | None) -> None:
    file = _program(tmp_path, name, answer)
    expected = programs.Tool(name, version, file, "PATH") if version else None
    assert programs.on_path(name, f"{tmp_path}:/usr/bin:/bin") == expected


def test_a_program_that_fails_is_not_used(tmp_path: Path) -> None:
    _program(tmp_path, "pulumi", "v3.259.0", code=1)
    assert programs.on_path("pulumi", f"{tmp_path}:/usr/bin:/bin") is None


def test_the_labs_own_links_are_not_taken_for_programs_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "BIN", tmp_path)
    _program(tmp_path, "pulumi", "v3.259.0")
    assert programs.on_path("pulumi", str(tmp_path)) is None


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was built, in a machine with an empty PATH, cache and lab."""
    calls: list[tuple[str, list[str]]] = []

    def build(step: Step, family: golang.Family, programs: dict[str, str]) -> dict[str, Path]:
        calls.append((family.name, list(programs)))
        return {name: _program(tmp_path / "cache" / name, name, "") for name in programs}

    monkeypatch.setattr(golang, "build", build)
    monkeypatch.setattr(paths, "BIN", tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("ISTIO_VM_MESH_CACHE", str(tmp_path / "empty"))
    return calls


def test_what_is_not_on_path_is_built_each_family_in_one_go(tmp_path: Path, built: list[tuple[str, list[str]]]) -> None:
    _program(tmp_path / "path", "kind", "kind v0.33.0 go1.26 linux/amd64")
    monkey = programs.Tools()
    tools = monkey.programs(quiet("tools", tmp_path / "log"), "kubelet", "kind", "etcd", "kubectl")
    assert built == [("kubernetes", ["kubelet", "kubectl"]), ("etcd", ["etcd"])]
    assert list(tools) == ["kubelet", "kind", "etcd", "kubectl"]
    assert tools["kind"].origin == "PATH"
    assert tools["kubelet"] == programs.Tool("kubelet", "v1.35.4", tmp_path / "cache/kubelet/kubelet", "built here from k8s.io/kubernetes")


def test_programs_of_one_module_graph_are_one_build_and_what_is_there_is_none(tmp_path: Path, built: list[tuple[str, list[str]]]) -> None:
    _program(tmp_path / "path", "kind", "kind v0.33.0 go1.26 linux/amd64")
    builds = programs.Tools().builds(quiet("tools", tmp_path / "log"), "kind", "helm", "kubelet", "pilot-agent", "etcd", "kubectl")
    assert list(builds) == ["istio", "kubernetes"] and not built
    builds["kubernetes"](quiet("tools", tmp_path / "log"))
    assert built == [("kubernetes", ["kubelet", "kubectl"]), ("etcd", ["etcd"])]


def test_links_are_replaced_and_a_pulumi_built_here_is_a_file(tmp_path: Path, built: list[tuple[str, list[str]]]) -> None:
    step = quiet("tools", tmp_path / "log")
    for _ in range(2):
        programs.Tools().link(step, "pulumi", "kind")
    assert not (paths.BIN / "pulumi").is_symlink()
    assert (paths.BIN / "kind").readlink() == tmp_path / "cache" / "kind" / "kind"
    official = _program(tmp_path / "path", "pulumi", "v3.259.0")
    programs.Tools().link(step, "pulumi")
    assert (paths.BIN / "pulumi").readlink() == official


def test_the_go_modules_are_of_the_versions_that_the_lab_names() -> None:
    for family in golang.FAMILIES.values():
        text = (family.directory / "go.mod").read_text()
        pin = re.search(rf"^(?:require |\t){re.escape(family.module)} (\S+)$", text, re.MULTILINE)
        assert pin, family
        assert pin[1] == family.version or pin[1].endswith(f"-{versions.ISTIO_COMMIT}"), family
    for program in programs.PROGRAMS.values():
        directory = golang.FAMILIES[program.family].directory
        text = (directory / "go.mod").read_text()
        written_here = (directory / "main.go").is_file() and f"module {program.package}\n" in text
        assert written_here or re.search(rf"^(?:tool |\t){re.escape(program.package)}$", text, re.MULTILINE), program


def test_builds_have_the_same_flags_for_the_compiler_so_that_they_share_packages() -> None:
    assert len({tuple(flag for flag in family.flags if not flag.startswith("-ldflags=")) for family in golang.FAMILIES.values()}) == 1


def test_flags_and_pins_are_part_of_a_programs_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(golang, "DIRECTORY", tmp_path)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "go.mod").write_text("module x")
    (tmp_path / "f" / "go.sum").write_text("")
    family = golang.Family("f", "example.org/f", "v1")
    first = golang.key(family, "program")
    assert golang.key(golang.Family("f", "example.org/f", "v1", {"main.version": "v1"}), "program") != first
    (tmp_path / "f" / "go.sum").write_text("example.org/g v2 h1:x")
    second = golang.key(family, "program")
    assert second != first
    (tmp_path / "f" / "main.go").write_text("package main")
    assert golang.key(family, "program") != second
    assert golang.key(golang.Family("g", "example.org/g", "v1", graph="f"), "program") == golang.key(family, "program")


def test_a_build_says_how_far_it_is() -> None:
    downloads = golang._Downloads("kind")
    assert downloads("go: downloading example.org/a v1") == "kind: 1 modules downloaded"
    assert downloads("k8s.io/klog") is None
    progress = golang._Packages({"kind": "sigs.k8s.io/kind"}, {"fmt", "k8s.io/klog", "sigs.k8s.io/kind"})
    assert [progress(line) for line in ("fmt", "some warning", "sigs.k8s.io/kind")] == [
        "kind: 1/3 packages",
        None,
        "kind: 2/3 packages, linking kind",
    ]
    assert golang._Packages({"etcd": "e", "kubelet": "k", "kubectl": "l"}, {"e"}).state() == "etcd and 2 more: 0/1 packages"


@pytest.mark.parametrize(
    ("answer", "used"),
    [("go version go1.26.8 linux/amd64", True), ("go version go1.27rc1 linux/amd64", True), ("go version go1.25.9 linux/amd64", False)],
)
def test_go_is_taken_from_path_where_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, used: bool) -> None:
    _program(tmp_path, "go", answer)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert (golang.on_path() is not None) == used
