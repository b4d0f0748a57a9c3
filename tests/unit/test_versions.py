"""Versions as Istio and vendors have them, wherever they stand."""

from __future__ import annotations

import pytest

from components import versions
from components.config.mesh import MeshSettings
from components.istio import charts
from components.istio.scripts import gateway_api
from components.machines.bootstrap import package_url
from tools.mesh_status import advice
from tools.plan import skew
from tools.plan.mesh_model import Versions

OF_VENDORS = ("1.31.0-asm.3", "1.31.0-tetrate", "1.31.0-tetrate-v2", "1.31.0-distroless", "1.31.0+build.7", "1.31.0-rc.1+sha.5114f85")


@pytest.mark.parametrize("version", ["1.31.0", *OF_VENDORS])
def test_a_vendors_version_is_read_wherever_it_stands(version: str) -> None:
    assert versions.is_release(version)
    for place in ("{}", "https://example.com/releases/{}/deb/istio-sidecar.deb", "https://example.com/sidecar-{}.deb",
                  "https://example.com/sidecar_{}_amd64.deb", "https://example.com/sidecar-{}.x86_64.rpm", "Istio {}, of a vendor"):  # fmt: skip
        assert versions.version_in(place.format(version)) == version, place
        assert versions.numbers(place.format(version)) == (1, 31, 0)


@pytest.mark.parametrize(
    "text", ["1.31", "v1.31.0", "1.31.0-", "1.31.0+", "1.31.0 asm", "1.31.0-a;b", "1.31.0-$(b)", "1.31.0\n", "1.31.0-a..b", ""]
)
def test_what_is_no_version_is_none(text: str) -> None:
    assert not versions.is_release(text)


def test_packages_and_charts_have_no_variant_of_images_and_tags_no_plus() -> None:
    """`+` is in no tag of an image; Helm has `_` there."""
    for version, package, tag in (
        ("1.31.0-distroless", "1.31.0", "1.31.0-distroless"),
        ("1.31.0-asm.3", "1.31.0-asm.3", "1.31.0-asm.3"),
        ("1.31.0-asm.3-distroless", "1.31.0-asm.3", "1.31.0-asm.3-distroless"),
        ("1.31.0+build.7", "1.31.0+build.7", "1.31.0_build.7"),
    ):
        mesh = MeshSettings(id="a", version=version)
        assert charts.chart(mesh, "istiod").version == package
        assert f"/{package}/" in package_url(mesh)
        assert charts.istiod_values(mesh, "pods")["global"]["tag"] == tag
        assert charts.facts(mesh, "pods").proxy_image == f"docker.io/istio/proxyv2:{tag.removesuffix('-distroless')}"


def test_versions_are_compared_by_their_numbers() -> None:
    assert advice.version("1.31.0-asm.3", "1.31.0", "cure") == ""
    assert "is older than" in advice.version("1.9.5-tetrate", "1.31.0+build", "cure")
    sides = Versions(control_plane="1.31.0-asm.3", machines="1.30.2-tetrate", pods="1.31.0_build")
    assert skew.skew_of(sides) == 1
    assert min(("1.31.0-asm.3", "1.9.9-tetrate"), key=versions.numbers) == "1.9.9-tetrate"
    crd = {"metadata": {"annotations": {"gateway.networking.k8s.io/bundle-version": "v1.4.0+gke.2"}}}
    assert gateway_api._release(crd) == (1, 4, 0)


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("v1.33.5-gke.1201000", "1.33"),
        ("v1.33.4+k3s1", "1.33"),
        ("v1.33.5-eks-abc123", "1.33"),
        ("v1.34.0+rke2r1", "1.34"),
        ("v1.38.0-alpha.1.22+0b5a9d7e1f", "1.38"),
        ("v1.35.4", "1.35"),
        ("1.35", "1.35"),
        ("v1.35_build", "1.35"),
        ("latest", ""),
        ("v1", ""),
        ("v1.35x", ""),
        ("5000/node", ""),
        ("", ""),
    ],
)
def test_a_minor_version_is_read_whatever_a_vendor_adds(text: str, minor: str) -> None:
    assert versions.minor(text) == minor


@pytest.mark.parametrize("suffix", ["", "-gke.1201000", "+k3s1", "-eks-abc123"])
def test_istio_supports_a_range_of_kubernetes(suffix: str) -> None:
    def outside(istio: str, minor: int) -> str:
        return versions.unsupported_kubernetes(istio, f"v1.{minor}.5{suffix}")

    assert [outside("1.31.0-asm.3", minor) == "" for minor in (31, 32, 37, 38)] == [False, True, True, False]
    assert outside("1.31.0", 38) == outside("1.31.0_build", 38) == "Istio 1.31 supports Kubernetes 1.32 to 1.37"
    assert outside("1.29.8", 38) == "Istio 1.29 supports Kubernetes 1.31 to 1.35"
    assert [versions.is_older_kubernetes("1.31.0", f"v1.{minor}.5{suffix}") for minor in (9, 31, 38)] == [True, True, False]


@pytest.mark.parametrize(
    ("istio", "kubernetes"), [("1.99.0", "1.1"), ("latest", "1.1"), ("", "1.1"), ("1.31.0", ""), ("1.31.0", "v0.0.0-master+$Format:%H$")]
)
def test_a_pair_that_is_not_known_is_none_that_is_unsupported(istio: str, kubernetes: str) -> None:
    assert versions.unsupported_kubernetes(istio, kubernetes) == ""
