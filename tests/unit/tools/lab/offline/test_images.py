"""The lab's images: what identifies them, what goes into a build, the root file systems below them, and the sidecar's package."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tools.lab.offline import images, packages, programs, rootfs, versions
from tools.steps import StepError

ALL = (
    *images.IMAGES,
    *images.COMPONENTS,
    images.LIVED_IN,
    images.COMPUTE_ENGINE,
    images.VIRTUAL_MACHINE,
    images.INSTALL_CNI,
    packages.IMAGE,
)


def test_every_image_has_its_dockerfile_and_known_parts() -> None:
    for image in ALL:
        dockerfile = (images.DIRECTORY / image.directory / "Dockerfile").read_text().replace("$BASE", image.base or "")
        below = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) - {"scratch"}
        bases = [image.base, *image.further_bases] if image.base else []
        assert below == {rootfs.name(base) for base in bases if base}, image.name
        for source in image.files.values():
            name = source.partition(":")[0]
            assert name in programs.PROGRAMS or name in programs.DIRECTORIES or name in ("envoy", "pause"), source


def test_the_stage_of_a_build_can_be_removed_by_its_label() -> None:
    for file in images.DIRECTORY.glob("*/Dockerfile"):
        for stage in re.findall(r"^FROM .* AS .*\n(.*)$", file.read_text(), re.MULTILINE):
            assert stage == f"LABEL {images.LABEL}=stage", file


def test_inputs_change_with_everything_that_goes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.IMAGES[0]
    seen = {image.inputs}
    assert image.inputs in seen
    for change in (
        {"name": "other"},
        {"directory": "echo"},
        {"base": "machine"},
        {"further_bases": ("machine",)},
        {"files": {"files/x": "pilot-agent"}},
        {"texts": {"x": "y"}},
        {"loaded": images.COMPONENTS[:1]},
    ):
        changed = dataclasses.replace(image, **change).inputs
        assert changed not in seen, change
        seen.add(changed)
    monkeypatch.setitem(rootfs.PACKAGES, "base", ("bash",))
    assert image.inputs not in seen


class FakeEngine:
    """Knows the labels of images, as `docker image inspect` answers."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        label = self.labels.get(arguments[-1])
        return subprocess.CompletedProcess(arguments, 1 if label is None else 0, f"{label or ''}\n".encode(), b"")


def test_an_image_is_used_if_it_is_not_ours_or_ours_of_these_inputs() -> None:
    image = images.IMAGES[0]
    for labels, usable, origin in (
        ({}, False, "built here, not made yet"),
        ({image.name: ""}, True, "in the engine already"),
        ({image.name: image.inputs}, True, "built here"),
        ({image.name: "0123"}, False, "built here, to be rebuilt"),
    ):
        engine = FakeEngine(labels)
        assert images.usable(engine, image) is usable  # type: ignore[arg-type]
        assert images.listing(engine)[0] == (image.name, origin)  # type: ignore[arg-type]


def test_a_context_is_the_same_for_the_same_inputs(tmp_path: Path) -> None:
    directory = tmp_path / "image"
    (directory / "files/etc").mkdir(parents=True)
    (directory / "Dockerfile").write_text("FROM scratch\n")
    (directory / "files/etc/unit").write_text("[Unit]\n")
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF...")
    more = tmp_path / "more"
    more.mkdir()
    (more / "script").write_text("#!/bin/sh\n")
    sources: dict[str, Path | str] = {"files/bin/program": program, "kind": more, "files/version": "v1"}
    context = images.build_context(directory, sources)
    for file in (program, directory / "Dockerfile"):
        file.touch()
    program.chmod(0o600)
    assert images.build_context(directory, sources) == context
    with tarfile.open(fileobj=io.BytesIO(context)) as archive:
        assert {entry.name: (entry.mode, entry.uid, entry.mtime) for entry in archive} == {
            "Dockerfile": (0o644, 0, 0),
            "files/bin/program": (0o755, 0, 0),
            "files/etc/unit": (0o644, 0, 0),
            "files/version": (0o644, 0, 0),
            "kind/script": (0o755, 0, 0),
        }


