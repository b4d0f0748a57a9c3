"""Pure functions over Kubernetes objects as resource inputs and state: names, differences, drift,
secrets.

The rules are those of pulumi-kubernetes, `provider/pkg/provider/provider.go` and `diff.go`, unless
another source is named.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..provider import UNKNOWN, Properties, Secret, differences, has_secret, has_unknown, plain, secret

AUTONAMED = "pulumi.com/autonamed"
DELETION_PROPAGATION = "pulumi.com/deletionPropagationPolicy"
PATCH_FORCE = "pulumi.com/patchForce"
REPLACE_UNREADY = "pulumi.com/replaceUnready"
SKIP_AWAIT = "pulumi.com/skipAwait"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
ANNOTATIONS = frozenset({AUTONAMED, DELETION_PROPAGATION, PATCH_FORCE, REPLACE_UNREADY, SKIP_AWAIT, TIMEOUT_SECONDS})

FIELD_MANAGER = "__fieldManager"
CREATOR = "pulumi-kubernetes"
"""Who owns an object's fields until its first update."""
_SERVER_METADATA = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
)

# Of the official plugin's list, without the kinds that the provider refuses.
_IMMUTABLE = {
    ("", "Service"): ("spec.clusterIP",),
    ("", "Secret"): ("type",),
    ("apps", "Deployment"): ("spec.selector",),
    ("batch", "Job"): ("spec.completions", "spec.parallelism", "spec.selector", "spec.template"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): ("roleRef",),
    ("rbac.authorization.k8s.io", "RoleBinding"): ("roleRef",),
}
_DATA = {"ConfigMap": ("data", "binaryData"), "Secret": ("data", "stringData")}


def type_of(token: str) -> tuple[str, str]:
    """API version and kind of a resource type: `kubernetes:core/v1:ConfigMap` is `("v1",
    "ConfigMap")`.
    """
    _, module, kind = token.split(":")
    return module.removeprefix("core/"), kind


