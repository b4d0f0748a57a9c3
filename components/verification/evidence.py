"""What the verification printed, as data."""

from __future__ import annotations

from collections.abc import Mapping

from ..config.addresses import is_address
from ..names import CROSS_NETWORK_PORT

_ENDPOINT = ("name", "entry", "address", "health")
_CALL = ("caller", "callerIdentity", "service", "endpoint", "identity", "answers")
_ANSWERED = ("machine", "requests")
_CARRIED = ("gateway", "service", "endpoint", "connections")
_OUTSIDE = ("endpoint", "result")


def parse_evidence(stdout: str, gateways: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    """What the scripts printed, as data. `gateways`: their names by address; one that has a DNS name for an address is at every address that is nobody's.

    `endpoints`: machines and pods (`kind`, and `_ENDPOINT`); `calls`: who called whom (`_CALL`) by which `path`, "direct" or "through" a gateway;
    `answered`: what reached each machine (`_ANSWERED`); `carried`: what each gateway of machines passed on (`_CARRIED`); `outside`: what came of
    a call from outside the mesh, "refused", "unreachable" or "answered" (`_OUTSIDE`).
    """
    found: dict[str, list[dict[str, str]]] = {"endpoints": [], "calls": [], "answered": [], "carried": [], "outside": []}
    by_name = next((name for address, name in gateways.items() if not is_address(address)), None)
    for line in stdout.splitlines():
        kind, *values = line.split("\t")
        if kind in ("entry", "pod") and len(values) == len(_ENDPOINT):
            found["endpoints"].append({"kind": "machine" if kind == "entry" else "pod", **dict(zip(_ENDPOINT, values, strict=True))})
        elif kind == "call" and len(values) == len(_CALL):
            call = dict(zip(_CALL, values, strict=True))
            address, _, port = call["endpoint"].rpartition(":")
            through = f"through {gateways.get(address, by_name or address)}" if port == str(CROSS_NETWORK_PORT) else "direct"
            found["calls"].append({**call, "path": through})
        elif kind == "answered" and len(values) == len(_ANSWERED):
            found["answered"].append(dict(zip(_ANSWERED, (values[0].removeprefix("machine "), values[1]), strict=True)))
        elif kind == "carried" and len(values) == len(_CARRIED):
            found["carried"].append(dict(zip(_CARRIED, values, strict=True)))
        elif kind == "outside" and len(values) == len(_OUTSIDE):
            found["outside"].append(dict(zip(_OUTSIDE, values, strict=True)))
    return found
