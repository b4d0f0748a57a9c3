"""What happens to each machine of a mesh between two pictures. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from components.versions import version_in

from . import facts, resources
from .effects import Effects
from .mesh_model import Fact, Host, MachinePicture, MeshPicture
from .model import Action, MachineChange, Reason

STOPS = ("machine-type", "template")
"""Facts of a Compute Engine machine of which a change stops it and starts it again."""

Name = tuple[str, str]
"""Namespace and name of a workload or a Service."""


@dataclass(frozen=True)
class Placed:
    """A machine and the workload that it runs."""

    workload: Name
    machine: MachinePicture


def machine_changes(
    before: MeshPicture, after: MeshPicture, effects: Effects
) -> Mapping[Name, list[MachineChange]]:
    """Return what happens to machines, by workload.

    A machine that exists is the same one at the same address, or where SSH reaches it as before,
    whatever its name. A machine of this program is the same one as long as it has its name and is
    not recreated.
    """
    old = placed(before)
    new = _at_former_keys(placed(after), old)
    names_after = {each.machine.name: key for key, each in new.items()}
    names_before = {each.machine.name: key for key, each in old.items()}
    changes: dict[Name, list[MachineChange]] = {}
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if was and now:
            for workload, change in _kept(was, now, effects):
                changes.setdefault(workload, []).append(change)
        elif now:
            former = old.get(names_before.get(now.machine.name, ""))
            change = _joins(
                now, former if former and names_before[now.machine.name] not in new else None
            )
            changes.setdefault(now.workload, []).append(change)
        elif was and not (
            was.machine.name in names_after and names_after[was.machine.name] not in old
        ):
            changes.setdefault(was.workload, []).append(_leaves(was, effects))
    return changes


def placed(mesh: MeshPicture) -> dict[str, Placed]:
    """Return the machines of a mesh, by what makes each the same one."""
    machines = {}
    for workload in mesh.workloads:
        for machine in workload.machines:
            exists = machine.stays and machine.identity
            key = f"at {machine.identity}" if exists else f"named {machine.name}"
            machines[key] = Placed((workload.namespace, workload.name), machine)
    return machines


def _at_former_keys(new: dict[str, Placed], old: Mapping[str, Placed]) -> dict[str, Placed]:
    """Return machines that have another address now by the keys of those that SSH reaches alike."""
    left = {each.machine.server: key for key, each in old.items() if key not in new}
    left.pop("", None)
    return {
        key if key in old else left.get(each.machine.server, key): each for key, each in new.items()
    }


def _joins(now: Placed, former: Placed | None) -> MachineChange:
    """Return the change of a machine that enters; `former` had its name, elsewhere."""
    machine = now.machine
    if former is None:
        return MachineChange(
            machine=machine.name,
            network=machine.network,
            action=Action.JOINS,
            host=machine.host,
            count=machine.count,
        )
    reason = Reason(key="address", before=former.machine.identity, after=machine.identity)
    moved = _path(former.workload) if former.workload != now.workload else ""
    return MachineChange(
        machine=machine.name,
        network=machine.network,
        action=Action.REPLACED,
        reasons=(reason,),
        other=moved,
        host=machine.host,
        drained=not former.machine.forgotten,
        deleted=not former.machine.stays,
    )


def _leaves(was: Placed, effects: Effects) -> MachineChange:
    machine = was.machine
    drained = not machine.forgotten and machine.undrained_with not in effects.deleted
    return MachineChange(
        machine=machine.name,
        network=machine.network,
        action=Action.LEAVES,
        host=machine.host,
        reasons=(Reason(key="forget"),) if machine.forgotten else (),
        count=machine.count,
        drained=drained,
        deleted=not machine.stays,
    )


def _kept(was: Placed, now: Placed, effects: Effects) -> Iterator[tuple[Name, MachineChange]]:
    change = _change(was, now, effects)
    moved = was.workload != now.workload
    if change is None:
        return
    if moved:
        yield (
            was.workload,
            replace(
                change, action=Action.MOVES, other=_path(now.workload), network=was.machine.network
            ),
        )
        change = replace(change, other=_path(was.workload))
    yield now.workload, change


def _path(workload: Name) -> str:
    return "/".join(workload)


def _change(was: Placed, now: Placed, effects: Effects) -> MachineChange | None:
    """Return what happens to a machine that is there on both sides; None for nothing."""
    old, new = was.machine, now.machine
    change = MachineChange(
        machine=new.name,
        network=new.network,
        action=Action.REJOINS,
        host=new.host,
        before=old.name if old.name != new.name else "",
        count=max(old.count, new.count),
    )
    forget = (Reason(key="forget"),)
    if new.host is Host.GROUP:
        return _change_of_group(change, old, new)
    if new.forgotten and old.forgotten:
        return None
    if new.forgotten:
        return replace(change, action=Action.FORGOTTEN, drained=False, reasons=forget)
    if _is_another(old, new, effects):
        return _recreated(change, old, new, effects)
    if old.forgotten:
        return replace(change, action=Action.REJOINS, reasons=forget, certain=False)
    return (
        _registers(change, old, new, effects)
        or _restarts(change, old, new)
        or _rejoins(change, old, new, effects)
    )


def _change_of_group(
    change: MachineChange, old: MachinePicture, new: MachinePicture
) -> MachineChange | None:
    """Return that the machines of a group are replaced, where anything of them differs."""
    every = (*_reasons(old.register, new.register), *_reasons(old.restart, new.restart))
    # `template` differs with every input, so it is a reason where no other fact is one.
    reasons = tuple(each for each in every if each.key != "template") or every
    if not reasons:
        return None
    return replace(change, action=Action.REPLACED, reasons=reasons, deleted=True)


def _recreated(
    change: MachineChange, old: MachinePicture, new: MachinePicture, effects: Effects
) -> MachineChange:
    """Return that another machine takes the place of one."""
    every = (*_of_host(_reasons(old.restart, new.restart)), *_reasons(old.register, new.register))
    follows = ("address", "locality", "registration")
    reasons = tuple(reason for reason in every if reason.key not in follows)
    return replace(
        change,
        action=Action.REPLACED,
        reasons=reasons or _of_properties(effects.replaced.get(new.name, ())),
        deleted=True,
        certain=new.name not in effects.unsure,
    )


def _registers(
    change: MachineChange, old: MachinePicture, new: MachinePicture, effects: Effects
) -> MachineChange | None:
    """Return that a machine registers again, where its registration becomes another one."""
    cluster = (Reason(key="cluster"),) if effects.cluster else ()
    renamed = (Reason(key="name", before=old.name, after=new.name),) if change.before else ()
    moved = _of_address(old, new)
    follows = "registration" if renamed or moved else ""
    register = _without(tuple(_reasons(old.register, new.register)), follows)
    anew = (*cluster, *renamed, *moved, *register)
    if not anew:
        return None
    restart = _reasons(old.restart, new.restart)
    others = (reason for reason in restart if not moved or reason.key != "address")
    return replace(
        change,
        action=Action.REGISTERS,
        reasons=(*anew, *others),
        # The join refuses two names of one host, which another address may hide from it.
        certain=not (renamed and moved),
    )


def _restarts(
    change: MachineChange, old: MachinePicture, new: MachinePicture
) -> MachineChange | None:
    """Return that a machine, or its agent, is stopped and started again, where it is."""
    restart = tuple(_reasons(old.restart, new.restart))
    stops = tuple(reason for reason in restart if reason.key in STOPS)
    if _same_digest(old, new):
        reasons = stops
    elif _other_digest(old, new):
        reasons = restart or (Reason(key="machine-files"),)
    else:
        reasons = restart
    return replace(change, action=Action.RESTARTS, reasons=reasons) if reasons else None


def _rejoins(
    change: MachineChange, old: MachinePicture, new: MachinePicture, effects: Effects
) -> MachineChange | None:
    """Return that a machine's join runs again and leaves its agent alone, where it does."""
    reasons = tuple(_reasons(old.changes, new.changes))
    if new.name in effects.out:
        return replace(change, reasons=(Reason(key="out-of-mesh"), *reasons), certain=False)
    return replace(change, reasons=reasons) if reasons or new.name in effects.joined else None


