"""One machine in the mesh: created or adopted by its platform, joined, verified, and drained.

`<machine>-registration` identifies it: the machine and its WorkloadEntry carry that identifier, and
nothing without it is ever changed. `<machine>-join` joins it over SSH. `<machine>-drain` is one
resource for both ends, because six resources a machine are the limit. Its creation waits for the
SSH host key, where the machine creates that key. Its deletion takes the machine out of the mesh
before it is removed. Where the settings state the key, the creation runs nothing.

A machine of this program is drained before its replacement is created. One that exists already is
another machine once its address is another: then it joins first, and what was at the old address
leaves last. If both are one machine, it has the new identifier by then, and stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import Any

import pulumi
from pulumi_command import local

from .. import commands, names, shell
from ..config.capture import Capture, Firewall
from ..istio.workload import Workload
from ..local import openssh
from .bootstrap import JoinInputs, bundle
from .bundle import CONFIRM_S, ROOT_CERTIFICATE, Bundle, Owner, join_script, stored
from .host import Host, HostFactory
from .registration import Registration, RegistrationArgs
from .scripts import drain, join_machine

SECONDS_TO_DRAIN, SECONDS_TO_LEAVE = 5, 2
"""Seconds that requests in flight get after the WorkloadEntry is deleted: in total, or before the agent stops.

