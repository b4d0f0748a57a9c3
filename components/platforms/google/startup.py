"""Machines that join by themselves: their boot script, and what lets them mint their own tokens."""

from __future__ import annotations

from typing import Any

from ... import names, shell
from ...config.google import GceInstanceGroup
from ...config.mesh import MeshSettings
from ...config.workload import WorkloadSettings
from ...machines import bootstrap
from ...machines.files import TOKEN, MachineFile, machine_files

SCOPES = (
    # To be somebody at the API server; what this identity may do is one IAM permission and one name in RBAC.
    "https://www.googleapis.com/auth/cloud-platform",
    # Without it RBAC sees a number instead of the account's address.
    "https://www.googleapis.com/auth/userinfo.email",
)
PERMISSIONS = ("container.clusters.connect",)
DRAIN_UNIT = "/etc/systemd/system/istio-drain.service"
_AGENT_DRAINS = 5  # seconds from the agent's end being asked for until it is gone; Istio's default
_MACHINE, _ADDRESS = "@MACHINE@", "@ADDRESS@"  # known on the machine only


def token_role(name: str, workload: WorkloadSettings) -> dict[str, Any]:
    """The Role that may mint tokens of the workload's ServiceAccount, and of no other."""
    account = workload.service_account_name
    rule = {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [account], "verbs": ["create"]}
    return {"metadata": {"name": f"{name}-machines", "namespace": workload.namespace}, "rules": [rule]}


def token_role_binding(name: str, workload: WorkloadSettings, email: str, unique_id: str) -> dict[str, Any]:
    """Gives the Role to the machines' Google service account, by both names under which GKE may know it."""
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user} for user in (email, unique_id)]
    return {
        "metadata": token_role(name, workload)["metadata"],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"{name}-machines"},
        "subjects": subjects,
    }


def drain_files() -> list[MachineFile]:
    """A unit by which a machine that is shut down leaves the mesh before its application stops.

    Units that start last stop first. While the agent ends it still passes calls on; from then on the machine refuses them at once, which has callers
    try another, until istiod has removed the entry. Google gives a machine 90 seconds to shut down, a spot machine 30.
    """
    seconds = _AGENT_DRAINS + names.DISCONNECT_GRACE + 2
    unit = f"""\
# Written by istio-vm-mesh.
[Unit]
Description=Has this machine leave the mesh before anything else stops
After=multi-user.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'kill -TERM $$(systemctl show --property MainPID --value istio) && sleep {seconds}'
TimeoutStopSec={seconds + 10}
"""
    wanted = "[Unit]\nWants=istio-drain.service\n"
    return [MachineFile(DRAIN_UNIT, unit, "0644"), MachineFile("/etc/systemd/system/istio.service.d/drain.conf", wanted, "0644")]


def startup_script(
    mesh: MeshSettings, machine: GceInstanceGroup, workload: WorkloadSettings, *, gateway: str, root_certificate: str, api_server: str
) -> str:
    """The script that a machine of a group runs at every start: `setup`, then the join with a token that the machine mints itself.

    There is nothing secret in it: anybody who sees the machine's metadata reads it. `api_server` is the API server's URL.
    """
    name = machine.workload
    files = machine_files(
        mesh,
        name,
        workload,
        machine=_MACHINE,
        network=machine.network,
        address=_ADDRESS,
        gateway=gateway,
        root_certificate=root_certificate,
    )
    variables: dict[str, str | int] = {
        "API_SERVER": api_server,
        "NAMESPACE": workload.namespace,
        "SERVICE_ACCOUNT": workload.service_account_name,
        "SETUP_BASE64": shell.b64encode(machine.startup_script or ""),
        "TOKEN_FILE": TOKEN,
        # A changed number makes another script, hence other machines.
        "ROTATION": machine.rotation,
    }
    joining = bootstrap.join_script(
        _MACHINE,
        [*files, *drain_files()],
        token=None,
        gateway=gateway,
        package=mesh.package,
        version=mesh.version,
        registration=bootstrap.registration(name, workload, machine.network),
    )
    own = f"MACHINE={_MACHINE}\n"
    assert joining.startswith(own), "the machine's name is the first variable of a join"
    return "#!/bin/bash\n" + shell.assignments(variables) + shell.read_script("platforms/google/boot") + joining.removeprefix(own)


def group_metadata(text: str) -> dict[str, str]:
    """Metadata of a group's machines: the boot script, and nobody's SSH key."""
    return {
        "startup-script": text,
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "TRUE",
        "serial-port-enable": "FALSE",
    }
