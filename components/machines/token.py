"""The token with which a machine requests its first certificate.

It comes from a dynamic provider, because only a `diff` that reads the clock and the cluster detects
a useless token. A token lives for an hour, and the same update may complete a failed one hours
later. istiod requires the token only from machines without a valid certificate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from ..local import scripting
from ..local.cluster_access import ClusterAccess, kubectl
from ..names import DISCONNECTED_ANNOTATION, TOKEN_AUDIENCE, TOKEN_MARGIN_S

LIFETIME = 3600  # seconds

_MINT_FOR = ("cluster", "workload", "namespace", "service_account", "identity", "rotation")


def _kubectl(access: Mapping[str, Any], *arguments: str) -> str:
    """Run kubectl and return its output. Raises RuntimeError."""
    try:
        with kubectl(ClusterAccess(**access)) as program:
            done = program.call("--request-timeout=20s", *arguments, timeout_s=60)
    except scripting.Failed as error:
        raise RuntimeError(str(error)) from None
    if done.status:
        raise RuntimeError(f"kubectl {arguments[0]} {arguments[1]} failed: {done.error}")
    return done.text


def _refuse_to_rename(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise RuntimeError if a workload was renamed or moved under its machines.

    Neither a WorkloadGroup nor its Services are replaced or deleted while machines are in it: the
    replacements would have the same names, so deleting the old objects would delete the new ones.
    If the old workload is still declared, the machine is merely moving, which is allowed.
    """
    workload, namespace = before.get("workload"), before.get("namespace")
    if workload == now["workload"] and namespace != now["namespace"]:
        what = f"the workload {workload} moves from the namespace {namespace} to {now['namespace']}"
    elif workload is not None and workload not in now["workloads"]:
        what = f"the workload {workload}, which this machine runs, is now called {now['workload']}, or gone"
    else:
        return
    raise RuntimeError(
        f"{what}: its WorkloadGroup and Services would be removed under its machines. Leave it as it is; or put a new workload beside it, with labels and "
        "Services of its own, give the machines to that one with one update, and take the old workload out with the next"
    )


class TokenProvider(ResourceProvider):
    """Mints tokens by Kubernetes' TokenRequest API, and knows when one must be minted again."""

    # Nothing of the provider is worth hiding, and a stable state shows no diff.
    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Mint a token for `service_account` in `namespace`."""
        return CreateResult(id_=f"{props['namespace']}/{props['service_account']}", outs=self._mint(props))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Mint another one."""
        return UpdateResult(outs=self._mint(_news))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Mint again for another cluster, machine, workload, identity or rotation, and for an expired token whose machine is not in the mesh.

        Only here, in previews too, are a machine's workload now and before side by side, so a renamed workload is refused here.
        Raises RuntimeError.
        """
        _refuse_to_rename(_olds, _news)
        changed = any(_olds.get(key) != _news.get(key) for key in _MINT_FOR)
        return DiffResult(changes=changed or (_olds["expires"] < time.time() + TOKEN_MARGIN_S and not self._joined(_news)))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Tokens end by themselves."""

    def _mint(self, props: dict[str, Any]) -> dict[str, Any]:
        arguments = ("create", "token", props["service_account"], "--namespace", props["namespace"], "--audience", TOKEN_AUDIENCE)
        answer = json.loads(_kubectl(props["access"], *arguments, "--duration", f"{LIFETIME}s", "--output", "json"))
        expires = datetime.fromisoformat(answer["status"]["expirationTimestamp"]).timestamp()
        return {**props, "token": answer["status"]["token"], "expires": expires}

    def _joined(self, props: dict[str, Any]) -> bool:
        """Whether the machine's entry is connected and healthy. An API server that does not answer says nothing, so nothing is changed."""
        if not isinstance(props.get("access"), dict) or not isinstance(props.get("entry"), str):
            return True
        get = ("get", "workloadentry", props["entry"], "--namespace", props["namespace"], "--ignore-not-found", "--output", "json")
        try:
            text = _kubectl(props["access"], *get)
        except RuntimeError:
            return True
        entry = json.loads(text) if text.strip() else {}
        conditions = entry.get("status", {}).get("conditions", [])
        connected = DISCONNECTED_ANNOTATION not in entry.get("metadata", {}).get("annotations", {})
        return connected and any(condition["type"] == "Healthy" and condition["status"] == "True" for condition in conditions)


@dataclass(frozen=True, kw_only=True)
class TokenArgs:
    """What a token is minted for.

    access: the cluster, a ClusterAccess as a map. cluster: the cluster's identifier.
    workload: the machine's workload. workloads: all workloads that stay in the stack.
    namespace, service_account: the ServiceAccount that the token is for.
    identity: changes when the machine is another one. rotation: another number mints anew.
    entry: the name of the machine's WorkloadEntry.
    """

    access: pulumi.Input[Mapping[str, Any]]
    cluster: pulumi.Input[str]
    workload: str
    workloads: Sequence[str]
    namespace: str
    service_account: str
    identity: pulumi.Input[str]
    rotation: int
    entry: pulumi.Input[str]


class Token(Resource, module="token", name="Token"):
    """A token of one machine.

    token: the token; secret. expires: seconds since 1970.
    """

    token: pulumi.Output[str]
    expires: pulumi.Output[float]

    def __init__(self, name: str, args: TokenArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["token"])
        props = {field.name: getattr(args, field.name) for field in fields(args)}
        options = pulumi.ResourceOptions.merge(opts, secret)
        super().__init__(TokenProvider(), name, {**props, "token": None, "expires": None}, options)
