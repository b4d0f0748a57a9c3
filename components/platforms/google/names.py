"""Names on Google Cloud. Pure."""

from __future__ import annotations

import re
from hashlib import sha256

from ...names import PROJECT, child_name, part_name

SSH_USER = "mesh"
NODES = "nodes"  # the firewall's target for the cluster's nodes; others are workloads

# Types of components.
NETWORK_TYPE = f"{PROJECT}:networks:Google"
GKE_TYPE = f"{PROJECT}:clusters:Gke"
INSTANCE_GROUP_TYPE = f"{PROJECT}:machines:InstanceGroup"
LOAD_BALANCER_TYPE = f"{PROJECT}:machines:LoadBalancer"

STACK_LABEL = f"{PROJECT}-stack"
"""The label of everything that a stack makes on Google Cloud."""

# What the names of Pulumi resources end with (components/names.py: `part_name`).
INSTANCE = "instance"
"""Of a machine."""
TEMPLATE, HEALTH, MANAGER, AUTOSCALER = "template", "health", "manager", "autoscaler"
"""Of an instance group; `HEALTH` of a load balancer too."""
BALANCER, ADDRESS, INSTANCES, BACKENDS, RULE = "balancer", "address", "instances", "backends", "rule"
"""Of a network's gateway, and of its load balancer."""
CONNECTS, ROLE, BINDING = "connects", "machines-role", "machines-binding"
"""Of a workload whose machines mint their own tokens."""
GKE, NODE_POOL = "gke", "nodes"
"""Of a cluster."""
PROVIDER, CONNECT_ROLE = "provider", "fleet-role"
"""Of the VPCs."""
GOOGLE_ACCOUNT = "google-account"
"""Of a workload: the Google service account of its machines."""
NETWORKS = "google"
"""The name of the component that a stack's VPCs belong to."""


LIMITS = {
    "name": 63,  # RFC 1035, of nearly everything
    "cluster": 40,
    "base": 54,  # of machines of a group: Google appends 5 characters to at most 58
    "account": 30,
    "role": 64,
    "label": 63,
    "title": 100,
}
"""Characters that Google Cloud takes at most, by what they name.

Names that Pulumi makes have 8 characters more than the resource's name in the stack.
"""
SHORTEST_ACCOUNT = 6
"""Characters that the ID of a service account has at least."""

HOST_KEY_TYPES = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256"}
"""The types of host keys in OpenSSH's words, by the setting `google.ssh.keyType`."""


def networks_child_name(component: str, child: str) -> str:
    """Return the resource name of what belongs to the VPCs of a component (`child_name`)."""
    return child_name(component, NETWORKS, child)


def balancer_name(workload: str) -> str:
    """Return the resource name of the load balancer in front of a network's gateway."""
    return part_name(workload, BALANCER)


def instances_name(balancer: str, zone: str) -> str:
    """Return the resource name of a load balancer's instances in a zone, "" for the first.

    A load balancer is in one region, so the zone's letter stands for the zone.
    """
    name = part_name(balancer, INSTANCES)
    return part_name(name, zone.rpartition("-")[2]) if zone else name


def vpc_name(vpc: str) -> str:
    """Return the resource name of a VPC."""
    return f"vpc-{vpc}"


def subnet_name(subnet: str) -> str:
    """Return the resource name of a subnet."""
    return f"subnet-{subnet}"


def router_name(vpc: str) -> str:
    """Return the resource name of a VPC's Cloud Router."""
    return f"router-{vpc}"


def nat_name(vpc: str) -> str:
    """Return the resource name of a VPC's Cloud NAT."""
    return f"nat-{vpc}"


def peering_name(one: str, other: str) -> str:
    """Return the resource name of one direction of a peering."""
    return f"peering-{one}-{other}"


def account_resource_name(workload: str) -> str:
    """Return the resource name of the Google service account of a workload's machines."""
    return part_name(workload, GOOGLE_ACCOUNT)


def workload_of_account(account: str) -> str:
    """Return the workload of a Google service account, by the account's resource name."""
    return account.removesuffix(part_name("", GOOGLE_ACCOUNT))