An agent that is stopped drains for another five seconds, or as long as the mesh states.
"""


@dataclass(frozen=True, kw_only=True)
class MachineArgs:
    """What a machine in the mesh is made from.

    workload: the workload that it runs.
    host: creates or adopts the machine itself.
    network: the network that it is in; None: the network of the cluster's pods.
    rotation: another number joins the machine again, with a new token.
    workloads: the names of all workloads of the program. A workload that is renamed under its
        machines is refused by them.
    take_over: `<project>/<stack>` whose machine it may be until now; None: none.
    forget: whether nothing connects to the machine any more, also when it is removed.
    locality: where it is, as `region/zone`; "" where none is stated.
    capture: what bypasses its proxy, besides what its workload has.
    firewall: its setting; None: its workload's.
    """

    workload: Workload
    host: HostFactory
    network: str | None = None
    rotation: int = 0
    workloads: Sequence[str] = ()
    take_over: str | None = None
    forget: bool = False
    locality: str = ""
    capture: Capture = field(default_factory=Capture)
    firewall: Firewall | None = None


class Machine(pulumi.ComponentResource):
    """A machine of a workload: at most six resources, this one included, and three SSH connections.

    host: the machine itself. address: its IP address. entry: the name of its WorkloadEntry.
    join: the resource that joins it; of a machine that is forgotten, its registration.
    revision: changes whenever the join ran again.
    changes: changes whenever the join has to, and is there before it.
    target_digest: changes whenever SSH reaches it otherwise.
    """

    host: Host
    network: str
    workload: Workload
    address: pulumi.Output[str]
    entry: pulumi.Output[str]
    join: pulumi.Resource
    revision: pulumi.Output[str]
    changes: pulumi.Output[str]
    target_digest: pulumi.Output[str]

    def __init__(self, name: str, args: MachineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.MACHINE_TYPE, name, {}, opts)
        workload = args.workload
        workload_name, mesh = workload.settings.name, workload.mesh
        self._args, self._cluster = args, mesh.cluster
        network = args.network or mesh.network
        self.workload, self.network = workload, network
        self.host = host = args.host(name, pulumi.ResourceOptions(parent=self))
        self.address = host.address
        named = pulumi.Output.all(address=host.address, network=mesh.network_name(network))
        self.entry = named.apply(lambda values: names.entry_name(workload_name, values["address"], values["network"]))
        self._registration = registration = self._register()
        self._target = host.target
        # What waits for the host key, where the machine creates it, and else for the machine.
        self._identified: pulumi.Resource = registration
        if host.host_key:
            self._identified = waiting = self._drain(host.host_key, [])
            key = commands.result(waiting, host.host_key.module.Result)
            self._target = pulumi.Output.all(target=host.target, key=key).apply(_with_host_key)
        self.target_digest = self._target.apply(_target_digest)
        self.join, self.revision, self.changes = registration, registration.checked, registration.checked
        if not args.forget:
            self.join, self.revision = self._join()
        if not host.host_key:
            self._drain(None, [self.join])
        self.register_outputs({})  # the stack's output `machines` has them

    def _register(self) -> Registration:
        args, settings = self._args, self.workload.settings
        registration_args = RegistrationArgs(
            access=self._cluster.access,
            workload=settings.name,
            others=sorted({*args.workloads} - {settings.name}),
            namespace=settings.namespace,
            identity=self.host.instance_id,
            entry=self.entry,
            forgotten=args.forget,
        )
        opts = pulumi.ResourceOptions(parent=self, provider=self._cluster.dynamic, depends_on=self.workload.ready)
        return Registration(names.part_name(self._name, names.REGISTRATION), registration_args, opts)

    def _join(self) -> tuple[pulumi.Resource, pulumi.Output[str]]:
        """Join the machine; return the resource, and what changes whenever it ran again."""
        mesh, host, registration = self.workload.mesh, self.host, self._registration
        joined = pulumi.Output.all(
            registration=registration.id,
            facts=mesh.facts,
            network=mesh.network_name(self.network),
            address=host.address,
            gateway=mesh.gateway,
            root_certificate=mesh.root_certificate,
        ).apply(self._bundle)
        script = pulumi.Output.all(checked=registration.checked, script=joined.apply(_script_digest))
        self.changes = script.apply(lambda values: f"{values['checked']} {self._args.rotation} {values['script']}".strip())
        inputs = {
            "access": self._cluster.access,
            "target": self._target,
            "bundle": joined,
            "changes": self.changes,
            "root_config_map": mesh.root_config_map,
        }
        command = commands.local_command(
            names.part_name(self._name, names.JOIN),
            commands.Script(join_machine, pulumi.Output.all(**inputs).apply(self._join_payload)),
            pulumi.ResourceOptions(
                parent=self,
                # The registration waits for the machine and for the workload's objects, and those
                # for the mesh. They are not named again, because the list is a part of the state.
                depends_on=[self._identified],
            ),
            # Each wait of a join has a limit. So it needs no timeout, which would be in the state too.
            options=commands.CommandOptions(converges=True, names_dependencies=True),
        )
        done = commands.result(command, join_machine.Result)
        # The changes come back with the result, so that what follows depends on the join alone. What
        # they follow from would be named again in the state of every dependent.
        return command, done.apply(lambda result: f"{result.digest} {result.changes}".strip())

    def _join_payload(self, values: Mapping[str, Any]) -> join_machine.Payload:
        joined: Bundle = values["bundle"]
        (root,) = (file for file in joined.files if file.path == ROOT_CERTIFICATE)
        return join_machine.Payload(
            **{**values, "bundle": stored(joined)},
            root_sha256=hashlib.sha256(root.text.encode()).hexdigest(),
            patience_s=self.host.patience_s,
            take_over=self._args.take_over or "",
        )

    def _owner(self, registration: str) -> Owner:
        settings = self.workload.settings
        return Owner(
            project=pulumi.get_project(),
            stack=pulumi.get_stack(),
            machine=self._name,
            registration=registration,
            namespace=settings.namespace,
            workload=settings.name,
        )

    def _bundle(self, values: Mapping[str, Any]) -> Bundle:
        others = {key: value for key, value in values.items() if key != "registration"}
        return bundle(
            JoinInputs(
                owner=self._owner(values["registration"]),
                workload=self.workload.settings,
                mesh=self.workload.mesh.settings,
                gateway_port=self.workload.mesh.gateway_port,
                locality=self._args.locality,
                capture=self._args.capture,
                firewall=self._args.firewall,
                **others,
            )
        )

    def _drain(self, create: commands.Script | None, depends_on: Sequence[pulumi.Resource]) -> local.Command:
        host = self.host
        values = {
            "access": self._cluster.access,
            "registration": self._registration.id,
            "entry": self.entry,
            "address": self.address,
            "target": self._target if host.leaves else None,
        }
        opts = pulumi.ResourceOptions(
            parent=self,
            depends_on=[self._registration, *depends_on],
            delete_before_replace=host.resource is not None,
            # A machine that stays leaves the mesh even when the cluster is deleted.
            deleted_with=self._cluster.deleted_with if host.resource else None,
        )
        return commands.local_command(
            names.part_name(self._name, names.DRAIN),
            create,
            opts,
            delete=commands.Script(drain, pulumi.Output.all(**values).apply(self._drain_payload)),
            options=commands.CommandOptions(triggers=[host.instance_id], names_dependencies=True),
        )

    def _drain_payload(self, values: Mapping[str, Any]) -> drain.Payload:
        leave = None
        if self.host.leaves:
            # If this program also deletes the machine, a failed leave must not block the deletion.
            leave = drain.Leave(
                values["target"],
                required=self.host.resource is None,
                forget=self._args.forget,
            )
        return drain.Payload(
            access=values["access"],
            owner=self._owner(values["registration"]),
            # Only what leaves over SSH can turn out to be dead, and is then kept out by its entry.
            entry=values["entry"] if leave else "",
            address=values["address"] if leave else "",
            drain_s=SECONDS_TO_LEAVE if leave else SECONDS_TO_DRAIN,
            leave=leave,
        )

    def verify(
        self,
        script: str,
        variables: pulumi.Input[str],
        depends_on: Sequence[pulumi.Resource],
        *,
        module: ModuleType,
        further: Mapping[str, pulumi.Input[Any]],
        changes: pulumi.Input[str] = "",
    ) -> local.Command:
        """Declare what runs a verification script on the machine, as root.

        script: its name, `<package>/<script>`.
        variables: shell assignments that stand before it.
        module, further: what runs it and reads its output (`commands.MachineScript`).
        changes: what else has it run again.

        It runs again whenever one of these or the join changes.
        """
        host = self.host
        proof = commands.MachineScript(
            target=self._target,
            purpose=names.PROOF,
            script=variables,
            body=script,
            changes=pulumi.Output.all(self.revision, changes).apply(lambda values: " ".join(filter(None, values))),
            patience_s=host.patience_s,
            module=module,
            further=further,
        )
        opts = pulumi.ResourceOptions(parent=self, depends_on=[self.join, *depends_on])
        return commands.machine_command(names.part_name(self._name, names.PROOF), proof, opts)


def _target_digest(target: openssh.Target) -> str:
    return hashlib.sha256(json.dumps(asdict(target)).encode()).hexdigest()[:8]


def _script_digest(joined: Bundle) -> str:
    """Return a digest of all that a join runs on the machine: its scripts are in no input."""
    text = shell.run_as_root(join_script(replace(joined, confirm_s=CONFIRM_S), ""))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_host_key(values: Mapping[str, Any]) -> openssh.Target:
    target: openssh.Target = values["target"]
    return replace(target, hop=replace(target.hop, host_key=values["key"].host_key))
