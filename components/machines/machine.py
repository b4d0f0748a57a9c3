"""One machine in the mesh: created or adopted by its platform, joined, verified, and drained.

Its life is in two commands. `<machine>-join` joins it over SSH. `<machine>-drain` is one resource
for both ends, because six resources a machine are the limit: its creation waits for the machine's
SSH host key, where the machine creates that key; its deletion takes the machine out of the mesh
before it is removed. Where the key is known beforehand, the creation of the drain runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pulumi
from pulumi_command import local

from .. import commands, names, shell
from ..istio.workload import Workload
from ..local import openssh
from .bootstrap import JoinInputs, join_digest, join_script, leave_script
from .host import Host, HostFactory
from .scripts import drain
from .token import Token, TokenArgs

SECONDS_TO_DRAIN, SECONDS_TO_LEAVE = 5, 2
"""Seconds that requests in flight get after the WorkloadEntry is deleted: in total, or before the agent stops.

An agent that is stopped drains for another five seconds.
"""
LEAVE_TIME_LIMIT_S = 120
"""Seconds that leaving the mesh may take on the machine."""


@dataclass(frozen=True, kw_only=True)
class MachineArgs:
    """What a machine in the mesh is made from.

    workload: the workload that it runs.
    host: creates or adopts the machine itself.
    network: the network that it is in; None: the network of the cluster's pods.
    rotation: another number mints a new token and joins the machine again.
    workloads: the names of all workloads of the program. A workload that is renamed under its
        machines is refused by them.
    """

    workload: Workload
    host: HostFactory
    network: str | None = None
    rotation: int = 0
    workloads: Sequence[str] = ()


class Machine(pulumi.ComponentResource):
    """A machine of a workload: at most six resources, this one included, and two SSH connections.

    host: the machine itself. address: its IP address. entry: the name of its WorkloadEntry.
    join: the resource that joins it.
    revision: changes whenever the join restarted the agent or a new token was issued.
    """

    host: Host
    network: str
    workload: Workload
    address: pulumi.Output[str]
    entry: pulumi.Output[str]
    join: local.Command
    revision: pulumi.Output[str]

    def __init__(self, name: str, args: MachineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-vm-mesh:machines:Machine", name, {}, opts)
        workload = args.workload
        workload_name, mesh = workload.settings.name, workload.mesh
        self._cluster = mesh.cluster
        network = args.network or mesh.network
        self.workload, self.network = workload, network
        self.host = host = args.host(name, pulumi.ResourceOptions(parent=self))
        self.address = host.address
        self.entry = host.address.apply(lambda address: names.entry_name(workload_name, address, network))
        token = self._token(args)
        inputs = pulumi.Output.all(
            mesh=mesh.effective_config,
            address=host.address,
            gateway=mesh.gateway,
            root_certificate=mesh.root_certificate,
            token=token.token,
        ).apply(self._join_inputs)
        depends_on = [*filter(None, [host.resource]), *workload.identity_resources, *mesh.ready]
        self._target = host.target
        if host.host_key:
            key = commands.result(self._drain(host.host_key, []), host.host_key.module.Result)
            self._target = pulumi.Output.all(target=host.target, key=key).apply(_with_host_key)
        join = commands.MachineScript(
            target=self._target,
            purpose=names.JOIN,
            script=inputs.apply(join_script),
            last_line=inputs.apply(join_digest),
        )
        self.join = self._on_machine(join, depends_on)
        if not host.host_key:
            self._drain(None, [self.join])
        # A new token alone may have brought the machine back.
        revision = pulumi.Output.unsecret(pulumi.Output.all(commands.printed(self.join), token.expires))
        self.revision = revision.apply(lambda parts: f"{parts[0]} {parts[1]}")
        self.register_outputs({"address": self.address, "entry": self.entry})

    def _token(self, args: MachineArgs) -> Token:
        workload, cluster = self.workload, self._cluster
        token_args = TokenArgs(
            access=cluster.access.apply(asdict),
            cluster=cluster.uid or "",
            workload=workload.settings.name,
            workloads=sorted({*args.workloads, workload.settings.name}),
            namespace=workload.settings.namespace,
            service_account=workload.settings.service_account_name,
            identity=self.host.instance_id,
            rotation=args.rotation,
            entry=self.entry,
        )
        opts = pulumi.ResourceOptions(parent=self, depends_on=workload.identity_resources)
        return Token(names.part_name(self._name, names.TOKEN), token_args, opts)

    def _join_inputs(self, values: Mapping[str, Any]) -> JoinInputs:
        return JoinInputs(
            machine=self._name,
            network=self.network,
            workload=self.workload.settings,
            **values,
        )

    def _drain(self, create: commands.Script | None, depends_on: Sequence[pulumi.Resource]) -> local.Command:
        host = self.host
        values = {"access": self._cluster.access, "entry": self.entry}
        # It runs before a machine is replaced, as before it is removed. A machine that stays leaves
        # the mesh even when the cluster is deleted.
        opts = pulumi.ResourceOptions(
            parent=self,
            depends_on=list(depends_on),
            delete_before_replace=True,
            deleted_with=self._cluster.deleted_with if host.resource else None,
        )
        payload = pulumi.Output.all(target=self._target if host.leaves else None, **values).apply(self._drain_payload)
        return commands.local_command(
            names.part_name(self._name, names.DRAIN),
            create,
            opts,
            delete=commands.Script(drain, payload),
            options=commands.CommandOptions(triggers=[host.instance_id]),
        )

    def _drain_payload(self, values: Mapping[str, Any]) -> drain.Payload:
        leave = None
        if self.host.leaves:
            script = shell.run_as_root(leave_script(self._name), LEAVE_TIME_LIMIT_S)
            # If this program also deletes the machine, a failed leave must not block the deletion.
            leave = drain.Leave(values["target"], script, required=self.host.resource is None)
        return drain.Payload(
            access=values["access"],
            namespace=self.workload.settings.namespace,
            entry=values["entry"],
            drain_s=SECONDS_TO_LEAVE if leave else SECONDS_TO_DRAIN,
            leave=leave,
        )

    def verify(self, text: pulumi.Input[str], depends_on: Sequence[pulumi.Resource]) -> pulumi.Output[str]:
        """Run a verification script on the machine and return its output.

        It runs again whenever the text or the join changes.
        """
        proof = commands.MachineScript(target=self._target, purpose=names.PROOF, script=text, changes=self.revision)
        return commands.printed(self._on_machine(proof, [self.join, *depends_on]))

    def _on_machine(self, work: commands.MachineScript, depends_on: Sequence[pulumi.Resource]) -> local.Command:
        """Run a script on the machine, as root."""
        host = self.host
        as_root = replace(
            work,
            script=pulumi.Output.from_input(work.script).apply(shell.run_as_root),
            triggers=[host.instance_id],
            patience_s=host.patience_s,
        )
        opts = pulumi.ResourceOptions(parent=self, depends_on=list(depends_on), deleted_with=host.resource)
        return commands.machine_command(names.part_name(self._name, work.purpose), as_root, opts)


def _with_host_key(values: Mapping[str, Any]) -> openssh.Target:
    target: openssh.Target = values["target"]
    return replace(target, hop=replace(target.hop, host_key=values["key"].host_key))
