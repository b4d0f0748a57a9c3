"""The proof, per workload, that machines and pods answer: a resource that runs again whenever something changed that could change the answer."""

from __future__ import annotations

import json

import pulumi
from pulumi_command import local

from components.clusters import Cluster
from components.machine import Machine
from components.mesh import Mesh
from components.plan import script
from components.plan import verification as plan
from components.plan import workload as workload_plan
from components.settings import Settings
from components.workload import Workload


def verify(
    name: str, settings: Settings, cluster: Cluster, mesh: Mesh, workload: Workload, machines: dict[str, Machine]
) -> pulumi.Output[dict]:
    """Verify workload `name` with its `machines`; returns the evidence of pods and machines (`plan.verification.evidence`)."""
    spec = settings.workloads[name]

    def text(found: dict) -> str:
        return plan.verify(
            name,
            spec,
            settings.mesh,
            settings.verify,
            kubeconfig=found["kubeconfig"],
            entries=found["entries"],
            addresses=found["addresses"],
        )

    known = {
        "kubeconfig": cluster.kubeconfig,
        "entries": {machine: made.entry for machine, made in machines.items()},
        "addresses": {machine: made.address for machine, made in machines.items()},
    }
    # What could change the answer and is not in the script itself.
    described = (
        workload_plan.deployment(name, spec),
        workload_plan.services(spec),
        workload_plan.workload_group(name, spec, ""),
        settings.mesh.version,
    )
    changes = {
        "joined": {machine: made.joined for machine, made in machines.items()},
        "gateway": mesh.gateway,
        "plan": json.dumps(described),
    }
    command = local.Command(
        f"{name}-verification",
        create=script.LOCAL,
        stdin=pulumi.Output.all(**known).apply(text),
        environment={"CHANGES": pulumi.Output.json_dumps(changes)},
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(
            parent=workload, depends_on=workload.ready, custom_timeouts=pulumi.CustomTimeouts(create="10m", update="10m")
        ),
    )
    outputs = [pulumi.Output.unsecret(command.stdout), *(made.evidence for made in machines.values())]
    return pulumi.Output.all(*outputs).apply(lambda texts: plan.evidence("\n".join(texts)))