def group(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def identity(inputs: Properties) -> str:
    """`namespace/name`, or the name alone: the id of a resource."""
    metadata = plain(inputs["metadata"])
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else metadata["name"]


def split_identity(id: str) -> tuple[str, str]:
    """Namespace (or "") and name."""
    namespace, _, name = id.rpartition("/")
    return namespace, name


def metadata_of(inputs: Properties) -> dict[str, Any]:
    """Return the metadata without secret markers; empty while it is unknown as a whole."""
    metadata = plain(inputs.get("metadata") or {})
    return metadata if isinstance(metadata, dict) else {}


def annotation(inputs: Properties, key: str) -> str:
    annotations = metadata_of(inputs).get("annotations")
    value = annotations.get(key, "") if isinstance(annotations, dict) else ""
    return value if isinstance(value, str) else ""


def is_true(inputs: Properties, key: str) -> bool:
    return annotation(inputs, key) == "true"


def field_manager(state: Properties) -> str:
    """Return the field manager of this resource: as recorded, else a random one."""
    return plain(state.get(FIELD_MANAGER)) or f"pulumi-kubernetes-{secrets.token_hex(4)}"


def taken_over(managed: list[dict[str, Any]], manager: str) -> list[dict[str, Any]] | None:
    """Return an object's `managedFields` with the fields that came with its creation in `manager`'s
    hands, or None where they are already.

    An object is created without server-side apply. If it is applied later under another name, the
    first manager still owns fields. They can neither be removed nor changed without a conflict.
    """
    created = [each for each in managed if (each["manager"], each["operation"]) == (CREATOR, "Update") and not each.get("subresource")]
    if not created:
        return None
    applied = [each for each in managed if (each["manager"], each["operation"]) == (manager, "Apply")]
    fields: dict[str, Any] = {}
    for each in (*created, *applied):
        fields = _union(fields, each["fieldsV1"])
    rest = [each for each in managed if each not in created and each not in applied]
    return [{**created[0], "manager": manager, "operation": "Apply", "fieldsV1": fields}, *rest]


def _union(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {key: _union(one.get(key, {}), other.get(key, {})) for key in (*one, *(key for key in other if key not in one))}


# From the program to inputs


def normalised(inputs: Properties) -> Properties:
    """Inputs without what only the server sets, and with the `stringData` of a Secret as the `data`
    that the server makes of it.

    A Secret's data is always secret."""
    result = dict(inputs)
    if isinstance(metadata := result.get("metadata"), dict):
        result["metadata"] = {key: value for key, value in metadata.items() if key not in _SERVER_METADATA}
    if result.get("kind") == "Secret" and result.get("apiVersion") == "v1":
        text = plain(result.get("stringData"))
        if text and not has_unknown([text, result.get("data")]):
            encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in text.items()}
            result["data"] = {**(plain(result.get("data")) or {}), **encoded}
            del result["stringData"]
        for key in _DATA["Secret"]:
            if key in result:
                result[key] = secret(result[key])
    return result


def named(inputs: Properties, old: Properties, name: str, seed: bytes) -> Properties:
    """Inputs with a name: the program's, else the generated one of `old`, else `<name>-<8
    hexadecimal digits>`, marked as generated.
    """
    metadata = inputs.get("metadata") or {}
    if not isinstance(metadata, dict) or metadata.get("name"):
        return inputs
    generated = metadata_of(old)["name"] if is_true(old, AUTONAMED) else f"{name}-{suffix(seed)}"
    annotations = metadata.get("annotations") or {}
    if isinstance(annotations, dict):
        annotations = {**annotations, AUTONAMED: "true"}
    return {**inputs, "metadata": {**metadata, "name": generated, "annotations": annotations}}


def suffix(seed: bytes) -> str:
    """Eight hexadecimal digits for a generated name: the same for the same seed."""
    return hashlib.sha256(seed).hexdigest()[:8] if seed else secrets.token_hex(4)


# Differences


def changes(old: Properties, new: Properties, default_namespace: str) -> dict[str, str]:
    """Return what differs between two sets of inputs. A namespace left out is the default one."""
    changed = differences(old, new)
    before, after = (metadata_of(each).get("namespace") or default_namespace for each in (old, new))
    if before == after:
        changed.pop("metadata.namespace", None)
    return changed


def replacing(changed: dict[str, str], old: Properties, new: Properties, mutable: frozenset[str]) -> frozenset[str]:
    """Return those differences that cannot be made in place. The data of the kinds in `mutable`
    can, unless an object is marked immutable.
    """
    kind = new.get("kind")
    fields = ["metadata.name", "metadata.namespace", "kind"]
    fields += _IMMUTABLE.get((group(new.get("apiVersion", "")), str(kind)), ())
    if new.get("apiVersion") == "v1" and kind in _DATA and (kind not in mutable or new.get("immutable") is True):
        fields += _DATA[kind]
    if group(old.get("apiVersion", "")) != group(new.get("apiVersion", "")):
        fields.append("apiVersion")
    return frozenset(path for path in changed if any(_touches(path, each, plain(old), plain(new)) for each in fields))


def _touches(path: str, field: str, old: Any, new: Any) -> bool:
    """Whether a difference at `path` is at, below, or (as a whole map that came or went) above
    `field`.
    """
    if path == field or path.startswith((f"{field}.", f"{field}[")):
        return True
    return field.startswith(f"{path}.") and (_has(old, field) or _has(new, field))


def _has(value: Any, field: str) -> bool:
    for key in field.split("."):
        if value is UNKNOWN:
            return True
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True


def same_place(old: Properties, new: Properties, default_namespace: str) -> bool:
    """Return whether the replacement would have the very name, chosen by the user, that the old
    object still holds: then delete first.
    """
    before, after = metadata_of(old), metadata_of(new)
    return (
        not is_true(new, AUTONAMED)
        and after.get("name") == before.get("name")
        and (after.get("namespace") or default_namespace) == (before.get("namespace") or default_namespace)
    )


def drifted(inputs: Any, before: Any, now: Any) -> Any:
    """`inputs` as changed by hand: where the object `now` differs from what we saw of it `before`,
    the value now.

    What the server made of an input (`0.5` became `500m`) was there before and is no change, so it
    needs no knowledge of types. The official plugin gets there by converting inputs to Go's types
    and back.
    """
    inputs, before, now = plain(inputs), plain(before), plain(now)
    if before == now:
        return inputs
    if isinstance(inputs, dict) and isinstance(before, dict) and isinstance(now, dict):
        return {key: drifted(value, before.get(key), now.get(key)) for key, value in inputs.items() if key in now or key not in before}
    if isinstance(inputs, list) and isinstance(before, list) and isinstance(now, list) and len(inputs) == len(before) == len(now):
        return [drifted(*each) for each in zip(inputs, before, now, strict=True)]
    return now


# Between properties and the API


def to_object(inputs: Properties) -> dict[str, Any]:
    """Return inputs in the form of the API server."""
    return _rename(plain(inputs), lambda key: key.replace("_", "-") if key.startswith("x_kubernetes_") else key)


def from_object(live: dict[str, Any]) -> Properties:
    """Return an object as properties; the SDKs spell `x-kubernetes-...` with underscores."""
    return _rename(live, lambda key: key.replace("-", "_") if key.startswith("x-kubernetes-") else key)


def _rename(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {rename(key): _rename(item, rename) for key, item in value.items()}
    return [_rename(item, rename) for item in value] if isinstance(value, list) else value


def adopted(live: dict[str, Any]) -> Properties:
    """Return the inputs that would make `live`, for an object that is read without having been
    declared.
    """
    inputs = copy.deepcopy(from_object(live))
    inputs.pop("status", None)
    return normalised(inputs)


def located(live: dict[str, Any]) -> Properties:
    """Inputs that say which object `live` is, and nothing else."""
    metadata = {key: live["metadata"][key] for key in ("name", "namespace") if key in live["metadata"]}
    return {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata}


def state_of(inputs: Properties, live: dict[str, Any], manager: str) -> Properties:
    """Return what is saved: the object with the inputs beside it, in the official plugin's shape.
    Secret where the inputs are.
    """
    shown = copy.deepcopy(from_object(live))
    state = as_secret_as(shown, inputs)
    return {**state, "__inputs": inputs, "__initialApiVersion": live["apiVersion"], FIELD_MANAGER: manager}


def previewed(inputs: Properties, dry: dict[str, Any], manager: str) -> Properties:
    """Return what a dry run shows of the state to come: what the server will choose only then is
    unknown.
    """
    state = state_of(inputs, dry, manager)
    state["status"] = UNKNOWN
    metadata, spec, declared = state["metadata"], state.get("spec"), plain(inputs.get("spec") or {})
    if isinstance(metadata, dict):
        metadata |= dict.fromkeys(("creationTimestamp", "generation", "resourceVersion", "uid"), UNKNOWN)
    if (dry["apiVersion"], dry["kind"]) == ("v1", "Service") and isinstance(spec, dict):
        spec |= {key: UNKNOWN for key in ("clusterIP", "clusterIPs", "healthCheckNodePort") if key in spec and key not in declared}
        if any("nodePort" in port for port in plain(spec.get("ports", []))) and not all("nodePort" in port for port in declared["ports"]):
            spec["ports"] = UNKNOWN
    return state


def as_secret_as(outputs: Properties, inputs: Properties) -> Properties:
    """`outputs` with secrets where `inputs` have them. A list with a secret in it becomes secret
    as a whole: its order may be another.
    """
    if outputs.get("kind") == "Secret":
        return outputs | {key: secret(outputs[key]) for key in _DATA["Secret"] if key in outputs}
    result = dict(outputs)
    for key, value in inputs.items():
        if key not in result or not has_secret(value):
            continue
        both = isinstance(result[key], dict) and isinstance(value, dict)
        result[key] = as_secret_as(result[key], value) if both else secret(result[key])
    return result


def redacted(text: str, *properties: Any) -> str:
    """`text` without any value that is secret in `properties`: servers like to quote what they
    refuse.
    """
    values = {each for value in properties for each in _texts(value, hidden=False) if len(each) > 3}
    for each in sorted(values, key=len, reverse=True):
        text = text.replace(each, "[secret]")
    return text


def _texts(value: Any, *, hidden: bool) -> Iterator[str]:
    if isinstance(value, Secret):
        yield from _texts(value.value, hidden=True)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item, hidden=hidden)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, hidden=hidden)
    elif isinstance(value, str) and hidden:
        yield value
        yield from value.splitlines()
        with suppress(ValueError):
            yield base64.b64decode(value, validate=True).decode()
