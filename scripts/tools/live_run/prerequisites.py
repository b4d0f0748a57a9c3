"""What a project must have before a stack is created: APIs, roles, zones, quotas and policies."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from components.versions import unsupported_kubernetes
from tools import ROOT
from tools.google_model import policies, quotas
from tools.google_model.cloud import MANAGER, Cloud
from tools.google_model.machines import UnknownSizeError
from tools.plan.resources import CLUSTER, CLUSTER_CHECK, INSTANCE, NODE_POOL, TEMPLATE, value_at

from .google import Google, GoogleError
from .rows import LiveRun

PROGRAMS = ("pulumi", "gcloud", "gke-gcloud-auth-plugin", "kubectl", "ssh")


@dataclass(frozen=True)
class Finding:
    """What is not as it must be. blocks: whether the run cannot succeed."""

    text: str
    blocks: bool = True


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a stack needs.

    live_run: APIs and roles. cloud: its resources, for quotas and policies.
    region: its region. zones: those of its cluster and machines.
    """

    live_run: LiveRun
    cloud: Cloud
    region: str
    zones: Sequence[str]


def programs(path: str) -> Iterator[Finding]:
    """Yield the programs that are missing. path: the variable PATH."""
    for name in PROGRAMS:
        if shutil.which(name, path=path) is None:
            yield Finding(f"{name} is not on PATH: install it")


