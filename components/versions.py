"""Versions of Istio and of other releases, with what vendors add to them. Pure."""

from __future__ import annotations

import re

_RELEASE = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:[-+][0-9A-Za-z]+(?:[-.+_][0-9A-Za-z]+)*)?")
# What may follow a version in the name of a package.
_OF_PACKAGES = re.compile(r"(?:[-._](?:amd64|arm64|x86_64|aarch64))?\.(?:deb|rpm)$")
_VARIANTS = ("distroless", "debug")
"""Variants of Istio's images, which packages and charts do not have."""


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
