"""The records of a plan: what an update does to a mesh. Pure data, which `--json` prints as it is.

A plan holds facts and no sentences: a renderer makes sentences of them. Every text in it comes from
stack files, clusters or clouds, so it is not trusted where it is rendered.
All records are frozen; all collections are tuples, sorted by name where their order means nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .mesh_model import Host, MeshPicture, Opening, OpeningKind, Path, ServicePicture, Versions

FORMAT = 1
"""The version of the records as JSON; a consumer refuses another one."""


class Level(enum.StrEnum):
    """What a plan was computed from.

    FILES: the stack file and the program at two commits. STATE: the stack's state too.
    LIVE: what the world has too.
    """

    FILES = "files"
    STATE = "state"
    LIVE = "live"


class Mark(enum.StrEnum):
    """What an update does to a part of the mesh."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    SAME = "same"


class Verdict(enum.StrEnum):
    """The plan in one word. Where several hold, the last one of this list does.

    NOTHING: no resource changes.
    SAFE: all workloads keep endpoints, and no Service or port is removed.
    PROGRAM: scripts, units or defaults of the program changed, or the base cannot run here.
    PAUSES: a workload has no endpoint for a while, or a Service is replaced.
    LEAVES: machines, workloads, Services or ports of Services leave for good.
    REFUSED: the update fails before it changes anything (`Plan.error`).
    """

    NOTHING = "nothing"
    SAFE = "safe"
    PROGRAM = "program"
    PAUSES = "pauses"
    LEAVES = "leaves"
    REFUSED = "refused"


class Action(enum.StrEnum):
    """What an update does to a machine.

    JOINS: it enters the mesh. REJOINS: its join runs, and stops its agent only where the machine
    differs from what the last join left. RESTARTS: its agent restarts. REGISTERS: its agent
    restarts and registers again, once its entry is deleted. REPLACED: another machine with its name
    joins; the former one is drained and deleted before, or leaves afterwards where it stays.
    MOVES: it goes to another workload; listed in the workload that it leaves, and with REGISTERS or
    REPLACED in the one that it comes to.
    LEAVES: it leaves the mesh. FORGOTTEN: nothing connects to it from now on, and it stays in the
    mesh until it is removed.
    """

    JOINS = "joins"
    REJOINS = "rejoins"
    RESTARTS = "restarts"
    REGISTERS = "registers"
    REPLACED = "replaced"
    MOVES = "moves"
    LEAVES = "leaves"
    FORGOTTEN = "forgotten"


class Pause(enum.StrEnum):
    """Whether a workload is without endpoints at some time.

    NONE: machines or pods of each kind answer all the time. MACHINES: no machine answers for a
    while, pods do. ALL: nothing answers for a while.
    """

    NONE = "none"
    MACHINES = "machines"
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why something happens to a machine.

    key: as in facts.py: "labels", "version", "address", "scripts", …
    before, after: short text; "" where it is not to be shown, or is not known.
    """

    key: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class MachineChange:
    """What an update does to a machine.

    before: its name until now, where it was renamed. other: the workload, `<namespace>/<name>`,
        that it comes from or goes to, where it moves.
    host: what it is. count: its endpoints: 1, or those of an instance group.
    drained: whether it is drained first, for LEAVES and REPLACED.
    deleted: whether the machine itself is deleted.
    certain: whether the action is known; else it depends on what is on the machine.
    """

    machine: str
    network: str
    action: Action
    reasons: tuple[Reason, ...] = ()
    before: str = ""
    other: str = ""
    host: Host = Host.SSH
    count: int = 1
    drained: bool = True
    deleted: bool = False
    certain: bool = True


@dataclass(frozen=True, kw_only=True)
class PodsChange:
    """What an update does to a workload's pods. before, after: replicas; None: it has none.

    replaced: whether all pods are replaced one after another.
    """

    before: int | None = None
    after: int | None = None
    replaced: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkloadChange:
    """What an update does to a workload.

    restarts: agents of machines in the mesh that are stopped. at_once: how many of them at most.
    waves: how many times that many. seconds: estimated for all waves; 0 without restarts.
    pause: whether it is without endpoints meanwhile. settings: what else changed, as in the file.
    """

    name: str
    namespace: str
    mark: Mark
    role: str = "sidecar"
    machines: tuple[MachineChange, ...] = ()
    restarts: int = 0
    at_once: int = 0
    waves: int = 0
    seconds: int = 0
    pause: Pause = Pause.NONE
    pods: PodsChange | None = None
    settings: tuple[Reason, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ServiceChange:
    """What an update does to a Service. before, after: None where there is none."""

    name: str
    namespace: str
    mark: Mark
    before: ServicePicture | None = None
    after: ServicePicture | None = None


@dataclass(frozen=True, kw_only=True)
class IdentityChange:
    """A SPIFFE ID that is added or removed, or whose users change.

    before, after: its users, as `<namespace>/<name>`.
    """

    identity: str
    mark: Mark
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PathChange:
    """A path between networks that changes. before, after: None where a network is new or gone.

    workload: whose machines changed their network, to `target`; "" where the network changed.
    """

    source: str
    target: str
    workload: str = ""
    before: Path | None = None
    after: Path | None = None


@dataclass(frozen=True, kw_only=True)
class OpeningChange:
    """Something that opens, closes or changes. before, after: None where there is none."""

    kind: OpeningKind
    name: str
    mark: Mark
    before: Opening | None = None
    after: Opening | None = None


@dataclass(frozen=True, kw_only=True)
class VersionsChange:
    """Istio's versions before and after.

    skew: the most minor versions that a proxy is behind the control plane, while the update runs
    or after it; below zero: it is ahead. None where a version is not known.
    """

    before: Versions
    after: Versions
    skew: int | None = None


@dataclass(frozen=True, kw_only=True)
class CostChange:
    """US dollars a month, at the list prices of docs/costs.yaml.

    before, after: as the stack starts.
    most_before, most_after: once autoscalers have added all that it permits.
    unpriced: items without a price there of which the number changes; they are in no sum.
    """

    before: float
    after: float
    most_before: float
    most_after: float
    unpriced: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VerificationPlan:
    """What the update verifies when it has changed everything.

    before, after: what a failure does: "fail", "warn" (a warning), "some" (a warning for `warned`)
        or "none" (nothing is verified).
    runs: the workloads that it verifies.
    may_run: those that it verifies if what is not known before changes.
    warned: the workloads whose failure is a warning, where `after` is "some".
    """

    before: str
    after: str
    warned: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    may_run: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProgramChange:
    """A file of the program, or a default, that differs.

    what: one of

        - "machine-files": a unit or script on machines
        - "join": what runs joins
        - "program": what declares resources
        - "default": of a setting
        - "local-file": a file that the stack file names
        - "unknown": the base cannot run here

    name: a path in the repository, or a setting.
    before, after: of a default, as in the schema.
    """

    what: str
    name: str
    mark: Mark
    before: str = ""
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What Pulumi does to a resource.

    op: "create", "update", "replace", "delete", "read", "import", or "retain": it stays where it
        is, and the stack has it no more. type, name: the resource's.
    destructive: whether something is deleted that a user would miss: a machine, a cluster, a
        workload's objects, …
    keys: the input properties that change. why: those that force a replacement.
    diff: lines of `key: before -> after`, without secrets.
    certain: whether an input changes; else it follows from what is known during the update alone.
    """

    op: str
    type: str
    name: str
    parent: str = ""
    destructive: bool = False
    keys: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    diff: str = ""
    certain: bool = True


