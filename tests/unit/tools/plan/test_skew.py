"""The skew of a mesh is that of the proxy that differs most, also while an update runs."""

from __future__ import annotations

import pytest

from tools.plan.mesh_model import Versions
from tools.plan.skew import skew_of, while_updating, worst


def all_of(version: str) -> Versions:
    return Versions(control_plane=version, machines=version, pods=version)


@pytest.mark.parametrize(
    ("control_plane", "machines", "pods", "skew"),
    [
        ("1.31.0", "1.31.4", "1.31.1", 0),
        ("1.31.0", "1.30.9", "1.31.0", 1),
        ("1.31.0", "1.29.0", "1.32.0", -1),
        ("1.31.0", "1.29.0", "", 2),
        ("2.0.0", "1.31.0", "", 69),
        ("1.31.0-alpha.1", "1.30.0", "", 1),
        ("", "1.31.0", "1.31.0", None),
        ("1.31.0", "", "", None),
        ("latest", "1.31.0", "", None),
    ],
)
def test_the_skew_of_a_mesh(control_plane: str, machines: str, pods: str, skew: int | None) -> None:
    versions = Versions(control_plane=control_plane, machines=machines, pods=pods)
    assert skew_of(versions) == skew


@pytest.mark.parametrize(
    ("before", "after", "skew"),
    [
        ("1.30.0", "1.31.0", 1),
        ("1.29.0", "1.31.0", 2),
        ("1.31.0", "1.30.0", -1),
        ("1.31.0", "1.31.1", 0),
    ],
)
def test_an_update_begins_with_the_control_plane(before: str, after: str, skew: int) -> None:
    assert worst(*while_updating(all_of(before), all_of(after))) == skew
