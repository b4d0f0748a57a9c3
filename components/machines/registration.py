"""A machine's registration: an identifier for it, and whether the machine is still in the mesh.

It is a dynamic provider, because only a `diff` that reads the cluster detects a machine that is out
of the mesh, in previews too. Its identifier is the resource's id. An id has a value in the preview
of an update, unlike an output, so nothing that depends on it seems to change.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

import pulumi
from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)
from pulumi.runtime.rpc import UNKNOWN

from ..dependencies import without_dependencies
from ..local import cluster_access, scripting
from ..local.cluster_access import ClusterAccess, Unreachable
from ..plugin_process import end_with_cli
from . import entries
from .entries import Entry

end_with_cli()

LISTING_LIFE_S = 60
"""Seconds for which entries that were listed are good: one preview or update lists them once."""
_listings: dict[tuple[str, str], tuple[float, Mapping[str, Entry] | scripting.Failed]] = {}
_listing = threading.Lock()
_NO_CRD = ("the server doesn't have a resource type", "could not find the requested resource")
"""What kubectl prints where Istio's CRDs are gone, and all entries with them: by its list of types, or
by one that it has kept."""
_FORBIDDEN = "(Forbidden)"
_PAUSE_S = 2
"""Seconds until entries are listed once more: a busy API server may refuse a request."""
_PLACE = ("workload", "namespace", "entry")
"""Inputs of which a change moves the machine: it joins again."""


def list_entries(access: ClusterAccess, namespace: str) -> Mapping[str, Entry] | None:
    """Return the entries of a namespace by name; None where they cannot be listed.

    All machines of a run share one request.
    """
    listed = _shared_listing(access, namespace)
    return None if isinstance(listed, scripting.Failed) else listed


def _shared_listing(access: ClusterAccess, namespace: str) -> Mapping[str, Entry] | scripting.Failed:
    key = (repr(access), namespace)
    with _listing:
        listed = _listings.get(key)
        if listed is None or monotonic() - listed[0] > LISTING_LIFE_S:
            listed = _listings[key] = (monotonic(), _list_entries(access, namespace))
        return listed[1]


def _list_entries(access: ClusterAccess, namespace: str) -> Mapping[str, Entry] | scripting.Failed:
    listed = _list_once(access, namespace)
    if not isinstance(listed, scripting.Failed) or isinstance(listed, Unreachable) or _FORBIDDEN in str(listed):
        return listed
    sleep(_PAUSE_S)
    return _list_once(access, namespace)


def _list_once(access: ClusterAccess, namespace: str) -> Mapping[str, Entry] | scripting.Failed:
    try:
        with cluster_access.kubectl(access) as kubectl:
            return entries.read_all(kubectl, namespace)
    except scripting.Failed as error:
        return {} if any(words in str(error) for words in _NO_CRD) else error


def _refuse_to_rename(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise RuntimeError if a workload was renamed or moved under its machines.

    Neither a WorkloadGroup nor its Services are replaced or deleted while machines are in it. The
    replacements would have the same names, so deleting the old objects would delete the new ones.
    If the old workload is still declared, the machine only moves, which is allowed.
    """
    workload, namespace = before["workload"], before["namespace"]
    if workload == now["workload"]:
        if namespace == now["namespace"]:
            return
        what = f"the workload {workload} moves from the namespace {namespace} to {now['namespace']}"
    elif workload not in now.get("others", "").split():
        what = f"the workload {workload}, which this machine runs, is now called {now['workload']}, or gone"
    else:
        return
    raise RuntimeError(
        f"{what}: its WorkloadGroup and Services would be removed under its machines. Keep it, or "
        "declare a new workload with other labels and Services. Assign the machines to that one "
        "with one update, and remove the old workload with the next"
    )