class LiveKind(enum.StrEnum):
    """What the world has that the state does not."""

    DRIFT = "drift"
    UNHEALTHY = "unhealthy"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, kw_only=True)
class LiveFinding:
    """Something in the world. subject: a machine, workload or resource. text: one sentence."""

    kind: LiveKind
    subject: str
    text: str


@dataclass(frozen=True, kw_only=True)
class BrokenRule:
    """A rule that the mesh after the update, or the update itself, breaks.

    rule: its key in `rules:`. subject: what breaks it. facts: what it is, for the sentence.
    excepted: the reason of the stack file for switching the rule off; "" where it holds.
    new: whether the stack file holds it to the rule at the base, or gives another reason there.
    """

    rule: str
    subject: str
    facts: tuple[str, ...] = ()
    excepted: str = ""
    new: bool = False


@dataclass(frozen=True, kw_only=True)
class Degraded:
    """A level that is not available, and why: one sentence with cause and fix."""

    level: Level
    reason: str


@dataclass(frozen=True, kw_only=True)
class PlanError:
    """Why there is no update: the settings, or the program, refuse it, or the preview failed.

    kind: "settings", "refused", "preview". lines: one problem each.
    """

    kind: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an update does to a mesh.

    level: what it was computed from. degraded: the levels that are not available.
    base, head: commits, or "" (`head` of a tree with changes ends with `+`).
    destroy: whether it is the plan of a `pulumi destroy`.
    picture: the mesh after the update; None where it cannot be computed. former: before it.
    workloads, services, …: those that change; what stays as it is is left out.
    operations: empty at the level FILES where nothing but the picture is compared.
    """

    stack: str
    level: Level
    verdict: Verdict
    format: int = FORMAT
    base: str = ""
    head: str = ""
    destroy: bool = False
    degraded: tuple[Degraded, ...] = ()
    error: PlanError | None = None
    broken: tuple[BrokenRule, ...] = ()
    workloads: tuple[WorkloadChange, ...] = ()
    services: tuple[ServiceChange, ...] = ()
    identities: tuple[IdentityChange, ...] = ()
    paths: tuple[PathChange, ...] = ()
    openings: tuple[OpeningChange, ...] = ()
    versions: VersionsChange | None = None
    cost: CostChange | None = None
    verification: VerificationPlan | None = None
    program: tuple[ProgramChange, ...] = ()
    operations: tuple[Operation, ...] = ()
    live: tuple[LiveFinding, ...] = ()
    picture: MeshPicture | None = None
    former: MeshPicture | None = None
