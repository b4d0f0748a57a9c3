"""The publishers' artefacts of the pinned versions: their URLs, where their digests are, and what
of them the lab uses.

The publishers' pages are the source of the URLs: kubernetes.io (Install kubectl), helm.sh, kind's
and Pulumi's releases on GitHub, istio.io. Istio's upgrade notes of 1.31 name its hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from ..offline import cache, images, versions

REGISTRY = "https://registry-1.docker.io"
"""Docker Hub. The engine compares each part of an image with the digest in its manifest."""
IMAGES = {
    images.NODE: images.NODE,
    images.PILOT: images.PILOT,
    images.PROXY: images.PROXY,
    images.ECHO: f"docker.io/istio/app:{versions.ISTIO}",
}
"""Name of an image in the lab → name at Docker Hub."""


class Digests(StrEnum):
    """How a publisher states SHA-256."""

    LINES = "lines"
    """As sha256sum prints it: a line per file, or the digest alone."""
    CHARTS = "charts"
    """The index of a Helm repository."""
    RELEASE = "release"
    """A release as GitHub's API describes it."""


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One file of a publisher.

    - `digests`: the URL of the file that states its SHA-256, in the form `form`
    - `members`: paths in the archive, each with the path in the lab's copy. A directory's name
      stands for all files below it, "" for all of the archive. Empty: the file is no archive
    - `file`: the name of the copy of a file that is no archive
    """

    url: str
    digests: str
    form: Digests = Digests.LINES
    members: Mapping[str, str] = field(default_factory=dict)
    file: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def hosts(self) -> tuple[str, ...]:
        """The servers that must answer, as `https://host`."""
        return tuple(dict.fromkeys(f"{part.scheme}://{part.netloc}" for part in map(urlsplit, (self.digests, self.url))))


@dataclass(frozen=True, kw_only=True)
class Part:
    """A tool or a directory of files, as `programs` calls it, and the artefacts in it."""

    name: str
    version: str
    artefacts: tuple[Artefact, ...]

    @property
    def key(self) -> cache.Key:
        return cache.Key.of(f"official-{self.name}", self.version, [repr(artefact) for artefact in self.artefacts])

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(host for artefact in self.artefacts for host in artefact.hosts))


def _part(name: str, version: str, *artefacts: Artefact) -> Part:
    return Part(name=name, version=version, artefacts=artefacts)


def _kubectl() -> Artefact:
    url = f"https://dl.k8s.io/release/{versions.KUBERNETES}/bin/linux/amd64/kubectl"
    return Artefact(url=url, digests=f"{url}.sha256", file="kubectl")


def _helm() -> Artefact:
    url = f"https://get.helm.sh/helm-{versions.HELM}-linux-amd64.tar.gz"
    return Artefact(url=url, digests=f"{url}.sha256sum", members={"linux-amd64/helm": "helm"})


def _kind() -> Artefact:
    url = f"https://github.com/kubernetes-sigs/kind/releases/download/{versions.KIND}/kind-linux-amd64"
    return Artefact(url=url, digests=f"{url}.sha256sum", file="kind")


def _pulumi() -> Artefact:
    """The CLI with what must be beside it: language hosts, and the plugin of `pulumi.dynamic`."""
    base = "https://get.pulumi.com/releases/sdk"
    return Artefact(
        url=f"{base}/pulumi-{versions.PULUMI}-linux-x64.tar.gz",
        digests=f"{base}/pulumi-{versions.PULUMI.removeprefix('v')}-checksums.txt",
        members={"pulumi": "."},
    )


def _istioctl() -> Artefact:
    url = f"https://github.com/istio/istio/releases/download/{versions.ISTIO}/istioctl-{versions.ISTIO}-linux-amd64.tar.gz"
    return Artefact(url=url, digests=f"{url}.sha256", members={"istioctl": "istioctl"})


def _chart(name: str) -> Artefact:
    base = "https://blob.istio.io/istio-release/charts"
    return Artefact(url=f"{base}/{name}-{versions.ISTIO}.tgz", digests=f"{base}/index.yaml", form=Digests.CHARTS, members={name: name})


def _gateway_api() -> Artefact:
    repository = "kubernetes-sigs/gateway-api"
    return Artefact(
        url=f"https://github.com/{repository}/releases/download/{versions.GATEWAY_API}/standard-install.yaml",
        digests=f"https://api.github.com/repos/{repository}/releases/tags/{versions.GATEWAY_API}",
        form=Digests.RELEASE,
        file="standard-install.yaml",
    )


def _sidecar() -> Artefact:
    url = f"https://blob.istio.io/istio-release/releases/{versions.ISTIO}/deb/istio-sidecar.deb"
    return Artefact(url=url, digests=f"{url}.sha256", file="istio-sidecar.deb")


def plugin(name: str, version: str) -> Part:
    """Return the plugin of a Pulumi provider, in a directory like a Pulumi home."""
    repository = f"https://github.com/pulumi/pulumi-{name}/releases/download/v{version}"
    artefact = Artefact(
        url=f"{repository}/pulumi-resource-{name}-v{version}-linux-amd64.tar.gz",
        digests=f"{repository}/pulumi-{name}_{version}_checksums.txt",
        members={"": f"plugins/resource-{name}-v{version}"},
    )
    return _part(f"pulumi-resource-{name}", f"v{version}", artefact)


SIDECAR = _part("istio-sidecar", versions.ISTIO, _sidecar())
PARTS = {
    part.name: part
    for part in (
        _part("pulumi", versions.PULUMI, _pulumi()),
        _part("kubectl", versions.KUBERNETES, _kubectl()),
        _part("helm", versions.HELM, _helm()),
        _part("kind", versions.KIND, _kind()),
        _part("istioctl", versions.ISTIO, _istioctl()),
        _part("istio-charts", versions.ISTIO, *map(_chart, ("base", "istiod", "gateway"))),
        _part("gateway-api-crds", versions.GATEWAY_API, _gateway_api()),
        SIDECAR,
    )
}
"""By the names of `programs.PROGRAMS` and `programs.DIRECTORIES`."""
