"""How far the versions of proxies and control plane are apart. Pure."""

from __future__ import annotations

from dataclasses import replace

from .mesh_model import Versions

MOST_BEHIND = 1
"""Minor versions that a proxy may be behind its control plane, and none ahead (istio.io: Supported
Releases, "Control Plane/Data Plane Skew")."""

_MAJOR = 100
"""Minor versions that a major version counts as."""


def while_updating(before: Versions, after: Versions) -> tuple[Versions, ...]:
    """Return the versions that a mesh has until the update is complete, the last ones first.

    The control plane is updated first; until a proxy restarts it has the former version.
    """
    return after, replace(before, control_plane=after.control_plane)


def worst(*sides: Versions) -> int | None:
    """Return the skew of several states of a mesh: the one ahead if there is one, else the most."""
    skews = [skew for each in sides if (skew := skew_of(each)) is not None]
    if not skews:
        return None
    return min(skews) if min(skews) < 0 else max(skews)


def skew_of(versions: Versions) -> int | None:
    """Return how many minor versions the proxy that differs most is behind the control plane.

    Below zero it is ahead. None: a version is not known.
    """
    plane = _minor(versions.control_plane)
    proxies = [minor for text in (versions.machines, versions.pods) if (minor := _minor(text))]
    if plane is None or not proxies:
        return None
    behind = [plane - proxy for proxy in proxies]
    return min(behind) if min(behind) < 0 else max(behind)


def _minor(version: str) -> int | None:
    """Return the minor version as a number that can be compared; None for a build without one."""
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    is_version = major.isdecimal() and minor.isdecimal()
    return _MAJOR * int(major) + int(minor) if is_version else None