def is_empty(stack: str, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding where the stack has resources already: a run would end with their deletion."""
    words = ["pulumi", "stack", "export", "--stack", stack, "--non-interactive"]
    done = subprocess.run(words, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        return  # there is no such stack yet
    deployment = json.loads(done.stdout).get("deployment") or {}
    if count := sum(bool(each.get("custom")) for each in deployment.get("resources") or []):
        fix = f"use a stack of its own, or --down first ({count} resources)"
        yield Finding(f"the stack {stack} is up already, and a run ends with its deletion: {fix}")


def check(google: Google, wanted: Wanted) -> list[Finding]:
    """Return what the project lacks, in the order in which one would mend it."""
    checks: Mapping[str, Callable[[Google, Wanted], Iterator[Finding]]] = {
        "APIs": _apis,
        "roles": _roles,
        "zones": _zones,
        "machine types": _machine_types,
        "versions of Kubernetes": _kubernetes,
        "quotas": _quotas,
    }
    listed: list[Finding] = []
    for what, each in checks.items():
        try:
            listed += each(google, wanted)
        except GoogleError as error:
            listed.append(Finding(f"{what} cannot be read: {error}"))
        except UnknownSizeError as error:
            listed.append(Finding(f"{what} are not compared: {error}", blocks=False))
    return [*listed, *_policies(google, wanted)]


def _apis(google: Google, wanted: Wanted) -> Iterator[Finding]:
    names = "&".join(f"names=projects/{google.project}/services/{api}" for api in wanted.live_run.apis)
    answer = google.call("serviceusage", f"v1/projects/{google.project}/services:batchGet?{names}")
    services = answer.get("services", [])
    enabled = {each["config"]["name"] for each in services if each.get("state") == "ENABLED"}
    if missing := [api for api in wanted.live_run.apis if api not in enabled]:
        fix = f"gcloud services enable {' '.join(missing)} --project {google.project}"
        yield Finding(f"APIs are not enabled: {fix}")


def _roles(google: Google, wanted: Wanted) -> Iterator[Finding]:
    permissions = sorted({each for role in wanted.live_run.roles for each in role.permissions})
    path = f"v1/projects/{google.project}:testIamPermissions"
    answer = google.call("cloudresourcemanager", path, {"permissions": permissions})
    granted = set(answer.get("permissions", []))
    for role in wanted.live_run.roles:
        if missing := [each for each in role.permissions if each not in granted]:
            yield Finding(f"{role.role} is missing: the user has no {', '.join(missing)}")


def _zones(google: Google, wanted: Wanted) -> Iterator[Finding]:
    answer = google.call("compute", f"projects/{google.project}/regions/{wanted.region}")
    present = {link.rpartition("/")[2] for link in answer.get("zones", [])}
    for zone in sorted(set(wanted.zones) - present):
        yield Finding(f"the region {wanted.region} has no zone {zone}: {', '.join(sorted(present))}")


def _machine_types(google: Google, wanted: Wanted) -> Iterator[Finding]:
    """Yield machine types that one of their zones does not have.

    Where Google chooses the zones of nodes and groups, it chooses those that have the type.
    """
    cloud = wanted.cloud
    wanted_types = {(node.inputs["zone"], node.inputs["machineType"]) for node in cloud.of_type(INSTANCE)}
    wanted_types |= {
        (node.inputs["location"], node.inputs["nodeConfig"]["machineType"])
        for node in cloud.of_type(NODE_POOL)
        if node.inputs["location"] != wanted.region
    }
    for manager in cloud.of_type(MANAGER):
        for version in manager.inputs["versions"]:
            template = cloud.resolve(version["instanceTemplate"], TEMPLATE)
            assert template is not None
            zones = manager.inputs.get("distributionPolicyZones") or ()
            wanted_types |= {(zone, template.inputs["machineType"]) for zone in zones}
    for zone, machine_type in sorted(wanted_types):
        if not google.exists("compute", f"projects/{google.project}/zones/{zone}/machineTypes/{machine_type}"):
            listed = f"gcloud compute machine-types list --filter='name={machine_type}' --project {google.project}"
            yield Finding(f"the zone {zone} has no {machine_type}: {listed}")


def _kubernetes(google: Google, wanted: Wanted) -> Iterator[Finding]:
    """Yield a release channel whose default version is none that the stack's Istio supports."""
    istio = {check.inputs["istio"] for check in wanted.cloud.of_type(CLUSTER_CHECK)}
    channels = [str(value_at(each.inputs, "releaseChannel.channel")) for each in wanted.cloud.of_type(CLUSTER)]
    path = f"v1/projects/{google.project}/locations/{wanted.region}/serverConfig"
    config = google.call("container", path) if channels and istio != {""} else {}
    defaults = {each.get("channel"): each.get("defaultVersion", "") for each in config.get("channels", [])}
    for channel in channels:
        kubernetes = defaults.get(channel, "")
        if supported := next(filter(None, (unsupported_kubernetes(each, kubernetes) for each in istio)), ""):
            fix = "set another cluster.channel or mesh.version"
            yield Finding(f"the release channel {channel} gives Kubernetes {kubernetes}; {supported}: {fix}")


def _quotas(google: Google, wanted: Wanted) -> Iterator[Finding]:
    places = (f"projects/{google.project}", f"projects/{google.project}/regions/{wanted.region}")
    free: dict[str, float] = {}
    for place in places:
        for quota in google.call("compute", place).get("quotas", []):
            left = quota["limit"] - quota["usage"]
            free[quota["metric"]] = min(left, free.get(quota["metric"], left))
    needed = quotas.usage(wanted.cloud, quotas.Moment.CREATION)
    for metric, count in sorted(needed.items()):
        if metric in free and count > free[metric]:
            yield Finding(f"quota {metric}: the stack needs {count}, {free[metric]:g} are free")


def _policies(google: Google, wanted: Wanted) -> list[Finding]:
    outcomes = policies.outcomes(wanted.cloud)
    fixes = {each.name: each.fix for each in policies.CONSTRAINTS}
    named = [(name, each) for each in outcomes for name in each.split(", ")]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda pair: _effective(google, pair[0]), named)
        read = list(zip(named, answers, strict=True))
    findings: list[Finding] = []
    unread = [name for (name, _), answer in read if answer is None]
    for (name, key), answer in read:
        if answer is not None:
            findings += _of_policy(name, answer, outcomes[key], fixes[key])
    if unread:
        findings.append(Finding(f"policies that cannot be read: {', '.join(unread)}", blocks=False))
    return findings


def _effective(google: Google, name: str) -> Mapping[str, Any] | None:
    path = f"v1/projects/{google.project}:getEffectiveOrgPolicy"
    try:
        return google.call("cloudresourcemanager", path, {"constraint": f"constraints/{name}"})
    except GoogleError:
        return None


def _of_policy(name: str, policy: Mapping[str, Any], outcome: policies.Outcome, fix: str) -> Iterator[Finding]:
    enforced = bool(policy.get("booleanPolicy", {}).get("enforced"))
    values: Mapping[str, Any] = policy.get("listPolicy", {})
    denies_all = values.get("allValues") == "DENY"
    limits = denies_all or bool(values.get("allowedValues") or values.get("deniedValues"))
    if outcome.refused and (enforced or limits):
        refused = ", ".join(outcome.refused)
        yield Finding(f"{name} is enforced and refuses {refused}{f': {fix}' if fix else ''}")
    elif outcome.needs and limits:
        needs = outcome.needs.replace("`", "")
        yield Finding(f"{name} has a list of values: it must permit {needs}", blocks=denies_all)
