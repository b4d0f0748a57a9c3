"""Versions of Istio and of other releases, with what vendors add to them. Pure."""

from __future__ import annotations

import re

_RELEASE = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:[-+][0-9A-Za-z]+(?:[-.+_][0-9A-Za-z]+)*)?")
# What may follow a version in the name of a package.
_OF_PACKAGES = re.compile(r"(?:[-._](?:amd64|arm64|x86_64|aarch64))?\.(?:deb|rpm)$")
_VARIANTS = ("distroless", "debug")
"""Variants of Istio's images, which packages and charts do not have."""
_MINOR = re.compile(r"v?(\d+)\.(\d+)(?![0-9A-Za-z])")
KUBERNETES_OF_ISTIO = {(1, 29): (31, 35), (1, 30): (32, 36), (1, 31): (32, 37)}
"""By minor version of Istio: the first and the last minor version of Kubernetes 1 that it supports.

Source: istio.io, Supported Releases, "Support status of Istio releases", which is
data/compatibility/supportStatus.yml of istio/istio.io. The table grows after a release: 1.37 was
added to 1.31 on 2026-09-30.
"""


def is_release(text: str) -> bool:
    """Return whether a text is a version: three numbers, and a vendor's suffix if there is one.

    Such as 1.31.0, 1.31.0-asm.3, 1.31.0-tetrate-v2, 1.31.0-distroless and 1.31.0+build.7.
    """
    return _RELEASE.fullmatch(text) is not None


def version_in(text: str) -> str:
    """Return the first version in a URL or a description, with its suffix; "" where there is
    none.
    """
    matched = _RELEASE.search(text)
    return _OF_PACKAGES.sub("", matched[0]) if matched else ""


def numbers(text: str) -> tuple[int, ...]:
    """Return the three numbers of the first version in a text, to compare; () where there is
    none.
    """
    matched = _RELEASE.search(text)
    return tuple(map(int, matched.groups())) if matched else ()


def without_variant(version: str) -> str:
    """Return the version of packages and charts, whatever the variant of images is."""
    for variant in _VARIANTS:
        version = version.removesuffix(f"-{variant}")
    return version


def image_tag(version: str) -> str:
    """Return a version as images have it: a tag has no `+`, for which registries have `_`, as
    Helm does.
    """
    return version.replace("+", "_")


def minor(version: str) -> str:
    """Return major and minor version of a text that begins with a version; "" for another text.

    Such as 1.33 of v1.33.5-gke.1201000, v1.33.4+k3s1, v1.33.5-eks-abc123 and v1.33.
    """
    matched = _MINOR.match(version)
    return f"{matched[1]}.{matched[2]}" if matched else ""


def unsupported_kubernetes(istio: str, kubernetes: str) -> str:
    """Return which versions of Kubernetes a version of Istio supports, as a clause.

    It is "" where `kubernetes` is one of them, and where one of both versions is not known. Builds
    without a version are 0.0.
    """
    pair = _MINOR.match(istio), _MINOR.match(kubernetes)
    if pair[0] is None or pair[1] is None:
        return ""
    of_istio, of_kubernetes = ((int(each[1]), int(each[2])) for each in pair if each)
    if of_istio not in KUBERNETES_OF_ISTIO or of_kubernetes == (0, 0):
        return ""
    first, last = KUBERNETES_OF_ISTIO[of_istio]
    if (1, first) <= of_kubernetes <= (1, last):
        return ""
    return f"Istio {minor(istio)} supports Kubernetes 1.{first} to 1.{last}"


def is_older_kubernetes(istio: str, kubernetes: str) -> bool:
    """Return whether a version of Kubernetes that `istio` does not support is older than those."""
    of_istio, of_kubernetes = (tuple(map(int, minor(each).split("."))) for each in (istio, kubernetes))
    return of_kubernetes < (1, KUBERNETES_OF_ISTIO[of_istio[0], of_istio[1]][0])
