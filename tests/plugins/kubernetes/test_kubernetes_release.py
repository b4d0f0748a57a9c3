"""`helm.sh/v3:Release` with the real helm, against a real API server."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes
import pytest

from tests.plugins.kubernetes.one_resource import Resource
from tests.support import control_plane
from tests.support.cli_stack import Stack
from tests.support.control_plane import ControlPlane
from tests.support.waiting import when
from tools.lab import paths, repair_helm_releases
from tools.standins.kubernetes import charts
from tools.standins.kubernetes.plugin import RELEASE, Kubernetes
from tools.standins.provider import UNKNOWN, InitFailed, ProviderError, Refused, Secret
from tools.steps import quiet

pytestmark = pytest.mark.usefixtures("helm")

CANARY = "canary-51d7aa"
DEFAULTS = {
    **dict.fromkeys(
        ("allowNullValues", "atomic", "cleanupOnFail", "createNamespace", "dependencyUpdate", "devel", "disableCRDHooks"), False
    ),
    **dict.fromkeys(("disableOpenapiValidation", "disableWebhooks", "forceUpdate", "lint", "recreatePods", "renderSubchartNotes"), False),
    **dict.fromkeys(("replace", "resetValues", "reuseValues", "skipAwait", "skipCrds", "verify", "waitForJobs"), False),
    **dict.fromkeys(("description", "keyring", "postrender"), ""),
}
DEFINITION = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: widgets.{{ .Release.Namespace }}.example.com
  annotations: {"helm.sh/resource-policy": keep}
spec:
  group: {{ .Release.Namespace }}.example.com
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
"""
SETTINGS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: {{ .Values.color | quote }}, token: {{ .Values.token | default "" | quote }}}
"""
WORKLOAD = """\
{{- if .Values.replicas }}
apiVersion: apps/v1
kind: Deployment
metadata: {name: it}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: it}}
  template:
    metadata: {labels: {app: it}}
    spec: {containers: [{name: it, image: it}]}
{{- end }}
{{- if eq .Values.color "error" }}{{ fail .Values.token }}{{ end }}
"""


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    directory = tmp_path / "tiny"
    (directory / "templates").mkdir(parents=True)
    (directory / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 1.2.3\nappVersion: '4.5'\n")
    (directory / "values.yaml").write_text("color: red\n")
    for name, text in (("definition", DEFINITION), ("settings", SETTINGS), ("workload", WORKLOAD)):
        (directory / "templates" / f"{name}.yaml").write_text(text)
    return directory


def inputs(chart: Path, namespace: str, **values: Any) -> dict[str, Any]:
    return {"compat": "true", "chart": str(chart), "name": "tiny", "namespace": namespace, "values": values}


def color(plane: ControlPlane, namespace: str) -> str | None:
    settings = plane.cluster.get("v1", "ConfigMap", namespace, "settings")
    return settings["data"]["color"] if settings else None


def test_life_of_a_release(plane: ControlPlane, objects: Stack, namespace: str, chart: Path) -> None:
    """Install, nothing to do, upgrade, uninstall."""
    settings: dict[str, Any] = {"color": "blue"}

    def program() -> None:
        provider = pulumi_kubernetes.Provider("cluster", kubeconfig=pulumi.Output.secret(plane.kubeconfig), cluster_identifier="test")
        release = pulumi_kubernetes.helm.v3.Release(
            "tiny",
            name="tiny",
            chart=str(chart),
            namespace=namespace,
            values={**settings, "token": pulumi.Output.secret(CANARY)},
            timeout=60,
            atomic=True,
            cleanup_on_fail=True,
            create_namespace=False,
            skip_await=False,
            opts=pulumi.ResourceOptions(provider=provider),
        )
        pulumi.export("status", release.status.status)
        pulumi.export("names", release.resource_names)

    objects.up(program)
    assert color(plane, namespace) == "blue"
    outputs = objects.resources()["tiny"]["outputs"]
    assert outputs["status"] | {"revision": 1} == {
        "appVersion": "4.5",
        "chart": "tiny",
        "name": "tiny",
        "namespace": namespace,
        "revision": 1,
        "status": "deployed",
        "version": "1.2.3",
    }
    assert outputs["resourceNames"]["ConfigMap/v1"] == ["settings"]
    given = {"atomic": True, "chart": str(chart), "cleanupOnFail": True, "name": "tiny", "namespace": namespace, "timeout": 60}
    saved = objects.resources()["tiny"]["inputs"]
    assert saved.pop("values")["color"] == "blue" and saved == {**DEFAULTS, **given, "version": "1.2.3"}, "as the official plugin saves it"
    assert not objects.files_with(CANARY)
    assert objects.up(program).changes() == {"unchanged": 3}
    assert "update" not in objects.refresh().output

    settings["color"] = "green"
    assert '~ color: "blue" => "green"' in objects.preview(program, "--diff").output
    objects.up(program)
    assert color(plane, namespace) == "green"
    objects.destroy()
    assert color(plane, namespace) is None


def test_changes_of_the_chart(plane: ControlPlane, provider: Kubernetes, namespace: str, chart: Path) -> None:
    """Another version or description is an upgrade; definitions that an uninstall left are taken
    over by the next install.
    """
    release = Resource(provider, RELEASE)
    release.up(inputs(chart, namespace))
    assert not release.diff(inputs(chart, namespace)).changes
    (chart / "templates" / "settings.yaml").write_text(SETTINGS.replace("quote", "upper | quote", 1))
    assert not release.diff(inputs(chart, namespace)).changes, "only the version says that a chart changed"
    assert release.diff(inputs(chart, namespace) | {"description": "new"}).changes == {"description": "update"}
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 1.2.4\nappVersion: '4.5'\n")
    assert release.diff(inputs(chart, namespace)).changes == {"version": "update"}
    release.up(inputs(chart, namespace))
    assert color(plane, namespace) == "RED"
    release.delete()
    assert plane.cluster.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", f"widgets.{namespace}.example.com")
    assert Resource(provider, RELEASE).up(inputs(chart, namespace))["status"]["revision"] == 1


def test_refresh_reports_the_drift_of_a_release(plane: ControlPlane, provider: Kubernetes, namespace: str, chart: Path) -> None:
    """Values set by hand are seen by a refresh; a value that the program drops goes back to the
    chart's default.
    """
    release = Resource(provider, RELEASE)
    release.up(inputs(chart, namespace, color="blue", token=Secret(CANARY)))
    release.up(inputs(chart, namespace, token=Secret(CANARY)))
    assert color(plane, namespace) == "red"
    hand = Resource(provider, RELEASE, id=release.id, inputs=release.inputs, state=release.state)
    hand.up(inputs(chart, namespace, color="pink", token=Secret(CANARY)))
    release.refresh()
    assert release.diff(inputs(chart, namespace, token=Secret(CANARY))).changes == {"values.color": "delete"}
    assert release.inputs and release.inputs["values"]["token"] == Secret(CANARY)
    release.delete()
    assert release.refresh() is None


def test_an_existing_release_is_not_adopted(plane: ControlPlane, provider: Kubernetes, namespace: str, chart: Path) -> None:
    Resource(provider, RELEASE, name="theirs").up(inputs(chart, namespace, color="theirs"))
    with pytest.raises(ProviderError, match="cannot re-use a name that is still in use"):
        Resource(provider, RELEASE).up(inputs(chart, namespace, color="ours"))
    assert color(plane, namespace) == "theirs"


def test_a_release_that_does_not_become_ready(plane: ControlPlane, provider: Kubernetes, namespace: str, chart: Path) -> None:
    """It says what is not ready, is kept as failed, and the next `up` repairs it."""
    release = Resource(provider, RELEASE, timeout=10)
    with pytest.raises(
        InitFailed, match=r"was not installed completely \(failed\): .*waiting for Deployment it to be available \(0/1"
    ) as failure:
        release.up(inputs(chart, namespace, replicas=1, token=Secret(CANARY)))
    assert failure.value.id == f"{namespace}/tiny" and CANARY not in str(failure.value)
    release.id, release.state, release.inputs, release.timeout = failure.value.id, failure.value.state, inputs(chart, namespace), 120
    assert release.up(inputs(chart, namespace, color="fixed"))["status"]["status"] == "deployed"


@pytest.fixture
def arguments() -> Iterator[list[str]]:
    """The command lines and environments of all helm processes, collected while the test runs."""
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    line = (process / "cmdline").read_bytes()
                    if line.split(b"\0")[0].endswith(b"helm"):
                        seen.append((line + (process / "environ").read_bytes()).decode(errors="replace"))
                except OSError:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    stop.set()
    thread.join()


def test_nothing_secret_leaks(plane: ControlPlane, provider: Kubernetes, namespace: str, chart: Path, arguments: list[str]) -> None:
    """Not on a command line, not in an environment, not in an error, though the chart itself
    quotes the value.
    """
    release = Resource(provider, RELEASE)
    with pytest.raises(ProviderError, match=r"helm install tiny: .*\[secret\]") as failure:
        release.up(inputs(chart, namespace, color="error", token=Secret(CANARY)))
    assert CANARY not in str(failure.value)
    release.up(inputs(chart, namespace, color="red"))
    with pytest.raises(ProviderError, match=r"helm upgrade tiny: .*\[secret\]") as failure:
        release.up(inputs(chart, namespace, color="error", token=Secret(CANARY)))
    assert not isinstance(failure.value, InitFailed), "nothing has changed, so the state must not"
    assert arguments and not any(CANARY in each or "PRIVATE KEY" in each for each in arguments)


def test_an_interrupt_ends_helm(plane: ControlPlane, provider: Kubernetes, namespace: str, chart: Path) -> None:
    release = Resource(provider, RELEASE, timeout=60)
    request = release.request(inputs=release.check(inputs(chart, namespace, replicas=1)).inputs)
    installed = lambda: plane.cluster.get("apps/v1", "Deployment", namespace, "it") is not None  # noqa: E731
    with when(installed, request.cancel), pytest.raises(InitFailed, match=r"was not installed completely \(failed\): interrupted"):
        provider.create(request)
    assert subprocess.run(["pgrep", "-f", f"helm install tiny .*{namespace}"], check=False).returncode == 1


def test_inputs_of_a_release_are_checked(provider: Kubernetes, namespace: str, chart: Path) -> None:
    """Defaults, names, unknowns, and what is refused."""
    release = Resource(provider, RELEASE, name="mesh")
    checked = release.check({"chart": str(chart)}).inputs
    assert checked["name"].startswith("mesh-") and checked["namespace"] == "default"
    assert (checked["timeout"], checked["version"]) == (300, "1.2.3")
    assert release.check({"chart": UNKNOWN}).inputs["chart"] is UNKNOWN
    assert "no chart at" in release.check({"chart": "./absent"}).failures[0].reason
    with pytest.raises(Refused, match="does not implement the argument 'postrender' of a Release"):
        release.check({"chart": str(chart), "postrender": "x"})
    with pytest.raises(Refused, match=r"does not implement `repositoryOpts.password` of a Release"):
        release.check({"chart": "x", "repositoryOpts": {"repo": "https://charts.example.com", "password": Secret("x")}})
    preview = release.preview({"chart": str(chart), "values": {"a": UNKNOWN}})
    assert preview["status"] is UNKNOWN and preview["values"] == {"a": UNKNOWN}


def test_the_lab_repairs_releases_of_a_killed_run(
    plane: ControlPlane, provider: Kubernetes, namespace: str, chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Helm refuses to go on from there; the lab removes what was being installed, and rolls an
    upgrade back.
    """
    monkeypatch.setattr(paths, "BIN", control_plane.program("helm").parent)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(plane.kubeconfig)

    def left(number: int, status: str) -> None:
        """Helm's own record says that it was killed."""
        stored = f"/api/v1/namespaces/{namespace}/secrets/sh.helm.release.v1.tiny.v{number}"
        release = charts.revisions(plane.cluster, namespace, "tiny")[-1].release()
        release["info"]["status"] = status
        data = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(release).encode()))).decode()
        plane.patch(stored, {"metadata": {"labels": {"status": status}}, "data": {"release": data}})

    def settle(type: str) -> None:
        resource = {"type": RELEASE, "inputs": {"name": "tiny", "namespace": namespace}}
        repair_helm_releases.repair(quiet("up", tmp_path / "log"), [{"type": type, "resource": resource}], kubeconfig)

    Resource(provider, RELEASE).up(inputs(chart, namespace, color="one"))
    left(1, "pending-install")
    with pytest.raises(ProviderError, match="cannot re-use a name that is still in use"):
        Resource(provider, RELEASE).up(inputs(chart, namespace, color="two"))
    settle("creating")
    settle("creating")  # nothing is there any more
    release = Resource(provider, RELEASE)
    assert release.up(inputs(chart, namespace, color="two"))["status"]["revision"] == 1

    release.up(inputs(chart, namespace, color="three"))
    left(2, "pending-upgrade")
    with pytest.raises(InitFailed, match=f"the status of Helm release {namespace}/tiny is pending-upgrade"):
        release.refresh()
    with pytest.raises(ProviderError, match=r"another operation .* is in progress"):
        release.up(inputs(chart, namespace, color="four"))
    settle("updating")
    assert color(plane, namespace) == "two"
    assert release.up(inputs(chart, namespace, color="four"))["status"]["status"] == "deployed"
    settle("updating")
    assert color(plane, namespace) == "four", "what is not pending stays"
