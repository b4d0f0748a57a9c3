"""The sentences of a plan on rules: those that are broken, and those that do not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .lines import Line, Section
from .model import BrokenRule, Plan
from .phrases import Phrase, listed, long_text, phrase


def broken_rules(plan: Plan) -> Section:
    """Return the rules that the update breaks. It stands before the verdict."""
    broken = [each for each in plan.broken if not each.excepted]
    title = "1 rule is broken" if len(broken) == 1 else f"{len(broken)} rules are broken"
    return Section(title=title, lines=tuple(Line(text=rule(each)) for each in broken))


def newly_disabled_rules(plan: Plan) -> Section:
    """Return the rules that the change itself disables. They stand before the verdict too."""
    new = {each.rule: each.excepted for each in plan.broken if each.new}
    title = f"This change disables {'1 rule' if len(new) == 1 else f'{len(new)} rules'}"
    return Section(title=title, lines=tuple(_disabled(plan, new)))


def disabled_rules(plan: Plan) -> Section:
    """Return the rules that do not hold for the stack, before and after, with their reasons."""
    old = {each.rule: each.excepted for each in plan.broken if each.excepted and not each.new}
    return Section(title="Rules that the stack file disables", lines=tuple(_disabled(plan, old)))


def _disabled(plan: Plan, reasons: Mapping[str, str]) -> Iterator[Line]:
    for key, reason in reasons.items():
        yield Line(text=phrase("{}: {}", key, long_text(reason)))
        excepted = [each for each in plan.broken if each.rule == key and each.excepted]
        yield from (Line(text=rule(each), depth=1) for each in excepted if each.subject)


def rule(broken: BrokenRule) -> Phrase:
    """Return what breaks a rule, and the fix."""
    subject, facts = broken.subject, listed(broken.facts)
    match broken.rule:
        case "publicAddress":
            return phrase("{} has a public address ({}): give it a private one.", subject, facts)
        case "openToWorld":
            return phrase("{} admits the internet ({}): admit the clients' CIDRs.", subject, facts)
        case "plaintext":
            return phrase(
                "{} accepts plaintext by what this stack declares: have the mesh or the namespace "
                "require mutual TLS (STRICT).",
                subject,
            )
        case "deletionProtection":
            return phrase(
                "The cluster of {} can be deleted by an update: set {} to true.",
                subject,
                "cluster.deletionProtection",
            )
        case "allAtOnce":
            return phrase(
                "{} has no endpoint for a while: add a machine or pods, lower {}, or change its "
                "machines in two updates.",
                subject,
                "maxUnavailable",
            )
        case "leaveWithoutDrain":
            return phrase("{} ({}) leaves without a drain: its open requests fail.", subject, facts)
        case "versionSkew":
            return phrase(
                "Proxies and control plane have versions that Istio does not support together "
                "({}): give proxies the control plane's minor version or the one before.",
                facts,
            )
        case "kubernetesVersion":
            return phrase(
                "Istio runs on a version of Kubernetes that it does not support ({}): upgrade "
                "Istio, or the cluster.",
                facts,
            )
        case "sharedIdentity":
            return phrase(
                "{} is the identity of {}: give each a service account of its own.",
                long_text(subject),
                facts,
            )
        case _:
            return phrase("Rule {}: {} ({}).", broken.rule, subject, facts)
