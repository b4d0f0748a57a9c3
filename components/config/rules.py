"""Settings of the rules that `./scripts/plan` holds a stack to."""

from __future__ import annotations

from pydantic import Field

from .record import Record


class DisabledRules(Record):
    """Declare which rules do not hold for a stack, each with the reason.

    A reason is one line of at most 200 characters. The plan of every change shows it.
    """

    public_address: str | None = Field(
        default=None,
        description="Reason why machines, nodes or load balancers may have public addresses. "
        "Default: none may have one.",
    )
    open_to_world: str | None = Field(
        default=None,
        description="Reason why firewalls and load balancers may admit all addresses of the "
        "internet. Default: each admits the CIDRs of its clients.",
    )
    plaintext: str | None = Field(
        default=None,
        description="Reason why workloads may accept requests without mutual TLS. "
        "Default: every workload of the program refuses them.",
    )
    deletion_protection: str | None = Field(
        default=None,
        description="Reason why a GKE cluster may be without deletion protection. "
        "Default: it is protected.",
    )
    all_at_once: str | None = Field(
        default=None,
        description="Reason why a workload may lose all its machines at once. Default: one "
        "machine stays while others restart, or pods of the workload answer.",
    )
    leave_without_drain: str | None = Field(
        default=None,
        description="Reason why a machine may leave without a drain, which fails its open "
        "requests. Default: every machine that leaves is drained.",
    )
    version_skew: str | None = Field(
        default=None,
        description="Reason why proxies may have a version that Istio does not support with the "
        "control plane's. Default: that of the control plane, or the minor before.",
    )
    kubernetes_version: str | None = Field(
        default=None,
        description="Reason why Istio may run on a version of Kubernetes that it does not support. "
        "Default: an update does not install it there.",
    )
    shared_identity: str | None = Field(
        default=None,
        description="Reason why two workloads may have the same identity, so that policies do not "
        "tell them apart. Default: each has a service account of its own.",
    )


class Rules(Record):
    """Declare what a change of the stack must not do. `./scripts/plan` fails where it does."""

    disabled: DisabledRules = Field(
        default_factory=DisabledRules,
        description="Rules that do not hold for this stack, by name, each with its reason. "
        "Default: all rules hold.",
    )
