"""What a machine's agent runs with, as facts that two sides are compared by.

A join restarts the agent where one of the facts of `Facts.restart` or `Facts.register` differs. The
agent registers again where one of `Facts.register` differs (components/machines/bundle.py:
`join_variables`; join.sh: `compare`, `wait_for_deregistration`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shlex
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.machines.bundle import CONFIRM_S, ROOT_CERTIFICATE, STATE
from components.machines.files import CLUSTER_ENV, MESH_CONFIG, OVERRIDES_ENV
from components.machines.proxy_metadata import CANONICAL_LABELS, complete
from components.names import DEFAULT_ROOT_CONFIG_MAP, ISTIO_NAMESPACE

from .differences import short
from .mesh_model import Fact
from .resources import UNKNOWN, digest, items, mapping

ROOT_CONFIG_MAP = f"{ISTIO_NAMESPACE}/{DEFAULT_ROOT_CONFIG_MAP}"
"""What a payload leaves out (components/machines/scripts/join_machine.py)."""
CAPTURE = (
    "ISTIO_LOCAL_EXCLUDE_PORTS",
    "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
    "ISTIO_SERVICE_EXCLUDE_CIDR",
    "ISTIO_EXCLUDE_INTERFACES",
)
"""Variables that follow from `capture`, in overrides.env (components/machines/files.py)."""
HIDDEN = frozenset(
    {
        "access",
        "capture",
        "join-script",
        "machine-files",
        "package",
        "proxy",
        "registered",
        "registration",
        "root-certificate",
        "setup",
        "ssh",
        "template",
    }
)
"""Facts whose values mean nothing to a reader: digests, identifiers, variables of machines."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts of a machine's join; see the fields of `model.MachinePicture`."""

    restart: tuple[Fact, ...] = ()
    register: tuple[Fact, ...] = ()
    changes: tuple[Fact, ...] = ()
    network: str = ""
    address: str = ""


def _facts(values: Mapping[str, object]) -> tuple[Fact, ...]:
    return tuple(Fact(key=key, value=text(value)) for key, value in sorted(values.items()))


def text(value: object) -> str:
    """Return a fact's value: the same text for the same value; "" where it is not known."""
    if value is None or value == UNKNOWN:
        return ""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={short(item)}" for key, item in sorted(value.items()))
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def of_join(payload: Mapping[str, Any], environment: Mapping[str, Any]) -> Facts:
    """Return the facts of a machine that is joined over SSH.

    payload: of its join (components/machines/scripts/join_machine.py: `Payload`).
    environment: of its join.
    """
    bundle: Mapping[str, Any] = payload.get("bundle") or {}
    if not bundle:
        return Facts()
    owner: Mapping[str, Any] = bundle.get("owner") or {}
    proxy = complete(bundle.get("proxy") or {})
    register, restart = _of_proxy(proxy)
    register |= {
        "workload": f"{owner.get('namespace')}/{owner.get('workload')}",
        "registration": owner.get("registration"),
        "registered": bundle.get("registered"),
        "locality": bundle.get("locality", ""),
    }
    restart |= {
        "version": bundle.get("package_url"),
        "package": bundle.get("package_sha256", ""),
        "role": bundle.get("role", "sidecar"),
        "fail-closed": bundle.get("fail_closed", False),
        "capture": bundle.get("exclusions") or {},
        "firewall": bundle.get("firewall", "report"),
        "grace": bundle.get("grace_s"),
        "address": bundle.get("address"),
        "gateway": bundle.get("gateway"),
        "gateway-port": bundle.get("gateway_port"),
        "root-certificate": payload.get("root_sha256"),
    }
    # `<checked> <rotation> <digest of the script>` (components/machines/machine.py).
    words = str(payload.get("changes", "")).split()
    changes = {
        "rotation": words[-2] if len(words) > 1 else "",
        "join-script": digest(environment.get("SCRIPT_DIGEST"), words[-1:]),
        "take-over": payload.get("take_over", ""),
        "confirm-within": str(bundle.get("confirm_s", CONFIRM_S)),
        "connect-within": str(payload.get("patience_s", "")),
        "ssh": digest(payload.get("target")),
        "access": digest(payload.get("access")),
        "root-config-map": payload.get("root_config_map", ROOT_CONFIG_MAP),
    }
    return Facts(
        restart=_facts(restart),
        register=_facts(register),
        changes=_facts(changes),
        network=text(proxy.get("proxyMetadata", {}).get("ISTIO_META_NETWORK")),
        address=text(bundle.get("address")),
    )


