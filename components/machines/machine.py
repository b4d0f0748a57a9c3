"""One machine in the mesh: created or adopted by its platform, joined, verified, and drained before it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_command import local, remote

from .. import names, shell
from ..istio.workload import Workload
from .bootstrap import JoinInputs, join_script
from .host import Host, HostFactory
from .token import Token, TokenArgs

SECONDS_TO_DRAIN, SECONDS_TO_LEAVE = 5, 2
"""Seconds that requests in flight get after the WorkloadEntry is deleted: in total, or before the agent stops.

An agent that is stopped drains for another five seconds.
"""


@dataclass(frozen=True, kw_only=True)
class MachineArgs:
    """What a machine in the mesh is made from.

    workload: the workload that it runs.
    host: creates or adopts the machine itself, with the options that it is given.
    network: the network that it is in.
    rotation: a higher number mints a new token and joins the machine again.
    workloads: the names of all workloads of the program. A workload that is renamed under its
        machines is refused by them.
    """

    workload: Workload
    host: HostFactory
    network: str
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
    join: remote.Command
    revision: pulumi.Output[str]

    def __init__(self, name: str, args: MachineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-vm-mesh:machines:Machine", name, {}, opts)
        workload, network = args.workload, args.network
        workload_name, mesh = workload.settings.name, workload.mesh
        self._cluster = mesh.cluster
        self.workload, self.network = workload, network
        self.host = host = args.host(pulumi.ResourceOptions(parent=self))
        self.address = host.address
        self.entry = host.address.apply(lambda address: names.entry_name(workload_name, address, network))
        token = self._token(args)
        payload = pulumi.Output.all(
            mesh=mesh.effective_config,
            address=host.address,
            gateway=mesh.gateway,
            root_certificate=mesh.root_certificate,
            token=token.token,
        ).apply(self._join_script)
        drain = pulumi.Output.all(kubeconfig=self._cluster.kubeconfig, entry=self.entry, leave=host.leave_script or "").apply(
            self._drain_script
        )
        depends_on = [*filter(None, [host.resource]), *workload.identity_resources, *mesh.ready]
        host_key_script, connection = host.host_key_script, host.connection
        if host_key_script is not None and callable(connection):
            # One Command covers both ends of the machine's life: create waits for the SSH host key,
            # delete drains the machine.
            text = drain.apply(lambda delete: shell.create_or_delete_script(host_key_script, delete))
            self._connection = connection(self._drain(text, shell.LOCAL_ON_CREATE, []).stdout)
            self.join = self._over_ssh(f"{name}-join", payload, depends_on)
        else:
            assert not callable(connection)
            self._connection = connection
            self.join = self._over_ssh(f"{name}-join", payload, depends_on)
            self._drain(drain, "true", [self.join])
        # A new token alone may have brought the machine back.
        revision = pulumi.Output.unsecret(pulumi.Output.all(self.join.stdout, token.expires))
        self.revision = revision.apply(lambda parts: f"{parts[0]} {parts[1]}")
        self.register_outputs({"address": self.address, "entry": self.entry})

    def _token(self, args: MachineArgs) -> Token:
        workload, cluster = self.workload, self._cluster
        token_args = TokenArgs(
            kubeconfig=cluster.kubeconfig,
            cluster=cluster.identifier,
            workload=workload.settings.name,
            workloads=sorted({*args.workloads, workload.settings.name}),
            namespace=workload.settings.namespace,
            service_account=workload.settings.service_account_name,
            identity=self.host.instance_id,
            rotation=args.rotation,
            entry=self.entry,
        )
        opts = pulumi.ResourceOptions(parent=self, depends_on=workload.identity_resources)
        return Token(f"{self._name}-token", token_args, opts)

    def _join_script(self, inputs: Mapping[str, Any]) -> str:
        join = JoinInputs(
            machine=self._name,
            network=self.network,
            workload=self.workload.settings,
            **inputs,
        )
        return shell.run_as_root(join_script(join))

    def _drain_script(self, inputs: Mapping[str, str]) -> str:
        host = self.host
        variables: dict[str, str | int] = {
            "NAMESPACE": self.workload.settings.namespace,
            "ENTRY": inputs["entry"],
            "SECONDS_TO_DRAIN": SECONDS_TO_LEAVE if host.leave_script else SECONDS_TO_DRAIN,
        }
        # If this program also deletes the machine, a failed leave must not block the deletion.
        leave = f"({inputs['leave']}) || true\n" if host.leave_script and host.resource else inputs["leave"]
        return shell.with_kubeconfig("machines/drain", inputs["kubeconfig"], variables) + leave

    def _drain(self, text: pulumi.Output[str], create: str, depends_on: Sequence[pulumi.Resource]) -> local.Command:
        return local.Command(
            f"{self._name}-drain",
            create=create,
            delete=shell.LOCAL,
            stdin=text,
            triggers=[self.host.instance_id],
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            # It runs before a machine is replaced, as before it is removed. A machine that stays
            # leaves the mesh even when the cluster is deleted.
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=list(depends_on),
                delete_before_replace=True,
                deleted_with=self._cluster.deleted_with if self.host.resource else None,
            ),
        )

    def verify(self, text: pulumi.Input[str], depends_on: Sequence[pulumi.Resource]) -> pulumi.Output[str]:
        """Run a verification script on the machine and return its output.

        It runs again whenever the text or the join changes.
        """
        stdin = pulumi.Output.all(revision=self.revision, text=text).apply(
            lambda parts: shell.run_as_root(shell.assignments({"JOINED": parts["revision"]}) + parts["text"])
        )
        return self._over_ssh(f"{self._name}-proof", stdin, [self.join, *depends_on]).stdout

    def _over_ssh(self, name: str, stdin: pulumi.Output[str], depends_on: Sequence[pulumi.Resource]) -> remote.Command:
        host = self.host
        return remote.Command(
            name,
            connection=self._connection,
            create=shell.REMOTE,
            stdin=stdin,
            triggers=[host.instance_id],
            logging=remote.Logging.NONE,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=list(depends_on),
                deleted_with=host.resource,
                custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m"),
            ),
        )
