"""What the engine's operations do with one Kubernetes object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..provider import (
    UNKNOWN,
    Cancelled,
    Checked,
    Created,
    Difference,
    Found,
    InitFailed,
    Properties,
    ProviderError,
    Request,
    has_unknown,
    plain,
)
from . import objects, wait
from .client import ApiError, Cluster, Object, UnknownKind, Unreachable, forgive

_RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 28.0)
"""Seconds between attempts while a namespace, a CustomResourceDefinition or a webhook is not
there yet: about a minute in all.
"""


@dataclass(frozen=True)
class Options:
    """How objects are applied.

    - `mutable`: the kinds (ConfigMap, Secret) whose data changes in place
    - `upsert`: creating an object takes over one of its name
    - `force`: take fields from other managers
    - `settle`: see `wait.SETTLE`
    """

    mutable: frozenset[str] = frozenset()
    upsert: bool = False
    force: bool = False
    settle: float = wait.SETTLE


class Resources:
    """The objects of one cluster.

    - `namespace`: for objects that name none
    - `refusal`: makes the error for what is not implemented
    """

    def __init__(self, cluster: Cluster, namespace: str, refusal: Callable[[str], ProviderError], options: Options) -> None:
        self._cluster, self._namespace, self._refusal, self._options = cluster, namespace, refusal, options

    def check(self, request: Request) -> Checked:
        inputs = request.inputs
        if metadata := objects.metadata_of(inputs):
            for key in metadata.get("annotations") or {} if metadata.get("annotations") is not UNKNOWN else ():
                if key.startswith("pulumi.com/") and key not in objects.ANNOTATIONS:
                    raise self._refusal(f"the annotation {key!r}")
            if metadata.get("generateName"):
                raise ProviderError("the `.metadata.generateName` field is not supported in Server-Side Apply mode")
        if plain(inputs.get("type")) == "kubernetes.io/service-account-token" and inputs.get("kind") == "Secret":
            raise self._refusal("Secrets of type kubernetes.io/service-account-token")
        inputs = objects.normalised(objects.named(inputs, request.old_inputs, request.name, request.random_seed))
        return Checked(self._in_namespace(inputs))

    def _in_namespace(self, inputs: Properties) -> Properties:
        """Inputs in the provider's namespace, if it has one and they have none and are of a kind
        that lives in namespaces.
        """
        metadata = inputs.get("metadata")
        if self._namespace == "default" or not isinstance(metadata, dict) or metadata.get("namespace"):
            return inputs
        try:
            if not self._cluster.endpoint(inputs["apiVersion"], inputs["kind"]).namespaced:
                return inputs
        except UnknownKind:
            pass  # A custom resource whose definition is yet to come: most live in namespaces.
        return {**inputs, "metadata": {**metadata, "namespace": self._namespace}}

    def diff(self, request: Request) -> Difference:
        """Compare inputs with inputs: no call to the cluster. Hand-made changes are in the old
        ones after a refresh.
        """
        old, new = request.old_inputs, request.inputs
        changes = objects.changes(old, new, self._namespace)
        replaces = objects.replacing(changes, old, new, self._options.mutable)
        if objects.is_true(new, objects.REPLACE_UNREADY) and new.get("kind") == "Job" and self._unfinished(request):
            place = f'metadata.annotations["{objects.REPLACE_UNREADY}"]'
            changes, replaces = {**changes, place: "update"}, replaces | {place}
        return Difference(changes, replaces, delete_before_replace=bool(replaces) and objects.same_place(old, new, self._namespace))

    def _unfinished(self, request: Request) -> bool:
        """Whether the Job is there and not complete."""
        namespace, name = objects.split_identity(request.id)
        try:
            live = self._cluster.get("batch/v1", "Job", namespace, name)
            return live is not None and not wait.job(self._cluster, live).ready
        except ProviderError:
            return False

    def create(self, request: Request) -> Created:
        manager = objects.field_manager({})
        if request.preview:
            return Created("", self._dry_run(request, manager))
        wanted = self._wanted(request)
        with self._explained(request, f"creating {wanted['kind']} {wanted['metadata']['name']}"):
            live = self._retried(request, lambda: self._create(wanted, manager, request))
        return Created(_id(live), self._ready(request, live, manager))

    def _create(self, wanted: Object, manager: str, request: Request) -> Object:
        """Create `wanted`, or apply it over what is there under its name if that is asked for;
        otherwise that object belongs to another owner.
        """
        if self._options.upsert:
            return self._cluster.apply(self._located(wanted), manager, force=self._forced(request))
        try:
            return self._cluster.create(self._located(wanted), objects.CREATOR)
        except ApiError as error:
            if error.reason != "AlreadyExists" or "object is being deleted" in str(error):
                raise
            raise ProviderError(
                f"{error}: it is not managed by this resource. Give the resource another name, remove the object, alias a renamed resource, "
                "or adopt it with `pulumi import`"
            ) from None

    def update(self, request: Request) -> Properties:
        manager = objects.field_manager(request.state)
        if request.preview:
            return self._dry_run(request, manager)
        wanted = self._wanted(request)
        with self._explained(request, f"updating {wanted['kind']} {wanted['metadata']['name']}"):
            live = self._retried(request, lambda: self._update(wanted, manager, request))
        return self._ready(request, live, manager)

    def _update(self, wanted: Object, manager: str, request: Request, *, dry_run: bool = False) -> Object:
        there = self._live(wanted)
        if there is None:
            raise ProviderError(
                f"{wanted['kind']} {wanted['metadata']['name']!r} is gone from the cluster; run `pulumi refresh`, then `pulumi up`"
            )
        taken = objects.taken_over(there["metadata"].get("managedFields") or [], manager)
        for path in request.ignore_changes:
            _take(path.split("."), wanted, there)
        if wanted["kind"] == "CustomResourceDefinition":
            # A definition is replaced as a whole, as by `kubectl replace`: its lists of versions do
            # not merge.
            wanted = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": there["metadata"]["resourceVersion"]}}
            return self._cluster.replace(wanted, manager, dry_run=dry_run)
        if taken and not dry_run:
            self._cluster.replace({**there, "metadata": {**there["metadata"], "managedFields": taken}}, manager)
        return self._cluster.apply(wanted, manager, force=bool(taken and dry_run) or self._forced(request), dry_run=dry_run)

    def _forced(self, request: Request) -> bool:
        return self._options.force or objects.is_true(request.inputs, objects.PATCH_FORCE)

    def _dry_run(self, request: Request, manager: str) -> Properties:
        """The state that `request` would lead to, by the API server's dry run; the inputs alone
        where it cannot know yet.
        """
        if has_unknown(request.inputs):
            return request.inputs
        wanted = self._wanted(request)
        try:
            if request.state:
                dry = self._update(wanted, manager, request, dry_run=True)
            elif self._live(wanted):
                return request.inputs  # To be replaced, or an error that only `up` can tell from that.
            else:
                dry = self._cluster.apply(wanted, manager, force=True, dry_run=True)
        except (UnknownKind, Unreachable):
            return request.inputs
        except ApiError as error:
            if error.code in (403, 404) or _passing(error):
                return request.inputs
            raise self._explanation(request, f"{wanted['kind']} {wanted['metadata']['name']}", error) from None
        return objects.previewed(request.inputs, dry, manager)

    def read(self, request: Request) -> Found | None:
        declared = "kind" in request.inputs
        api_version, kind = (request.inputs["apiVersion"], request.inputs["kind"]) if declared else objects.type_of(request.type)
        namespace, name = objects.split_identity(request.id)
        manager = objects.field_manager(request.state)
        try:
            live = self._cluster.get(api_version, kind, namespace or self._namespace, name)
        except UnknownKind:
            return None
        except Unreachable as error:
            forgive(error)
            return None
        if live is None:
            return None
        if not declared:
            # As the official plugin, which gives all of it only when something is read for the
            # first time.
            inputs = objects.located(live) if request.state else objects.adopted(live)
            return Found(request.id, objects.state_of(inputs, live, manager), inputs)
        was = {key: value for key, value in request.state.items() if not key.startswith("__")}
        inputs = objects.as_secret_as(objects.drifted(request.inputs, was, objects.from_object(live)), request.inputs)
        state = objects.state_of(inputs, live, manager)
        check = wait.check_for(live)
        if check and kind in ("Deployment", "Job") and not objects.is_true(inputs, objects.SKIP_AWAIT):
            verdict = check(self._cluster, live)
            if not verdict.ready:
                raise InitFailed(request.id, state, [f"waiting for {verdict.waiting_for}", *verdict.problems], inputs)
        return Found(request.id, state, inputs)

    def delete(self, request: Request) -> None:
        live = plain(request.state)
        inputs = live.get("__inputs") or request.inputs
        namespace, name = objects.split_identity(request.id)
        propagation = objects.annotation(inputs, objects.DELETION_PROPAGATION).capitalize()
        if propagation not in ("Background", "Orphan"):
            propagation = "Foreground"
        try:
            self._cluster.delete(live["apiVersion"], live["kind"], namespace, name, propagation)
            # As officially, `skipAwait` lets go of these kinds at once; others are waited for even
            # so.
            if objects.is_true(inputs, objects.SKIP_AWAIT) and live["kind"] in ("Namespace", "Deployment", "Job"):
                return
            wait.until_gone(self._cluster, live, request, _timeout(request, inputs))
        except UnknownKind:
            return  # Its definition is gone, and so is everything of its kind.
        except Unreachable as error:
            forgive(error)
        except wait.NotReady as error:
            raise ProviderError(str(error)) from None

    # Helpers

    def _wanted(self, request: Request) -> Object:
        """The object to send."""
        wanted: Object = objects.to_object(request.inputs)
        metadata = dict(wanted.get("metadata") or {})
        if not metadata.get("namespace"):
            metadata["namespace"] = self._namespace  # Not part of the path of a kind that lives outside of namespaces.
        return {**wanted, "metadata": metadata}

    def _located(self, wanted: Object) -> Object:
        """`wanted`; the namespace is dropped from it if its kind lives outside of namespaces."""
        if not self._cluster.endpoint(wanted["apiVersion"], wanted["kind"]).namespaced:
            wanted["metadata"].pop("namespace", None)
        return wanted

    def _live(self, wanted: Object) -> Object | None:
        """What is in the cluster under the name of `wanted`, see `_located`."""
        metadata = self._located(wanted)["metadata"]
        return self._cluster.get(wanted["apiVersion"], wanted["kind"], metadata.get("namespace", ""), metadata["name"])

    def _ready(self, request: Request, live: Object, manager: str) -> Properties:
        """The state of an object just applied, once it is ready."""
        inputs = request.inputs
        try:
            if not objects.is_true(inputs, objects.SKIP_AWAIT):
                live = wait.until_ready(self._cluster, live, request, _timeout(request, inputs), self._options.settle)
        except Cancelled as error:
            # The object is there: saved, it is gone on with by the next `up` and removed by
            # `destroy`.
            raise InitFailed(_id(live), objects.state_of(inputs, live, manager), [str(error)]) from None
        except wait.NotReady as error:
            reasons = [objects.redacted(each, inputs) for each in error.reasons]
            raise InitFailed(_id(live), objects.state_of(inputs, error.live, manager), reasons) from None
        return objects.state_of(inputs, live, manager)

    def _retried(self, request: Request, attempt: Callable[[], Object]) -> Object:
        """`attempt`, again for a while if what it needs may be on its way."""
        for number, delay in enumerate(_RETRY_DELAYS, 1):
            try:
                return attempt()
            except ApiError as error:
                if not _passing(error):
                    raise
                request.status(f"retry #{number}: {objects.redacted(str(error), request.inputs)}")
                request.wait(delay)
        return attempt()

    @contextmanager
    def _explained(self, request: Request, doing: str) -> Iterator[None]:
        try:
            yield
        except ApiError as error:
            raise self._explanation(request, doing, error) from None

    def _explanation(self, request: Request, doing: str, error: ApiError) -> ProviderError:
        text = f"{doing} failed: {error}"
        if error.reason == "Conflict":
            text += (
                f". Another field manager has changed this object. `pulumi refresh` shows the change. Annotate the resource with "
                f'{objects.PATCH_FORCE}: "true" to take the fields back'
            )
        return ProviderError(objects.redacted(text, request.inputs, request.old_inputs))


def _passing(error: ApiError) -> bool:
    """Whether an error is temporary: a namespace or definition that is being made, a webhook
    that is starting, a name being freed.
    """
    text = str(error)
    return (
        isinstance(error, UnknownKind)
        or error.code in (404, 503)
        or (error.code >= 500 and "failed calling webhook" in text)
        or "object is being deleted" in text
    )


def _id(live: Object) -> str:
    return objects.identity(live)


def _take(path: list[str], wanted: Any, there: Any) -> None:
    """Put the live value at `path` into `wanted`, or none if there is none, so that an ignored
    field is not touched.
    """
    for key in path[:-1]:
        if not isinstance(wanted, dict) or not isinstance(there, dict) or key not in wanted:
            return
        wanted, there = wanted[key], there.get(key)
    if isinstance(wanted, dict):
        if isinstance(there, dict) and path[-1] in there:
            wanted[path[-1]] = there[path[-1]]
        else:
            wanted.pop(path[-1], None)


def _timeout(request: Request, inputs: Properties) -> float:
    text = objects.annotation(inputs, objects.TIMEOUT_SECONDS)
    return request.timeout or (float(text) if text.isdigit() else wait.DEFAULT_TIMEOUT)
