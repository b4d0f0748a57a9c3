"""Installing the Gateway API's CRDs."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.istio.scripts import gateway_api
from components.local import scripting
from components.local.cluster_access import ClusterAccess
from tests.support.fake_programs import Programs

NONE = ("get crd/", 1, "", "not found")


def words(programs: Programs) -> list[str]:
    """The verbs of kubectl's calls."""
    return [call.words[3] for call in programs.calls("kubectl")]


def test_crds_that_are_there_stay_as_they_are(programs: Programs) -> None:
    programs.add("kubectl")
    gateway_api.run(gateway_api.Payload(ClusterAccess(path="theirs"), "crds.yaml"))
    assert words(programs) == ["get"]


def test_istiod_is_restarted_where_it_runs(programs: Programs) -> None:
    programs.add("kubectl", NONE)
    gateway_api.run(gateway_api.Payload(ClusterAccess(path="theirs"), "https://example.com/crds.yaml"))
    assert words(programs) == ["get", "apply", "wait", "get", "rollout", "rollout"]
    assert programs.calls()[1].line.endswith("apply --server-side --filename https://example.com/crds.yaml")
    programs.add("kubectl", NONE, ("get deployment/istiod", 1, "", "not found"))
    before = len(programs.calls())
    gateway_api.run(gateway_api.Payload(ClusterAccess(path="theirs"), "crds.yaml"))
    assert words(programs)[before:] == ["get", "apply", "wait", "get"]


def test_a_directory_is_applied_as_one_text(programs: Programs, tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "README"):
        (tmp_path / name).write_text(f"{name}: 1")
    programs.add("kubectl", NONE)
    gateway_api.run(gateway_api.Payload(ClusterAccess(path="theirs"), str(tmp_path)))
    assert programs.calls()[1].stdin == "---\na.yaml: 1\n---\nb.yaml: 1\n"


def test_kubectls_reason_is_passed_on(programs: Programs) -> None:
    programs.add("kubectl", NONE, ("apply", 1, "", "error: the path does not exist\n"))
    with pytest.raises(scripting.Failed, match=r"check mesh.gatewayApi: error: the path does not exist"):
        gateway_api.run(gateway_api.Payload(ClusterAccess(path="theirs"), "nowhere.yaml"))
