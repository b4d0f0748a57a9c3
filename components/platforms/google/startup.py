"""How machines of an instance group join without SSH: the startup script and its permissions."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config.capture import Capture, Firewall
from ...config.mesh import MeshSettings
from ...config.workload import WorkloadSettings
from ...machines.bootstrap import JoinInputs, bundle
from ...machines.bundle import UNIT, Owner, join_text, join_variables, unit
from ...manifest import Manifest
from ...mesh_facts import MeshFacts
from ...names import token_role_name
from ...shell import b64encode, remote_script

SCOPES = (
    # The API server takes no narrower scope. IAM and RBAC permit this identity one thing each.
    "https://www.googleapis.com/auth/cloud-platform",
    # Without it RBAC sees a number instead of the account's address.
    "https://www.googleapis.com/auth/userinfo.email",
)
PERMISSIONS = ("container.clusters.connect",)
_RBAC = "rbac.authorization.k8s.io"
MACHINE, ADDRESS, LOCALITY = "@MACHINE@", "@ADDRESS@", "@LOCALITY@"
"""Placeholders in the files, which each machine fills in."""


def token_role(workload: WorkloadSettings) -> Manifest:
    """Return the Role that may mint tokens of the workload's ServiceAccount, and of no other."""
    account = workload.service_account_name
    metadata = {"name": token_role_name(workload.name), "namespace": workload.namespace}
    rule = {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": [account],
        "verbs": ["create"],
    }
    return {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]}


def token_role_binding(
    workload: WorkloadSettings,
    email: str,
    unique_id: str,
) -> Manifest:
    """Return the binding of the Role to the machines' Google service account.

    GKE identifies the account by its email address or its unique ID, so both are subjects.
    """
    api = {"apiGroup": _RBAC}
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": token_role(workload)["metadata"],
        "roleRef": {**api, "kind": "Role", "name": token_role_name(workload.name)},
        "subjects": [{**api, "kind": "User", "name": user} for user in (email, unique_id)],
    }


@dataclass(frozen=True, kw_only=True)
class StartupInputs:
    """What a group's machines need to join. Each adds its name, its address and its token.

    project, stack: Pulumi's, which each machine is stamped with.
    network: the machines' network, as the mesh calls it.
    gateway: the east-west gateway's address or DNS name.
    root_certificate: the mesh's trust anchor, in PEM.
    workload: the workload's settings.
    mesh: the mesh's settings.
    facts: what the mesh is.
    api_server: the API server's URL, which gives a machine its token.
    setup: the stack's own script, which runs before the join; "" for none.
    rotation: a number; another one changes the script, which replaces the machines.
    capture: what bypasses the proxies of these machines, besides what the workload has.
    firewall: their setting; None: the workload's.
    """

    project: str
    stack: str
    network: str
    gateway: str
    root_certificate: str
    workload: WorkloadSettings
    mesh: MeshSettings
    facts: MeshFacts
    api_server: str
    setup: str = ""
    rotation: int = 0
    capture: Capture = field(default_factory=Capture)
    firewall: Firewall | None = None


def startup_script(inputs: StartupInputs) -> str:
    """Return the script that a group's machine runs at every start, with nothing secret in it.

    Every user who may read the instances' metadata can read the script.
    """
    workload = inputs.workload
    owner = Owner(inputs.project, inputs.stack, MACHINE, "", workload.namespace, workload.name)
    join = JoinInputs(
        owner=owner,
        address=ADDRESS,
        locality=LOCALITY,
        network=inputs.network,
        gateway=inputs.gateway,
        root_certificate=inputs.root_certificate,
        workload=workload,
        mesh=inputs.mesh,
        facts=inputs.facts,
        capture=inputs.capture,
        firewall=inputs.firewall,
    )
    # Before it is shut down, the machine leaves the mesh, and its application stops last.
    drain = [unit("istio-vm-mesh-drain.service"), unit(f"{UNIT}.d/drain.conf")]
    variables: dict[str, str | int] = {
        "API_SERVER": inputs.api_server,
        "SERVICE_ACCOUNT": workload.service_account_name,
        "SETUP_BASE64": b64encode(inputs.setup),
        "ROTATION": inputs.rotation,
        **join_variables(bundle(join), drain),
    }
    text = remote_script("platforms/google/startup", variables)
    return "#!/bin/bash\n" + text + join_text()


def group_metadata(text: str) -> dict[str, str]:
    """Return the metadata of a group's machines: the startup script, and no SSH key."""
    return {
        "startup-script": text,
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "TRUE",
        "serial-port-enable": "FALSE",
    }
