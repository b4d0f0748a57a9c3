"""Which control plane of a cluster a stack means, by its revisions and tags."""

from __future__ import annotations

from typing import Any

import pytest

from components.istio import revisions
from tests.support.meshes import MESHES


def deployment(revision: str) -> dict[str, Any]:
    return {"metadata": {"labels": {"istio.io/rev": revision}}}


@pytest.mark.parametrize(
    ("present", "tags", "wanted", "expected"),
    [
        (["default"], {}, None, ("default", {"istio-injection": "enabled"})),
        (["1-31"], {}, None, ("1-31", {"istio.io/rev": "1-31"})),
        (["1-31", "1-30"], {"default": "1-30"}, None, ("1-30", {"istio-injection": "enabled"})),
        (["1-31", "default"], {}, None, ("default", {"istio-injection": "enabled"})),
        (["1-31", "1-30"], {"prod": "1-30"}, "prod", ("1-30", {"istio.io/rev": "prod"})),
        (["1-31", "1-30"], {"prod": "1-30"}, "1-31", ("1-31", {"istio.io/rev": "1-31"})),
        (["1-31", "default"], {}, "default", ("default", {"istio-injection": "enabled"})),
    ],
)
def test_a_revision_or_a_tag_chooses_the_control_plane(
    present: list[str], tags: dict[str, str], wanted: str | None, expected: tuple[str, dict[str, str]]
) -> None:
    plane = revisions.choose([deployment(each) for each in present], tags, wanted)
    assert (plane.revision, plane.injection_labels) == expected


@pytest.mark.parametrize("wanted", [None, "canary", "gone"])
def test_a_choice_that_nothing_makes_is_asked_for_with_what_there_is(wanted: str | None) -> None:
    with pytest.raises(ValueError, match=r"set mesh\.revision to one of 1-30, 1-31, prod$"):
        revisions.choose([deployment("1-31"), deployment("1-30")], {"prod": "1-30", "gone": "1-2"}, wanted)


def test_tags_of_a_mesh_in_another_namespace_are_not_this_meshs() -> None:
    webhooks = MESHES["elsewhere"]["webhooks"]
    assert revisions.tags_of(webhooks, "mesh-system") == {"default": "blue", "stable": "blue"}
    assert revisions.tags_of(webhooks, "istio-system") == {}
