"""What Google's APIs say of a project: services, permissions, quotas, zones and organisation policies."""

from __future__ import annotations

import json
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

Response = tuple[int, dict[str, Any]]

_PROJECT = re.compile(r"/v1/projects/[^/:]+(?:/services)?:(\w+)")
_COMPUTE = re.compile(r"/compute/v1/projects/[^/]+(?:/regions/([^/]+))?")
_SERVER_CONFIG = re.compile(r"/v1/projects/[^/]+/locations/[^/]+/serverConfig")
_MACHINE_TYPE = re.compile(r"/compute/v1/projects/[^/]+/zones/[^/]+/machineTypes/([^/]+)")
PLENTY = ("CPUS", "CPUS_ALL_REGIONS", "SSD_TOTAL_GB", "DISKS_TOTAL_GB", "INSTANCES", "NETWORKS", "FIREWALLS", "IN_USE_ADDRESSES")


@dataclass
class Project:
    """A project in which all is well, until a test changes it.

    disabled: its APIs that are off. withheld: the permissions that the user has not.
    quotas: what is free of each. zones: the letters of each region's zones.
    machine_types: those that zones have, the beginnings of their names.
    kubernetes: the default version of each release channel of GKE.
    policies: the effective policies that are set, by constraint; None: one that cannot be read.
    """

    disabled: set[str] = field(default_factory=set)
    withheld: set[str] = field(default_factory=set)
    quotas: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PLENTY, 1000))
    zones: str = "bcd"
    machine_types: tuple[str, ...] = ("e2-", "n4-")
    kubernetes: dict[str, str] = field(default_factory=lambda: {"REGULAR": "1.35.3-gke.1276000"})
    policies: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    def respond(self, path: str, body: bytes) -> Response | None:
        """Return the response to a request; None where it is not about the project."""
        place = urllib.parse.urlsplit(path)
        if match := _COMPUTE.fullmatch(place.path):
            return 200, self._compute(match[1])
        if match := _MACHINE_TYPE.fullmatch(place.path):
            return (200, {"name": match[1]}) if match[1].startswith(self.machine_types) else None
        if _SERVER_CONFIG.fullmatch(place.path):
            channels = [{"channel": channel, "defaultVersion": version} for channel, version in self.kubernetes.items()]
            return 200, {"channels": channels}
        match = _PROJECT.fullmatch(place.path)
        if match is None:
            return None
        if match[1] == "batchGet":
            return 200, self._services(urllib.parse.parse_qs(place.query)["names"])
        request = json.loads(body)
        if match[1] == "testIamPermissions":
            return 200, {"permissions": [each for each in request["permissions"] if each not in self.withheld]}
        assert match[1] == "getEffectiveOrgPolicy", path
        return self._policy(request["constraint"])

    def _services(self, names: list[str]) -> dict[str, Any]:
        apis = [name.rpartition("/")[2] for name in names]
        return {"services": [{"config": {"name": api}, "state": "DISABLED" if api in self.disabled else "ENABLED"} for api in apis]}

    def _compute(self, region: str | None) -> dict[str, Any]:
        quotas = [{"metric": metric, "limit": free + 7.0, "usage": 7.0} for metric, free in self.quotas.items()]
        zones = [f"https://www.googleapis.com/compute/v1/projects/p/zones/{region}-{letter}" for letter in self.zones]
        return {"quotas": quotas, **({"zones": zones} if region else {})}

    def _policy(self, constraint: str) -> Response:
        policy = self.policies.get(constraint.removeprefix("constraints/"), {})
        if policy is None:
            message = f"{constraint} is not supported"
            return 400, {"error": {"code": 400, "message": message}}
        return 200, {"constraint": constraint, **policy}