def _is_another(old: MachinePicture, new: MachinePicture, effects: Effects) -> bool:
    if new.stays != old.stays or new.host is not old.host:
        return True
    differs = old.identity and new.identity and old.identity != new.identity
    return not new.stays and bool(differs or new.name in effects.replaced)


def _of_address(old: MachinePicture, new: MachinePicture) -> tuple[Reason, ...]:
    """Return that a machine has another address now: its registration is another one then."""
    if not old.identity or not new.identity or old.identity == new.identity:
        return ()
    return (Reason(key="address", before=old.identity, after=new.identity),)


def _of_properties(paths: Sequence[str]) -> tuple[Reason, ...]:
    """Return why a machine is recreated, by properties of its resource."""
    return tuple(Reason(key=path) for path in paths) or (Reason(key="host"),)


def _of_host(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    return tuple(reason for reason in reasons if reason.key in (*STOPS, "image", "disk-type"))


def _without(reasons: Sequence[Reason], key: str) -> tuple[Reason, ...]:
    """Return reasons without one, and without the digest of all where others name what differs."""
    named = [reason for reason in reasons if reason.key not in (key, "registered")]
    return tuple(named) or tuple(reason for reason in reasons if reason.key != key)


def _same_digest(old: MachinePicture, new: MachinePicture) -> bool:
    return bool(old.digest) and old.digest == new.digest


def _other_digest(old: MachinePicture, new: MachinePicture) -> bool:
    return bool(old.digest and new.digest) and old.digest != new.digest


def _reasons(before: Sequence[Fact], after: Sequence[Fact]) -> Iterator[Reason]:
    """Yield the facts that differ, those that are on both sides alone."""
    old, new = ({fact.key: fact.value for fact in side} for side in (before, after))
    for key in sorted(old.keys() & new.keys()):
        if old[key] != new[key]:
            was, now = _shown(key, old[key]), _shown(key, new[key])
            yield Reason(key=key, before=was, after=now) if was != now else Reason(key=key)


def _shown(key: str, value: str) -> str:
    if key in facts.HIDDEN:
        return ""
    if resources.is_made_up(value):
        return "assigned by the update"
    return (version_in(value) or value) if key == "version" else value