class RegistrationProvider(ResourceProvider):
    """Gives each machine an identifier, and finds machines that are out of the mesh."""

    # Nothing of the provider is worth hiding, and a stable state shows no diff.
    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse machines in a preview already, where kubectl is missing or entries cannot be listed.

        What only distinguishes a preview from an update is not kept.
        """
        inputs = {key: value for key, value in news.items() if key != "preview"}
        if shutil.which("kubectl") is None:
            reason = "kubectl is not on PATH: install it on the computer that runs Pulumi"
            return CheckResult(inputs, [CheckFailure("access", reason)])
        stays = all(_olds.get(key) == news[key] for key in ("identity", *_PLACE))
        problem = _unlisted(inputs, news.get("preview") is True) if stays else ""
        return CheckResult(inputs, [CheckFailure("", problem)] if problem else [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Make an identifier."""
        return CreateResult(id_=secrets.token_hex(6), outs={**props, "checked": ""})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Ask for another identifier for another machine, and for a join of one that is out.

        Only here, in previews too, are a machine's workload now and before side by side, so a
        renamed workload is refused here. Raises RuntimeError.
        """
        _refuse_to_rename(_olds, _news)
        if _olds["identity"] != _news["identity"]:
            return DiffResult(changes=True, replaces=["identity"])
        moved = any(_olds[key] != _news[key] for key in _PLACE)
        return DiffResult(changes=moved or _is_out(_id, _news))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Have the machine joined again."""
        checked = datetime.now(UTC).isoformat(timespec="milliseconds")
        return UpdateResult(outs={**_news, "checked": checked})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Delete nothing: the drain ends a registration."""


def _is_out(registration: str, props: Mapping[str, Any]) -> bool:
    """Return whether a machine's entry is missing, another's, or without a connection.

    Where entries cannot be listed nothing is joined: `check` refuses that, or accepts it.
    """
    if not _is_compared(props):
        return False
    entry, listed = props["entry"], list_entries(ClusterAccess(**props["access"]), props["namespace"])
    if listed is None:
        return False
    return entry not in listed or not listed[entry].is_joined(registration)


def _is_compared(props: Mapping[str, Any]) -> bool:
    """Return whether a machine is compared with its entry."""
    access, entry = props["access"], props["entry"]
    return not (UNKNOWN in (access, entry) or UNKNOWN in access.values() or props.get("forgotten"))


def _unlisted(props: Mapping[str, Any], preview: bool) -> str:
    """Return why it is unknown whether a machine is in the mesh; "" where it is known.

    A preview accepts an API server that cannot be reached, as `ClusterCheck` does.
    """
    if not _is_compared(props):
        return ""
    namespace = props["namespace"]
    listed = _shared_listing(ClusterAccess(**props["access"]), namespace)
    if not isinstance(listed, scripting.Failed) or (preview and isinstance(listed, Unreachable)):
        return ""
    grant = f"grant list on workloadentries (networking.istio.io) in the namespace {namespace}"
    fix = grant if _FORBIDDEN in str(listed) else "run it again"
    return f"whether the machine is in the mesh cannot be read: {listed}: {fix}"


def _without_defaults(access: ClusterAccess) -> dict[str, str]:
    """Return an access as plain values. A state holds them twice, so what is not set is left out."""
    return {key: value for key, value in asdict(access).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class RegistrationArgs:
    """Whose registration it is.

    access: how kubectl reaches the cluster.
    workload: the machine's workload. others: all other workloads that stay in the stack.
    namespace: the workload's.
    identity: changes when the machine is another one.
    entry: the name of the machine's WorkloadEntry.
    forgotten: whether a machine that is out of the mesh stays out.
    """

    access: pulumi.Input[ClusterAccess]
    workload: str
    others: Sequence[str]
    namespace: str
    identity: pulumi.Input[str]
    entry: pulumi.Input[str]
    forgotten: bool = False


class Registration(Resource, module="registration", name="Registration"):
    """A registration of one machine; its `id` is the identifier.

    It depends on the machine by `identity`, and on the cluster by what `opts` names.

    checked: changes when the machine must be joined again.
    """

    checked: pulumi.Output[str]

    def __init__(self, name: str, args: RegistrationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        # What is None is in no state.
        props = {
            "access": without_dependencies(pulumi.Output.from_input(args.access).apply(_without_defaults)),
            "workload": args.workload,
            "others": " ".join(args.others) or None,
            "namespace": args.namespace,
            "identity": args.identity,
            "entry": without_dependencies(pulumi.Output.from_input(args.entry)),
            "forgotten": args.forgotten or None,
            "preview": pulumi.runtime.is_dry_run() or None,
            "checked": None,
        }
        super().__init__(RegistrationProvider(), name, props, opts)