def rule_resource_name(rule: str) -> str:
    """Return the resource name of a firewall rule."""
    return f"firewall-{rule}"


def rule_of_resource(resource: str) -> str:
    """Return the name of a firewall rule, by its resource name."""
    return resource.removeprefix(rule_resource_name(""))


def rule_name(vpc: str, target: str, kind: str = "") -> str:
    """Return the name of a firewall rule: its VPC, what it opens, and for what kind of client."""
    return "-".join(filter(None, (vpc, target, kind)))


def slug(text: str) -> str:
    """Return a stack's name in Google's grammar: small letters, digits and '-', a letter first.

    Pulumi also permits capital letters, '.' and '_'.
    """
    name = re.sub("[^a-z0-9-]", "-", text.lower())
    return name if name[:1].isalpha() else f"s{name}"


def resource_name(stack: str, name: str) -> str:
    """Return a fixed name on Google Cloud, which is unique in a project."""
    return _fixed(stack, name, LIMITS["name"])


def cluster_name(stack: str, component: str = "cluster") -> str:
    """Return the name of a cluster.

    component: the name of its component, which is part of it unless it is the stack's own.
    """
    return _fixed(stack, child_name(component, "cluster", "mesh"), LIMITS["cluster"])


def base_instance_name(stack: str, group: str) -> str:
    """Return what the names of an instance group's machines begin with."""
    return _fixed(stack, group, LIMITS["base"])


def account_id(stack: str, name: str) -> str:
    """Return the ID of a service account."""
    return _fixed(stack, name, LIMITS["account"], SHORTEST_ACCOUNT)


def role_id(stack: str, unique_id: str) -> str:
    """Return the ID of a custom role.

    unique_id: of a service account of the stack. Google gives it to no other account, also after
    a deletion. The ID of a deleted role cannot be used again for up to 37 days.
    """
    beginning = f"istioVmMesh_{''.join(letter if letter.isalnum() else '_' for letter in stack)}"
    return f"{beginning[: LIMITS['role'] - len(unique_id) - 1]}_{unique_id}"


def stack_label_value(stack: str) -> str:
    """Return the value of `STACK_LABEL` for a stack."""
    name = slug(stack)
    return name if len(name) <= LIMITS["label"] else _with_digest(stack, stack, LIMITS["label"])


def title(stack: str, purpose: str) -> str:
    """Return the title of a role or an account. A long name of a stack is cut."""
    text = f"{PROJECT} {{}}: {purpose}"
    return text.format(stack[: LIMITS["title"] - len(text) + 2])


def _fixed(stack: str, name: str, longest: int, shortest: int = 1) -> str:
    """Return a name that no other stack of the Pulumi project has: the stack's, `--`, and `name`.

    Both have hyphens, so one would not show where the stack's name ends. Where two do not either,
    and where the length or the stack's name does not fit, a digest keeps names apart.
    """
    text = f"{stack}--{name}"
    is_plain = slug(text) == text and text.index("--") == len(stack)
    if is_plain and shortest <= len(text) <= longest:
        return text
    return _with_digest(text, f"{stack}/{name}", longest)


def _with_digest(text: str, key: str, longest: int) -> str:
    """Return a text in Google's grammar, cut where it is too long, with a digest of `key`."""
    digest = f"-{sha256(key.encode()).hexdigest()[:8]}"
    return f"{slug(text)[: longest - len(digest)].rstrip('-')}{digest}"


def project_of(path: str) -> str:
    """Return the project of a path such as `projects/net-host/global/networks/shared`."""
    return path.split("/")[1]


def link(path: str) -> str:
    """Return the URL of a path, which peerings take."""
    return f"https://www.googleapis.com/compute/v1/{path}"


def account_email(project: str, stack: str, name: str) -> str:
    """Return the email address of a service account of the stack."""
    domain, _, bare = project.rpartition(":")
    place = f"{bare}.{domain}" if domain else bare
    return f"{account_id(stack, name)}@{place}.iam.gserviceaccount.com"