def _of_proxy(proxy: Mapping[str, Any]) -> tuple[dict[str, object], dict[str, object]]:
    """Return the facts of a ProxyConfig: those that are registered, and others."""
    metadata = dict(proxy.get("proxyMetadata") or {})
    labels: dict[str, str] = json.loads(metadata.pop("ISTIO_METAJSON_LABELS", "{}"))
    ports = json.loads(metadata.pop("ISTIO_META_POD_PORTS", "[]"))
    register = {
        "labels": {key: value for key, value in labels.items() if key not in CANONICAL_LABELS},
        "ports": {port["name"]: port["containerPort"] for port in ports},
        "probe": proxy.get("readinessProbe"),
        "network": metadata.pop("ISTIO_META_NETWORK", ""),
        "service-account": metadata.pop("SERVICE_ACCOUNT", ""),
    }
    restart = {
        "mesh-id": metadata.pop("ISTIO_META_MESH_ID", ""),
        "cluster-id": metadata.pop("ISTIO_META_CLUSTER_ID", ""),
        "trust-domain": metadata.pop("TRUST_DOMAIN", ""),
        "canonical": [metadata.pop(f"CANONICAL_{key}", "") for key in ("SERVICE", "REVISION")],
    }
    for derived in ("ISTIO_META_WORKLOAD_NAME", "ISTIO_META_AUTO_REGISTER_GROUP", "POD_NAMESPACE"):
        metadata.pop(derived, None)  # they follow from the workload
    rest = {
        key: value
        for key, value in proxy.items()
        if key not in ("proxyMetadata", "readinessProbe", "meshId")
    }
    return register, {**restart, "proxy": digest(rest, metadata)}


_ASSIGNMENT = re.compile(r"^([A-Z][A-Z0-9_]*)=(.*)$")


def variables(script: str) -> tuple[dict[str, str], str]:
    """Return the variables of a script, and the script without their lines.

    Each is on a line of its own, quoted for a shell (components/shell.py: `assignments`). Where a
    name is assigned twice, the first value counts.
    """
    values: dict[str, str] = {}
    lines = script.splitlines()
    rest = [line for line in lines if not _is_assignment(line, values)]
    return values, "\n".join(rest)


_ONE_WORD = re.compile(r"""'([^']*)'|([^\s'"\\]+)""")
"""A word in single quotes, or one without quotes, backslashes and whitespace."""


def _words(text: str) -> list[str]:
    """Split a text as `shlex.split` does.

    That function copies the word for each character. A tar of files took half a second.
    """
    matched = _ONE_WORD.fullmatch(text)
    return shlex.split(text) if matched is None else [matched[1] or matched[2] or ""]


def _is_assignment(line: str, values: dict[str, str]) -> bool:
    matched = _ASSIGNMENT.match(line)
    if not matched or matched[1] in values or not matched[2]:
        return False
    try:
        words = _words(matched[2])
    except ValueError:
        return False
    if len(words) > 1:
        return False
    values[matched[1]] = words[0] if words else ""
    return True


def of_group(template: Mapping[str, Any]) -> tuple[Facts, Mapping[str, str]]:
    """Return the facts of an instance group, and the variables of its startup script.

    template: inputs of its instance template. A change of any fact replaces its machines. The fact
        `template` differs with every input, so a replacement is never missed.
    """
    script = mapping(template.get("metadata")).get("startup-script")
    machine = {key: value for key, value in template.items() if key != "metadata"}
    others = {
        key: value
        for key, value in mapping(template.get("metadata")).items()
        if key != "startup-script"
    }
    if not isinstance(script, str) or script == UNKNOWN:
        return Facts(restart=_facts({"template": digest(machine, others)})), {}
    values, rest = variables(script)
    files = _files(values.get("FILES", ""))
    configuration = {path: content for path, content in files.items() if path.startswith(STATE)}
    machine_files = {path: content for path, content in files.items() if path not in configuration}
    environment = _environment(files.get(CLUSTER_ENV, ""))
    overrides = _environment(files.get(OVERRIDES_ENV, ""))
    mesh = json.loads(files.get(MESH_CONFIG, "{}"))
    proxy = mesh.get("defaultConfig") or {}
    register, restart = _of_proxy(proxy)
    register |= {
        "workload": f"{values.get('NAMESPACE')}/{values.get('WORKLOAD')}",
        "registered": values.get("REGISTERED", ""),
    }
    restart |= {
        "version": values.get("PACKAGE_URL", ""),
        "package": values.get("PACKAGE_SHA256", ""),
        "fail-closed": values.get("FAIL_CLOSED") == "1",
        "capture": [overrides.get(name, "") for name in CAPTURE],
        "firewall": overrides.get("FIREWALL", "report"),
        "grace": values.get("GRACE_S", ""),
        "gateway": values.get("GATEWAY", ""),
        "gateway-port": values.get("GATEWAY_PORT", ""),
        "root-certificate": digest(files.get(ROOT_CERTIFICATE, "")),
        "machine-files": digest(machine_files),
        "join-script": digest(rest, values.get("API_SERVER")),
        "setup": digest(values.get("SETUP_BASE64", "")),
        "rotation": values.get("ROTATION", ""),
        "template": digest(others, machine, script),
        "machine-type": machine.get("machineType"),
        "image": [disk.get("sourceImage") for disk in items(machine.get("disks"))],
        "disk-type": [disk.get("diskType") for disk in items(machine.get("disks"))],
    }
    network = environment.get("ISTIO_META_NETWORK", "")
    return Facts(restart=_facts(restart), register=_facts(register), network=network), values


def _files(text: str) -> dict[str, str]:
    """Return the content of a tar of files by their paths on a machine."""
    if not text:
        return {}
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text))) as tar:
        members = [(member, tar.extractfile(member)) for member in tar.getmembers()]
        return {
            f"/{member.name}": content.read().decode() for member, content in members if content
        }


def _environment(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: "".join(_words(value)) for key, _, value in pairs}


def files_fact(files: Mapping[str, str]) -> str:
    """Return the value of the fact `machine-files`. files: digests by path."""
    return (
        hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:12] if files else ""
    )
