"""`kubernetes:helm.sh/v3:Release` by the `helm` program on PATH, with inputs and state as
pulumi-kubernetes has them (`helm_release.go`).

As there, only the version shows that a chart changed, and a release that an interrupted run left is
Helm's to refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ..provider import (
    UNKNOWN,
    Cancelled,
    Checked,
    Created,
    Difference,
    Failure,
    Found,
    InitFailed,
    Properties,
    ProviderError,
    Refused,
    Request,
    differences,
    has_unknown,
    plain,
    secret,
)
from . import charts, objects, wait
from .client import ApiError, Cluster, Object, UnknownKind, Unreachable, forgive
from .helm import Helm
from .kubeconfig import Kubeconfig

_DEFAULT_TIMEOUT = 300
_DONE = {"install": "installed", "upgrade": "upgraded"}
_INPUTS = frozenset(
    {
        *("atomic", "chart", "cleanupOnFail", "createNamespace", "description", "name", "namespace", "repositoryOpts", "skipAwait"),
        *("timeout", "values", "version"),
    }
)
_DEFAULTS = {
    **dict.fromkeys(
        ("allowNullValues", "atomic", "cleanupOnFail", "createNamespace", "dependencyUpdate", "devel", "disableCRDHooks"), False
    ),
    **dict.fromkeys(("disableOpenapiValidation", "disableWebhooks", "forceUpdate", "lint", "recreatePods", "renderSubchartNotes"), False),
    **dict.fromkeys(("replace", "resetValues", "reuseValues", "skipAwait", "skipCrds", "verify", "waitForJobs"), False),
    **dict.fromkeys(("description", "keyring", "postrender", "version"), ""),
    "timeout": 0,
}
"""What the inputs hold where the program sets nothing."""
# Sent by the SDK, or in states of older versions, without effect in the official plugin either.
_IGNORED = frozenset({"allowNullValues", "checksum", "compat", "manifest", "resourceNames"})


class Releases:
    """The releases of one cluster."""

    def __init__(self, cluster: Cluster, kubeconfig: Kubeconfig, namespace: str, refusal: Callable[[str], ProviderError]) -> None:
        self._cluster, self._helm, self._namespace, self._refusal = cluster, Helm(kubeconfig), namespace, refusal

    def check(self, request: Request) -> Checked:
        """Fill in name, namespace, timeout, the version of the chart as it is now, and the
        defaults of all the rest.
        """
        for key, value in request.inputs.items():
            if key not in _INPUTS | _IGNORED and value not in (None, False, "", [], {}, 0):
                raise self._refusal(f"the argument {key!r} of a Release")
        inputs = {key: value for key, value in request.inputs.items() if key in _INPUTS and value is not None}
        repository = inputs.get("repositoryOpts") or {}
        for key, value in repository.items() if isinstance(repository, dict) else ():
            if key != "repo" and value:
                raise self._refusal(f"`repositoryOpts.{key}` of a Release")
        if not inputs.get("name"):
            inputs["name"] = request.old_inputs.get("name") or f"{request.name}-{objects.suffix(request.random_seed)}"
        if not inputs.get("namespace"):
            inputs["namespace"] = self._namespace
        if not inputs.get("skipAwait"):
            inputs.setdefault("timeout", _DEFAULT_TIMEOUT)
        inputs = {**_DEFAULTS, **inputs}
        if has_unknown(inputs):
            return Checked(inputs)
        try:
            inputs["version"] = self._version(request, plain(inputs))
        except Refused:
            raise
        except ProviderError as error:
            return Checked(inputs, [Failure("chart", f"{error}; check the chart name and repository configuration")])
        return Checked(inputs)

    def _version(self, request: Request, inputs: Properties) -> str:
        """The version of the chart, which the program may have given as a range."""
        path = charts.local_path(inputs["chart"], _repository(inputs))
        if path:
            return charts.version(path)
        if inputs["version"][:1].isdigit():
            return str(inputs["version"])  # An exact one; no need to ask the repository.
        shown = self._helm.run(["show", "chart", *self._source(inputs)], inputs["namespace"], request)
        return next(line.split(":", 1)[1].strip().strip("'\"") for line in shown.splitlines() if line.startswith("version:"))

    def diff(self, request: Request) -> Difference:
        """Compare inputs with inputs. Name and namespace cannot change in place."""
        old = {key: value for key, value in request.old_inputs.items() if key not in ("checksum", "resourceNames")}
        changes = differences(old, request.inputs)
        return Difference(changes, frozenset(path for path in changes if path in ("name", "namespace")))

    def create(self, request: Request) -> Created:
        inputs = plain(request.inputs)
        if request.preview:
            return Created("", {**request.inputs, "resourceNames": UNKNOWN, "status": UNKNOWN})
        return Created(f"{inputs['namespace']}/{inputs['name']}", self._deploy(request, inputs, "install"))

    def update(self, request: Request) -> Properties:
        inputs = plain(request.inputs)
        if request.preview:
            return {**request.inputs, "resourceNames": UNKNOWN, "status": UNKNOWN}
        return self._deploy(request, inputs, "upgrade")

    def _deploy(self, request: Request, inputs: Properties, verb: str) -> Properties:
        """Install or upgrade, and give the state. Raises `InitFailed` when the release is there
        but Helm reports a failure.
        """
        there = self._revisions(inputs)
        timeout = request.timeout or inputs.get("timeout") or _DEFAULT_TIMEOUT
        options = ["--timeout", f"{timeout:g}s"]
        options += [] if inputs.get("skipAwait") else ["--wait"]
        options += ["--atomic"] if inputs.get("atomic") else []
        options += ["--description", inputs["description"]] if inputs.get("description") else []
        if verb == "upgrade":
            # The values are all of them: what the program no longer sets goes back to the chart's
            # default.
            options += ["--reset-values", *(["--cleanup-on-fail"] if inputs.get("cleanupOnFail") else [])]
        else:
            options += ["--create-namespace"] if inputs.get("createNamespace") else []
        command = [verb, inputs["name"], *self._source(inputs), *options]
        request.status(f"helm {verb} {inputs['name']} ({Path(inputs['chart']).name} {inputs.get('version', '')})")
        try:
            self._helm.run(command, inputs["namespace"], request, inputs.get("values") or {}, lambda: self._progress(inputs))
        except ProviderError as error:
            left = self._revisions(inputs)
            if not left or (there and left[-1].number == there[-1].number):
                raise  # Helm has changed nothing: the chart does not accept the values, the name is in use, an interrupted run left it pending.
            release = left[-1].release()
            text = f"Helm release {inputs['namespace']}/{inputs['name']} was not {_DONE[verb]} completely ({left[-1].status}): {error}"
            problems = [] if isinstance(error, Cancelled) else self._problems(release, inputs)
            reasons = [text, *(objects.redacted(each, request.inputs) for each in problems)]
            raise InitFailed(f"{inputs['namespace']}/{inputs['name']}", _state(request.inputs, release), reasons) from None
        return _state(request.inputs, self._revisions(inputs)[-1].release())

    def read(self, request: Request) -> Found | None:
        """Return the release as Helm stored it. Values that were changed by hand are in the inputs
        then; a broken one is reported.
        """
        namespace, name = objects.split_identity(request.id)
        namespace = namespace or self._namespace
        try:
            there = charts.revisions(self._cluster, namespace, name)
        except Unreachable as error:
            forgive(error)
            return None
        if not there:
            return None
        release = there[-1].release()
        metadata = release["chart"]["metadata"]
        inputs = request.inputs or {"name": name, "namespace": namespace, "chart": metadata["name"], "version": metadata["version"]}
        values = release.get("config") or {}
        if values != plain(request.state.get("values") or {}):
            inputs = {**inputs, "values": objects.as_secret_as({"values": values}, inputs)["values"]}
        if request.state and metadata["version"] != plain(request.state.get("version")):
            inputs = {**inputs, "version": metadata["version"]}
        state = _state(inputs, release)
        if there[-1].status != "deployed":
            raise InitFailed(request.id, state, [f"the status of Helm release {namespace}/{name} is {there[-1].status}"], inputs)
        return Found(request.id, state, inputs)

    def delete(self, request: Request) -> None:
        state = plain(request.state)
        try:
            if not self._revisions(state):
                return
        except Unreachable as error:
            forgive(error)
            return
        timeout = request.timeout or state.get("timeout") or _DEFAULT_TIMEOUT
        waiting = ["--wait"] if state.get("atomic") or not state.get("skipAwait") else []
        command = ["uninstall", state["name"], "--ignore-not-found", "--timeout", f"{timeout:g}s", *waiting]
        answer = self._helm.run(command, state["namespace"], request)
        if kept := [line for line in answer.splitlines() if line.startswith("[")]:
            request.log(f"kept by the chart's resource policy: {' '.join(kept)}")

    def _revisions(self, inputs: Properties) -> list[charts.Revision]:
        return charts.revisions(self._cluster, inputs["namespace"], inputs["name"])

    def _source(self, inputs: Properties) -> list[str]:
        """The arguments that say which chart."""
        repository = _repository(inputs)
        path = charts.local_path(inputs["chart"], repository)
        if path:
            return [str(path)]
        version = ["--version", inputs["version"]] if inputs.get("version") else []
        if repository and "://" not in repository:
            return [f"{repository}/{inputs['chart']}", *version]
        return [inputs["chart"], *(["--repo", repository] if repository else []), *version]

    def _progress(self, inputs: Properties) -> str:
        """What the objects of a release that helm is working on wait for."""
        try:
            there = self._revisions(inputs)
            pending = there and there[-1].status.startswith("pending")
            return "; ".join(self._problems(there[-1].release(), inputs)) if pending else ""
        except ProviderError as error:
            return str(error)

    def _problems(self, release: Object, inputs: Properties) -> Iterator[str]:
        """What the objects of a release wait for."""
        for each in charts.manifest(release) if release else ():
            if each["kind"] not in ("Deployment", "Job"):
                continue
            try:
                namespace = each["metadata"].get("namespace") or inputs["namespace"]
                live = self._cluster.get(each["apiVersion"], each["kind"], namespace, each["metadata"]["name"])
                check = wait.check_for(live) if live else None
                verdict = check(self._cluster, live) if live and check else None
            except (ApiError, UnknownKind, Unreachable):
                continue
            if verdict and not verdict.ready:
                yield "; ".join([f"waiting for {verdict.waiting_for}", *verdict.problems])


def _state(inputs: Properties, release: Object) -> Properties:
    """The state of a release, in the official plugin's shape."""
    info, metadata = release.get("info") or {}, release["chart"]["metadata"]
    live: Properties = {"values": release.get("config") or {}, "version": metadata["version"]}
    return {
        **inputs,
        **objects.as_secret_as(live, inputs),
        "resourceNames": charts.resource_names(charts.manifest(release)),
        "status": {
            "appVersion": metadata.get("appVersion", ""),
            "chart": metadata["name"],
            "name": release["name"],
            "namespace": release["namespace"],
            "revision": release["version"],
            "status": info.get("status", ""),
            "version": metadata["version"],
        },
        "__inputs": secret(inputs),
    }


def _repository(inputs: Properties) -> str:
    return (inputs.get("repositoryOpts") or {}).get("repo") or ""