def test_the_archives_are_the_machines_own() -> None:
    targets = (
        "Debian bookworm http://mirror.example/debian/ main\n"
        "Debian bookworm http://mirror.example/debian/ contrib\n"
        "Debian bookworm-updates http://mirror.example/debian/ main\n"
        "Debian bookworm-security http://mirror.example/security/ main\n"
        "Debian bookworm-backports http://mirror.example/debian/ main\n"
        "Someone bookworm http://other.example/ main\n"
    )
    assert rootfs._archives(targets, "bookworm") == [
        "deb http://mirror.example/debian/ bookworm main",
        "deb http://mirror.example/debian/ bookworm-updates main",
        "deb http://mirror.example/security/ bookworm-security main",
    ]
    assert rootfs._archives(targets, "trixie")[0] == "deb http://mirror.example/debian/ trixie main"
    with pytest.raises(StepError, match="no Debian archive"):
        rootfs._archives("Someone bookworm http://other.example/ main\n", "bookworm")


def test_the_machines_way_to_its_archives_is_kept() -> None:
    configuration = (
        'Acquire "";\nAcquire::http "";\nAcquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::https::CaInfo "/etc/ssl/own.pem";\nAcquire::http::Dl-Limit "";\nAcquire::IndexTargets "";\n'
    )
    assert rootfs._access(configuration) == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::CaInfo "/etc/ssl/own.pem";',
    ]


def test_the_node_needs_nothing_beyond_an_unmodified_kind_configuration() -> None:
    network = json.loads((images.DIRECTORY / "node/files/kind/network/10-lab.conflist").read_text())
    ptp, portmap = network["plugins"]
    assert (ptp["type"], ptp["ipMasq"], ptp["ipam"]["ranges"]) == ("ptp", False, [[{"subnet": "10.244.0.0/16"}]])
    assert portmap["type"] == "portmap"
    for name in ("default-cni", "default-storage"):
        assert "kind: ConfigMap" in (images.DIRECTORY / f"node/files/kind/manifests/{name}.yaml").read_text()


def test_the_package_is_istios(tmp_path: Path) -> None:
    fields = dict(line.split(": ", 1) for line in packages.CONTROL.splitlines())
    assert (fields["Package"], fields["Version"]) == ("istio-sidecar", versions.ISTIO)
    assert fields["Depends"] == "iproute2, iptables, sudo, hostname"
    installed = {path.removeprefix("package/") for path in packages.IMAGE.files if not path.startswith("package/DEBIAN/")}
    assert installed == {
        *(f"usr/local/bin/{name}" for name in ("envoy", "pilot-agent", "istio-start.sh")),
        "lib/systemd/system/istio.service",
        *(f"var/lib/istio/envoy/{name}" for name in ("sidecar.env", "envoy_bootstrap_tmpl.json")),
    }
    assert {file.removeprefix("/") for file in packages.CONFFILES.split()} <= installed
    assert packages.IMAGE.files["package/DEBIAN/postinst"] == "istio-packaging:postinst.sh"


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="not a Debian machine")
def test_the_same_files_make_the_same_package(tmp_path: Path) -> None:
    for round in ("one", "two"):
        root = tmp_path / round / "package"
        for path, content in {
            "DEBIAN/control": packages.CONTROL,
            "DEBIAN/conffiles": "",
            "DEBIAN/postinst": "#!/bin/bash\n",
            "usr/local/bin/envoy": "#!/bin/sh\n",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
        (root / "DEBIAN/postinst").chmod(0o755)
        package = tmp_path / round / "istio-sidecar.deb"
        subprocess.run(["sh", images.DIRECTORY / "packages/build.sh", root, package], check=True, capture_output=True)
        subprocess.run(["sha256sum", "--check", "istio-sidecar.deb.sha256"], cwd=package.parent, check=True, capture_output=True)
    assert (tmp_path / "one/istio-sidecar.deb").read_bytes() == (tmp_path / "two/istio-sidecar.deb").read_bytes()


def test_the_server_is_bound_to_dockers_bridge() -> None:
    assert packages._address('[{"Subnet":"172.17.0.0/16"}]') == "172.17.0.1"
    assert packages._address('[{"Subnet":"fd00::/64"},{"Subnet":"10.9.0.0/24","Gateway":"10.9.0.254"}]') == "10.9.0.254"
    with pytest.raises(StepError, match="bridge"):
        packages._address("null")


@pytest.mark.parametrize("script", sorted(images.DIRECTORY.glob("*/*.sh")), ids=lambda script: f"{script.parent.name}/{script.name}")
def test_the_scripts_are_valid(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
