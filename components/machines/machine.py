"""One machine in the mesh: made or found by its platform, joined over SSH, drained before it goes, and heard calling the mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
from pulumi_command import local, remote

from .. import names, shell
from ..config.stack import Settings
from ..istio import manifests
from ..istio.control_plane import Mesh
from ..istio.workload import Workload
from ..kubernetes import Cluster
from . import bootstrap
from .files import machine_files
from .host import Host
from .token import Token

SECONDS_TO_DRAIN, SECONDS_TO_LEAVE = 5, 2
"""How long calls under way have once the entry is gone: all that they have, or until the agent is ended, which takes five more."""


class Machine(pulumi.ComponentResource):
    """A machine of a workload. At most six resources, this one included, and two SSH connections.

    `host` is the machine itself, `address` its address, `entry` the name of its WorkloadEntry. `join` is the resource that joins it, `joined` changes
    with whatever the agent was restarted for, and with a new token.
    """

    host: Host
    address: pulumi.Output[str]
    entry: pulumi.Output[str]
    join: remote.Command
    joined: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        settings: Settings,
        make_host: Callable[[pulumi.ResourceOptions], Host],
        cluster: Cluster,
        mesh: Mesh,
        workload: Workload,
    ) -> None:
        """`make_host` makes the machine itself, with the options that it is given."""
        super().__init__("istio-vm-mesh:machines:Machine", name, {})
        machine = settings.machines[name]
        group, network = machine.workload, machine.network
        spec = settings.workloads[group]
        host = make_host(pulumi.ResourceOptions(parent=self))
        self.host, self._cluster = host, cluster
        self.address = host.address
        self.entry = host.address.apply(lambda address: names.entry_name(group, address, network))

        token = Token(
            f"{name}-token",
            {
                "kubeconfig": cluster.kubeconfig,
                "cluster": cluster.identifier,
                "workload": group,
                "workloads": sorted(settings.workloads),
                "namespace": spec.namespace,
                "service_account": manifests.service_account_name(group, spec),
                "identity": host.identity,
                "rotation": machine.rotation,
                "entry": self.entry,
            },
            pulumi.ResourceOptions(parent=self, depends_on=workload.registered),
        )

        def join_script(found: dict[str, Any]) -> str:
            files = machine_files(
                found["mesh"],
                group,
                spec,
                machine=name,
                network=network,
                address=found["address"],
                gateway=found["gateway"],
                root_certificate=found["root"],
            )
            return bootstrap.join_script(
                name,
                files,
                token=found["token"],
                gateway=found["gateway"],
                package=settings.mesh.package,
                version=settings.mesh.version,
                registration=bootstrap.registration(group, spec, network),
            )

        payload = pulumi.Output.all(
            mesh=mesh.described, address=host.address, gateway=mesh.gateway, root=mesh.root_certificate, token=token.token
        ).apply(join_script)

        def drain_script(found: dict[str, str]) -> str:
            seconds = SECONDS_TO_LEAVE if host.leave else SECONDS_TO_DRAIN
            variables: dict[str, str | int] = {"NAMESPACE": spec.namespace, "ENTRY": found["entry"], "SECONDS_TO_DRAIN": seconds}
            # What does not leave keeps nobody from removing the machine where this program made it.
            leave = f"({found['leave']}) || true\n" if host.leave and host.resource else found["leave"]
            return shell.with_kubeconfig("machines/drain", found["kubeconfig"], variables) + leave

        drain_text = pulumi.Output.all(kubeconfig=cluster.kubeconfig, entry=self.entry, leave=host.leave or "").apply(drain_script)
        after = [*filter(None, [host.resource]), *workload.registered, *mesh.ready]
        prepare, connection = host.prepare, host.connection
        if prepare is not None and callable(connection):
            # One resource for both ends of a machine's life, as seen from here: its host key first, its drain last.
            text = drain_text.apply(lambda drain: shell.create_or_delete_script(prepare, drain))
            self._connection = connection(self._drain(text, shell.LOCAL_ON_CREATE, []).stdout)
            self.join = self._over_ssh(f"{name}-join", payload, after)
        else:
            assert not callable(connection)
            self._connection = connection
            self.join = self._over_ssh(f"{name}-join", payload, after)
            self._drain(drain_text, "true", [self.join])
        # A machine may have come back by a new token alone.
        known = pulumi.Output.unsecret(pulumi.Output.all(self.join.stdout, token.expires))
        self.joined = known.apply(lambda found: f"{found[0]} {found[1]}")
        self.register_outputs({"address": self.address, "entry": self.entry})

    def _drain(self, text: pulumi.Output[str], create: str, after: list[pulumi.Resource]) -> local.Command:
        return local.Command(
            f"{self._name}-drain",
            create=create,
            delete=shell.LOCAL,
            stdin=text,
            triggers=[self.host.identity],
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            # Before a machine is replaced, as before it is removed. A machine that stays leaves even when the cluster goes.
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=after, delete_before_replace=True, deleted_with=self._cluster.whole if self.host.resource else None
            ),
        )

    def prove(self, text: pulumi.Input[str], after: list[pulumi.Resource]) -> pulumi.Output[str]:
        """Run a script that proves something on the machine, again whenever it or the join changes; returns what it prints."""
        stdin = pulumi.Output.all(joined=self.joined, text=text).apply(
            lambda found: shell.assignments({"JOINED": found["joined"]}) + found["text"]
        )
        return self._over_ssh(f"{self._name}-proof", stdin, [self.join, *after]).stdout

    def _over_ssh(self, name: str, stdin: pulumi.Output[str], after: list[pulumi.Resource]) -> remote.Command:
        host = self.host
        return remote.Command(
            name,
            connection=self._connection,
            create=host.as_root,
            stdin=stdin,
            triggers=[host.identity],
            logging=remote.Logging.NONE,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=after,
                deleted_with=host.resource,
                custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m"),
            ),
        )
