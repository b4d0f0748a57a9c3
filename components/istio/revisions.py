"""The control planes of a cluster, by their revisions, and the facts of the mesh of one. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import yaml

from ..manifest import Manifest
from ..mesh_facts import DEFAULT_REVISION, SHARED_CONFIG, MeshFacts, Sources, derive, injection_labels, merge
from ..names import REVISION_LABEL, TAG_LABEL


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """A control plane in a cluster.

    revision: its label `istio.io/rev`; `default` for one without a revision.
    deployment: istiod's Deployment.
    injection_labels: the labels by which a namespace selects it.
    variables: of istiod's container, from ConfigMaps (`with_variables`).
    """

    revision: str
    deployment: Manifest
    injection_labels: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """What the names of its ConfigMaps end with."""
        return "" if self.revision == DEFAULT_REVISION else f"-{self.revision}"

    @property
    def config_map(self) -> str:
        """The name of the ConfigMap with its MeshConfig."""
        return f"istio{self.suffix}"

    @property
    def shared_config_map(self) -> str:
        """The name of a ConfigMap whose MeshConfig comes below that one; "" for none.

        Source: istio/istio, pilot/pkg/bootstrap/mesh.go.
        """
        return self.env.get(SHARED_CONFIG) or ""

    @property
    def container(self) -> Manifest:
        """Istiod's container."""
        containers: list[Manifest] = self.deployment["spec"]["template"]["spec"]["containers"]
        return next((each for each in containers if each["name"] == "discovery"), containers[0])

    @property
    def env(self) -> dict[str, str | None]:
        """Its variables; None for one whose value is somewhere else."""
        variables = self.container.get("env") or ()
        return {**self.variables, **{each["name"]: each.get("value", None if "valueFrom" in each else "") for each in variables}}

    @property
    def variable_maps(self) -> list[tuple[str, str]]:
        """The ConfigMaps that it has variables of (`envFrom`), each with a prefix of the names."""
        sources = self.container.get("envFrom") or ()
        return [(each["configMapRef"]["name"], each.get("prefix") or "") for each in sources if each.get("configMapRef")]

    def with_variables(self, config_maps: Mapping[str, Mapping[str, str]]) -> ControlPlane:
        """Return it with the variables of its `variable_maps`, the last one counts.

        config_maps: the data of those that exist, by name.
        """
        pairs = [(prefix + key, value) for name, prefix in self.variable_maps for key, value in config_maps.get(name, {}).items()]
        return replace(self, variables=dict(pairs))


def tags_of(webhooks: Iterable[Manifest], namespace: str) -> dict[str, str]:
    """Return the revision of each tag of the control planes in a namespace.

    webhooks: objects MutatingWebhookConfiguration with the label `istio.io/tag`.
    """
    tags: dict[str, str] = {}
    for webhook in webhooks:
        labels = webhook["metadata"].get("labels") or {}
        services = [each["clientConfig"].get("service") or {} for each in webhook.get("webhooks") or ()]
        if TAG_LABEL in labels and namespace in [service.get("namespace") for service in services]:
            tags[labels[TAG_LABEL]] = labels.get(REVISION_LABEL) or DEFAULT_REVISION
    return tags


def revisions_of(deployments: Sequence[Manifest]) -> list[str]:
    """Return the revisions of istiod's Deployments."""
    return sorted(map(_revision_of, deployments))


def choose(deployments: Sequence[Manifest], tags: Mapping[str, str], wanted: str | None) -> ControlPlane:
    """Return the control plane that `mesh.revision` names.

    deployments: istiod's in Istio's namespace. tags: the revision of each tag.
    wanted: a revision or a tag; None: the one that `istio-injection: enabled` selects, else the
        only one.

    Raises ValueError where the setting must name another one, or any.
    """
    by_revision = {_revision_of(each): each for each in deployments}
    choices = sorted({*by_revision, *(tag for tag, revision in tags.items() if revision in by_revision)})
    choice = ", ".join(choices)
    if wanted is not None:
        revision = wanted if wanted in by_revision else tags.get(wanted, "")
        if revision not in by_revision:
            raise ValueError(f"there is no revision or tag {wanted!r}: set mesh.revision to one of {choice}")
        selected = "" if wanted == DEFAULT_REVISION else wanted
    elif (revision := tags.get(DEFAULT_REVISION, DEFAULT_REVISION)) in by_revision:
        selected = ""
    elif len(by_revision) == 1:
        (revision,) = by_revision
        selected = revision
    else:
        raise ValueError(f"it has several control planes and none is the default: set mesh.revision to one of {choice}")
    return ControlPlane(revision=revision, deployment=by_revision[revision], injection_labels=injection_labels(selected))


def _revision_of(deployment: Manifest) -> str:
    return str((deployment["metadata"].get("labels") or {}).get(REVISION_LABEL) or DEFAULT_REVISION)


def from_cluster(namespace: str, plane: ControlPlane, mesh_configs: Sequence[str], injector_values: str) -> MeshFacts:
    """Return the facts of a mesh that a cluster has.

    mesh_configs: the texts under `mesh` in `plane.config_maps`.
    injector_values: the text under `values` in `istio-sidecar-injector`.

    Raises ValueError where a text is not what istiod reads.
    """
    config: Manifest = {}
    for text in mesh_configs:
        config = merge(config, _parsed(text, "MeshConfig"))
    container = plane.container
    return derive(
        Sources(
            namespace=namespace,
            injection_labels=plane.injection_labels,
            config=config,
            values={**_parsed(injector_values, "sidecar injector's values"), "revision": plane.revision},
            env=plane.env,
            args=container.get("args") or (),
            image=container.get("image") or "",
        )
    )


def _parsed(text: str, what: str) -> Manifest:
    """Return the map in a text of JSON or YAML."""
    try:
        document = json.loads(text)
    except ValueError:
        try:
            document = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"its {what} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ValueError(f"its {what} is no map of keys, but {text[:40]!r}")
    return document
