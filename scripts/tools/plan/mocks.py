"""What the engine and the clouds would answer, where a stack is described without them.

Each answer follows from the inputs of its resource alone, so two descriptions differ where the
stacks do: a container whose image changed has another ID, and its machine is another one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from pulumi.runtime import mocks

from . import resources
from .resources import mapping


def made_up(name: str) -> str:
    """Return an address in place of one that is assigned on creation."""
    number = zlib.crc32(name.encode()) & 0xFFFF
    return f"{resources.MADE_UP}{number >> 8}.{number & 255}"


def _mesh_facts(wanted: Mapping[str, Any]) -> str:
    """Return the facts of a mesh of others, of which only the stack file's values are read.

    wanted: components/istio/adoption.py, `Adoption`.
    """
    from components import mesh_facts  # of the program that is described

    values = {"revision": wanted["revision"] or "", "global": {"network": wanted["network"]}}
    return mesh_facts.encode(mesh_facts.from_values(values, wanted["namespace"]))


class Answers(mocks.Mocks):
    """Answers every resource with its inputs, and with what the program reads of it."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[Any, Any]]:
        """Return the ID and the outputs of a resource."""
        identity = resources.identity(args.typ, args.inputs)
        return f"{args.name}-{identity}", {**args.inputs, **self._outputs(args, identity)}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        """Refuse: the program must not look anything up."""
        raise AssertionError(f"the program calls {args.token}: it must not look anything up")

    def _outputs(self, args: mocks.MockResourceArgs, identity: str) -> dict[str, Any]:
        name, inputs = args.name, args.inputs
        if args.typ == resources.MESH_READING:
            return {"facts": _mesh_facts(json.loads(inputs["wanted"]))}
        if args.typ == resources.SERVICE and args.resource_id:
            return {"spec": {}}
        if args.typ == resources.CLUSTER_CHECK:
            # Not of how it is reached: the check refuses a way that leads to another cluster.
            uid = resources.digest(inputs.get("created_by"))
            return {"uid": uid, "recorded": {"uid": uid}, "kubeconfig": "{}", "kubernetes": ""}
        if args.typ.endswith(":Registration"):
            return {"checked": ""}
        if args.typ == resources.COMMAND:
            return {"stdout": json.dumps(self._result(name, inputs, identity))}
        if args.typ == resources.CONFIG_MAP:
            return {"data": {"root-cert.pem": "-----BEGIN CERTIFICATE-----\n"}}
        return (
            self._of_google(args.typ, name, inputs, identity) if args.typ.startswith("gcp:") else {}
        )

    def _result(self, name: str, inputs: Mapping[str, Any], identity: str) -> Mapping[str, Any]:
        script = str(inputs.get("create") or "").rpartition("components/local/run.py")[2].split()
        match script[0].rpartition("/")[2] if script else "":
            case "create_cluster.py":
                return {"kubeconfig": "{}", "address": made_up(name)}
            case "create_network.py":
                return {"name": f"{name}-{identity}"}
            case "attach_network.py":
                return {"address": made_up(name)}
            case "create_machine.py":
                return {
                    "id": f"{name}-{identity}",
                    "address": made_up(name),
                    "host_key": "ssh-ed25519 AAAA",
                }
            case "create_ssh_key.py":
                return {"private": "", "public": "ssh-ed25519 AAAA"}
            case "join_machine.py":
                return _joined(name, inputs)
            case "host_key.py":
                return {"host_key": "ssh-ed25519 AAAA"}
        return {}

    def _of_google(
        self, type_: str, name: str, inputs: Mapping[str, Any], identity: str
    ) -> dict[str, Any]:
        outputs = {
            "name": inputs.get("name") or f"{name}-{identity}",
            "selfLink": f"{name}-{identity}",
        }
        match type_.rpartition(":")[2]:
            case "Instance":
                outputs |= {
                    "instanceId": identity,
                    "networkInterfaces": [{"networkIp": made_up(name)}],
                }
            case "Account":
                email = f"{name}@{identity}"
                outputs |= {
                    "email": email,
                    "member": f"serviceAccount:{email}",
                    "uniqueId": identity,
                }
            case "RegionInstanceGroupManager":
                outputs |= {"instanceGroup": f"{identity}-instances"}
            case "Address":
                outputs |= {"address": inputs.get("address") or made_up(name)}
            case "Cluster":
                endpoint = {"dnsEndpointConfig": {"endpoint": f"{identity}.gke.goog"}}
                outputs |= {
                    "controlPlaneEndpointsConfig": {
                        **inputs.get("controlPlaneEndpointsConfig", {}),
                        **endpoint,
                    }
                }
        return outputs


def _joined(name: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a join returns: another result only where another one comes back of a machine.

    See components/machines/scripts/join_machine.py. All of the input counts where it is that of
    another version of the program.
    """
    payload = resources.payload(
        resources.Resource(type=resources.COMMAND, name=name, inputs=inputs)
    )
    of_machine = dict(mapping(payload.get("bundle")))
    of_machine.pop("confirm_s", None)  # nothing on the machine depends on it
    compared = (of_machine, payload.get("root_sha256")) if payload else inputs
    return {"digest": resources.digest(compared), "changes": payload.get("changes", "")}
