"""The level STATE: what Pulumi previews against the state of a stack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from components import config, mesh_facts, names
from components.config.existing import SshMachine
from components.config.problems import SettingsError
from components.config.stack import Settings
from components.istio import charts
from components.local import scripting
from components.machines.bootstrap import JoinInputs, bundle
from components.machines.bundle import Bundle, Owner, digest, stored, with_root_certificate
from components.machines.files import configuration_files
from components.mesh_facts import MeshFacts
from tools.mesh_status import pulumi

from . import facts, picture, preview, resources
from .compare import compare
from .graph import Graph
from .mesh_model import Fact, MachinePicture, MeshPicture
from .model import Level, Plan
from .resources import UNKNOWN, Resource


def plan(stack: str, destroy: bool) -> Plan:
    """Return the plan of an update, or of a destroy, of a stack. Raises preview.NoPreviewError."""
    text = preview.run(pulumi.environment(), stack, destroy)
    try:
        return plan_of(stack, preview.decode(text), _settings(stack), destroy)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # A state of another version of the program, or a CLI of another version.
        raise preview.NoPreviewError(
            f"the preview has another form than expected: {error!r}. Look at `pulumi preview`"
        ) from None


def _settings(stack: str) -> Settings | None:
    """Return the settings in the stack file, where they can be read."""
    try:
        return config.load_file(stack)
    except SettingsError:
        return None


def plan_of(
    stack: str, previewed: preview.Preview, settings: Settings | None, destroy: bool = False
) -> Plan:
    """Return the plan of a preview.

    settings: those of the stack file, for what a preview does not know; None: they cannot be read.
    """
    previewed = _with_facts_of_mesh(previewed)
    before = picture.decode(stack, previewed.before)
    declared = (
        {name: _owner(settings, machine.workload) for name, machine in settings.machines.items()}
        if settings
        else {}
    )
    after = (
        MeshPicture(stack=stack)
        if destroy
        else picture.decode(stack, previewed.after, declared=declared)
    )
    after = _filled(before, after, previewed, settings)
    plan = compare(before, after, previewed.operations)
    return replace(plan, level=Level.STATE, destroy=destroy)


def _with_facts_of_mesh(previewed: preview.Preview) -> preview.Preview:
    """Return a preview whose mesh is as before, where its cluster does not answer."""
    facts_before = {
        each.name: each.inputs.get("facts", UNKNOWN)
        for each in previewed.before
        if each.type == resources.MESH_READING
    }
    after = tuple(
        replace(each, inputs={**each.inputs, "facts": facts_before.get(each.name, UNKNOWN)})
        if each.type == resources.MESH_READING and each.inputs.get("facts", UNKNOWN) == UNKNOWN
        else each
        for each in previewed.after
    )
    return replace(previewed, after=after)


def _owner(settings: Settings, workload: str) -> picture.Owner:
    return settings.workloads[workload].namespace, workload


def _filled(
    before: MeshPicture, after: MeshPicture, previewed: preview.Preview, settings: Settings | None
) -> MeshPicture:
    """Return `after` with what a preview does not know, where it follows from the rest."""
    old = {machine.name: machine for each in before.workloads for machine in each.machines}
    graphs = Graph.of(previewed.before), Graph.of(previewed.after)
    config_maps = (each.outputs.get("data") for each in graphs[0].of_type(resources.CONFIG_MAP))
    roots = [
        str(data["root-cert.pem"])
        for data in config_maps
        if isinstance(data, Mapping) and "root-cert.pem" in data
    ]
    filler = _Filler(old, *graphs, settings, roots[0] if roots else "")
    workloads = tuple(
        replace(each, machines=tuple(map(filler.fill, each.machines))) for each in after.workloads
    )
    return picture.with_services(replace(after, workloads=workloads), graphs[1])


@dataclass(frozen=True)
class _Filler:
    """Fills in machines. root: the text of the mesh's root certificate, as the state has it."""

    old: Mapping[str, MachinePicture]
    before: Graph
    after: Graph
    settings: Settings | None
    root: str

    def fill(self, machine: MachinePicture) -> MachinePicture:
        """Return a machine with its network, identity, facts and digest, as far as they follow."""
        declared = self.settings.machines.get(machine.name) if self.settings else None
        if not machine.network and declared:
            machine = replace(machine, network=declared.network)
        if not machine.server and isinstance(declared, SshMachine):
            hops = [*([declared.bastion] if declared.bastion else ()), declared]
            server = picture.server_of((hop.host, hop.port) for hop in hops)
            machine = replace(machine, server=server)
        was = self.old.get(machine.name)
        if was is None:
            return machine
        host = picture.host_of(self.after, machine.name)
        if not machine.identity and not (host and host.op in ("replace", "create")):
            machine = replace(
                machine, identity=was.identity, address=machine.address or was.address
            )
        join = self.after.child(machine.name, names.JOIN)
        if join is None or machine.identity != was.identity:
            return machine
        payload = resources.payload(join)
        if not payload:
            payload = self._expected(machine.name)
            machine = self._with_facts(machine, payload, join)
        if join.op == "same":
            return replace(machine, digest=was.digest)
        return replace(machine, digest=self._digest(payload))

    def _with_facts(
        self, machine: MachinePicture, payload: Mapping[str, Any], join: Resource
    ) -> MachinePicture:
        was = self.old[machine.name]
        of_join = facts.of_join(payload, join.inputs.get("environment") or {})
        restart = {fact.key: fact for fact in of_join.restart}
        kept = {fact.key: fact for fact in machine.restart}
        # The script of a join follows from all of it, and from what is not known yet.
        changes = tuple(fact for fact in of_join.changes if fact.key != "join-script")
        return replace(
            machine,
            network=machine.network or was.network,
            address=machine.address or was.address,
            restart=_sorted({**kept, **restart}),
            register=of_join.register,
            changes=changes,
        )

    def _expected(self, name: str) -> Mapping[str, Any]:
        """Return the payload of a join that a preview does not know, from the settings.

        What only the cloud or the cluster has is as in the state.
        """
        join = self.before.child(name, names.JOIN)
        old = resources.payload(join) if join else {}
        of_mesh = self._facts_of_mesh()
        if not old or of_mesh is None or self.settings is None:
            return {}
        if name not in self.settings.machines:
            return {}
        machine = self.settings.machines[name]
        workload, was = self.settings.workloads[machine.workload], old["bundle"]
        owner = replace(
            scripting.decode(Owner, was["owner"]),
            workload=workload.name,
            namespace=workload.namespace,
        )
        inputs = JoinInputs(
            owner=owner,
            network=of_mesh.network
            if machine.network == self.settings.cluster.network
            else machine.network,
            address=was["address"],
            gateway=_declared_gateway(self.settings) or was["gateway"],
            root_certificate="",
            workload=workload,
            mesh=self.settings.mesh,
            facts=of_mesh,
            gateway_port=_declared_port(self.settings),
            locality=self.settings.locality_of(name),
            capture=machine.capture,
            firewall=machine.firewall,
        )
        try:
            expected = bundle(inputs)
        except SettingsError:
            return {}
        plain = {key: value for key, value in asdict(stored(expected)).items() if key != "files"}
        rotation = str(machine.rotation)
        return {
            **old,
            "bundle": plain,
            "changes": f"{rotation} -",
            "take_over": getattr(machine, "take_over", None) or "",
        }

    def _facts_of_mesh(self) -> MeshFacts | None:
        """Return what the mesh is; None where it is not known."""
        if self.settings is None:
            return None
        if not self.settings.mesh.adopt:
            return charts.facts(self.settings.mesh, self.settings.cluster.network)
        of_mesh = picture.facts_of_mesh(self.after)
        return mesh_facts.decode(json.dumps(of_mesh)) if of_mesh else None

    def _digest(self, payload: Mapping[str, Any]) -> str:
        """Return what the join compares the machine with; "" where it is not known.

        It is what `join_machine.run` returns (components/machines/scripts/join_machine.py).
        """
        root = hashlib.sha256(self.root.encode()).hexdigest()
        if not payload or root != payload.get("root_sha256"):
            return ""
        decoded = scripting.decode(Bundle, payload["bundle"])
        complete = with_root_certificate(
            replace(decoded, files=configuration_files(decoded)), self.root
        )
        return digest(complete)


def _declared_gateway(settings: Settings) -> str:
    """Return where machines reach the control plane, "" where the stack file does not say it."""
    gateway = getattr(settings.cluster, "gateway", None)
    return getattr(gateway, "dns_name", None) or getattr(gateway, "address", None) or ""


def _declared_port(settings: Settings) -> int:
    """Return the port at which machines reach the control plane."""
    gateway = getattr(settings.cluster, "gateway", None)
    return getattr(gateway, "port", None) or names.XDS_PORT


def _sorted(by_key: Mapping[str, Fact]) -> tuple[Fact, ...]:
    return tuple(by_key[key] for key in sorted(by_key))
