"""A machine in a directory: joins and leaves run on it as they are, with stand-ins for systemd, curl and the agent."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from components import names
from components.machines.bundle import Bundle, MachineFile, Owner, join_variables
from components.shell import assignments
from tests.support.scripts import COMPONENTS, LIBRARY, Sourced, add_program

PROXY = {
    "readinessProbe": {"httpGet": {"port": 8080}},
    "discoveryAddress": f"istiod.{names.ISTIO_NAMESPACE}.svc:{names.XDS_PORT}",
    "proxyMetadata": {
        "POD_NAMESPACE": "shop",
        "SERVICE_ACCOUNT": "product",
        "ISTIO_META_NETWORK": "pods",
        "ISTIO_META_WORKLOAD_NAME": "product",
        "ISTIO_METAJSON_LABELS": "{}",
    },
}
"""The ProxyConfig of a machine, with as little as a join needs."""
SCRIPTS = COMPONENTS / "machines" / "scripts"
INSTALLATION, CONFIRMATION, JOIN, LEAVE, UNDO, CONFIRM = (
    SCRIPTS / f"{name}.sh" for name in ("installation", "confirmation", "join", "leave", "undo", "confirm")
)
ISSUED = 1_800_000_000
OWNER = Owner("mesh", "prod", "product-1", "r-1", "shop", "product")
STATE, PROGRAMS, UNITS = "var/lib/istio-vm-mesh", "opt/istio-vm-mesh", "etc/systemd/system"

SYSTEMCTL = """
echo "$*" >>"$RUN/calls"
unit=$ROOT/etc/systemd/system/istio-vm-mesh.service
wanted=$ROOT/etc/systemd/system/multi-user.target.wants/istio-vm-mesh.service
case "$*" in
"is-active --quiet istio-vm-mesh") [ -e "$RUN/active" ] ;;
"show --property=ActiveState --value istio-vm-mesh") if [ -e "$RUN/active" ]; then echo active; else echo inactive; fi ;;
"is-enabled --quiet istio-vm-mesh") [ -L "$wanted" ] ;;
"enable --quiet --no-reload istio-vm-mesh" | "enable --quiet istio-vm-mesh") mkdir -p "${wanted%/*}" && ln -sfn ../istio-vm-mesh.service "$wanted" ;;
"disable --now"*istio-vm-mesh*) rm -f "$RUN/active" "$wanted" ;;
"stop istio-vm-mesh") rm -f "$RUN/active" ;;
"restart istio-vm-mesh-undo")
  if [ -e "$RUN/undo" ]; then setsid bash "$RUN/undo" 3<&- 9>&- </dev/null >>"$RUN/undo.log" 2>&1 & fi
  ;;
"restart istio-vm-mesh")
  [ ! -e "$RUN/broken" ] && [ -e "$unit" ] && [ -x "$ROOT/opt/istio-vm-mesh/current/usr/local/bin/pilot-agent" ] || exit 5
  "$ROOT/opt/istio-vm-mesh/current/usr/local/bin/pilot-agent" version >"$RUN/active"
  ;;
esac
"""
# What reaches beyond the directory.
STAND_INS = """
clean_environment() { export LC_ALL=C; }
can_connect() { :; }
remove_rules() { :; }
keep_ssh_port() { :; }
"""
NO_REFUSALS = "host_facts() { echo 'refusals end'; }"
"""What redirect_host.sh prints for a host that a join does not change."""
# A second connection that comes as soon as a join waits for it.
CONFIRMED = """
eval "real_$(declare -f ask)"
ask() { [ "$1" != confirm ] || rm "$BEFORE"/unconfirmed.*; real_ask "$@"; }
"""
CURL = f"""
echo "$*" >>"$RUN/requests"
url=${{*: -1}}
case $* in *"--config -"*) cat >>"$RUN/credentials" ;; esac
case $url in
*{names.STATUS_PORT}*) grep -qs good "$RUN/active" ;;
*) cat "$SERVED/${{url##*/}}" ;;
esac
"""


def token(**claims: object) -> str:
    """Return a token of the workload's account; `claims` replace its claims."""
    everything = {"aud": [names.TOKEN_AUDIENCE], "iat": ISSUED, "exp": ISSUED + 3600, "sub": "system:serviceaccount:shop:product", **claims}
    payload = base64.urlsafe_b64encode(json.dumps(everything, separators=(",", ":")).encode()).decode().rstrip("=")
    return f"head.{payload}.signature"


def package(directory: Path, name: str, version: str, **programs: str) -> str:
    """Build a package of Istio's sidecar, and return its SHA-256.

    version: what its agent prints; an agent whose version has "good" in it gets ready.
    programs: the text of `envoy` or `agent`, where it is another.
    """
    content = directory / f"content-{name}"
    for program, text in {
        "pilot-agent": programs.get("agent", f"echo {version}"),
        "envoy": programs.get("envoy", f"echo envoy {version}"),
    }.items():
        (content / "usr/local/bin").mkdir(parents=True, exist_ok=True)
        add_program(content / "usr/local/bin", program, text)
    template = content / "var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
    template.parent.mkdir(parents=True)
    template.write_text("{}")
    control = content / "DEBIAN/control"
    control.parent.mkdir()
    control.write_text(
        f"Package: istio-sidecar\nVersion: 1\nArchitecture: all\nMaintainer: t\nDepends: nothing-of-this-host\nDescription: {version}\n"
    )
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(content), str(directory / name)]
    # Without times, two packages of one content have one digest.
    subprocess.run(command, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}, check=True, capture_output=True)
    digest = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    (directory / f"{name}.sha256").write_text(f"{digest}  {name}\n")
    return digest


@dataclass(frozen=True)
class FakeMachine:
    """A machine whose root is a directory.

    directory: it has `root`, `run`, `bin` and `served`, which has what `curl` gets by a URL's last part.
    """

    directory: Path

    @cached_property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def active(self) -> str:
        """What the agent that runs is; "" if none runs."""
        file = self.directory / "run/active"
        return file.read_text().strip() if file.exists() else ""

    @property
    def calls(self) -> list[str]:
        """What systemd was told to change since the last join began."""
        lines = (self.directory / "run/calls").read_text().splitlines()
        return [
            line
            for line in lines
            if not line.startswith(
                ("show", "--version", "is-", "try-restart", "daemon-reload", "start istio-vm-mesh-redirect", "restart istio-vm-mesh-undo")
            )
        ]

    def create(self) -> FakeMachine:
        """Make the directories and the programs."""
        for name in ("root/etc/systemd/system", "root/var/lib", "root/opt", "run", "bin", "served"):
            (self.directory / name).mkdir(parents=True)
        silent = (
            "iptables",
            "iptables-save",
            "iptables-legacy-save",
            "iptables-nft-save",
            "ss",
            "chown",
            "journalctl",
            "userdel",
            "groupdel",
            "useradd",
            "groupadd",
            "sync",
        )
        nothing = dict.fromkeys(silent, "")
        programs = {
            "systemctl": SYSTEMCTL,
            "curl": CURL,
            "id": '[ "$1" != -u ] || echo 0',
            "runuser": 'shift 3; exec "$@"',
            "pgrep": "exit 1",
            "date": f'case "$*" in +%s) echo {ISSUED} ;; *) echo "some day" ;; esac',
            "install": 'mkdir -p "${@:8}" && chmod "$3" "${@:8}"',
            "uname": "echo x86_64",
            **nothing,
        }
        for name, text in programs.items():
            add_program(self.directory / "bin", name, text)
        package(self.directory / "served", "good-1.deb", "good-1")
        return self

    def copy(self, directory: Path) -> FakeMachine:
        """Copy the machine with its state."""
        shutil.copytree(self.directory, directory, symlinks=True)
        return FakeMachine(directory)

    def sourced(self, *scripts: Path) -> Sourced:
        environment = {"ROOT": str(self.root), "RUN": f"{self.directory}/run", "SERVED": f"{self.directory}/served"}
        return Sourced(scripts=[INSTALLATION, *scripts], programs=self.directory / "bin", environment=environment)

    def places(self) -> dict[str, str]:
        """Variables of installation.sh and join.sh that say where things are."""
        state = f"{self.root}/{STATE}"
        return {
            "ROOT": str(self.root),
            "RUN": f"{self.directory}/run",
            "STATE": state,
            "PROGRAMS": f"{self.root}/{PROGRAMS}",
            "UNITS": f"{self.root}/{UNITS}",
            "CERTS": f"{state}/etc/certs",
            "TOKEN_FILE": f"{state}/var/run/secrets/tokens/istio-token",
            "BEFORE": f"{state}/before",
            "STAGING": f"{state}/staging",
        }

    def join(
        self, change: Bundle | None = None, text: str = "", answers: str = "yes\n" * 5, facts: str = NO_REFUSALS, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a join to its end.

        text: shell before its first step. answers: to its questions, in turn.
        facts: the function `host_facts`; "" for that of join.sh.
        """
        (self.directory / "run/calls").write_text("")
        bundle = change or BUNDLE
        values = {
            **join_variables(bundle),
            **self.places(),
            "MACHINE": bundle.owner.machine,
            "TOKEN": token(),
            "ASK": "1",
            "CONFIRM_S": "1" if bundle.role == "sidecar" and variables.get("ASK") != "" else "",
            "NEEDED_MIB": "1",
            **variables,
        }
        (self.directory / "answers").write_text(answers)
        stand_ins = f'{STAND_INS}\n{CONFIRMED}\n{facts}\n{text}\nmain 3<"{self.directory}/answers" </dev/null'
        return self.sourced(CONFIRMATION, JOIN).run(stand_ins, values)

    def script(self, *scripts: Path, text: str = "", **variables: str) -> str:
        """Return the text of scripts for this machine, with their variables, but without a call of `main`."""
        programs = {"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", "SERVED": f"{self.directory}/served"}
        lines = [f"export {assignments({name: value})}" for name, value in programs.items()]
        lines += [f"source {shlex.quote(str(path))}\n" for path in (LIBRARY, INSTALLATION, *scripts)]
        return "".join([*lines, assignments({**self.places(), **variables}), "export ROOT RUN\n", STAND_INS, text, "\n"])

    def with_systemd(self) -> None:
        """Have systemd start what takes a join back."""
        (self.directory / "run/undo").write_text(f"{self.script(UNDO)}main\n")

    def undo(self) -> subprocess.CompletedProcess[str]:
        """Run what a boot runs."""
        return subprocess.run(["bash", "-s"], input=f"{self.script(UNDO)}main </dev/null\n", capture_output=True, text=True)

    def leave(self, owner: Owner = OWNER, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a leave to its end."""
        (self.directory / "run/calls").write_text("")
        values = {"MACHINE": owner.machine, "PROJECT": owner.project, "STACK": owner.stack, "REGISTRATION": owner.registration}
        return self.sourced(LEAVE).run(f"{STAND_INS}\n{text}\nmain </dev/null", {**self.places(), **values})

    def mesh_paths(self) -> list[str]:
        """Return the paths that are of this program."""
        return [path for path in self.tree() if "istio-vm-mesh" in path]

    def tree(self) -> dict[str, str]:
        """Everything below the root, by path: kind, mode and content."""
        return {str(path.relative_to(self.root)): _shown(path) for path in sorted(self.root.rglob("*"))}


def _shown(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    mode = f"{path.stat().st_mode:o}"
    return f"{mode} {path.read_bytes()!r}" if path.is_file() else mode


def bundle(files: Mapping[str, str] | None = None, **change: object) -> Bundle:
    """Return a bundle whose files are `files` by path, besides those that every bundle has."""
    values: dict[str, object] = {
        "owner": OWNER,
        "proxy": {},
        "address": "192.0.2.7",
        "gateway": "gateway.example.com",
        "package_url": "https://example.com/good-1.deb",
        "registered": "what istiod copies",
        **change,
    }
    texts = {
        "cluster.env": "A='1'\n",
        "overrides.env": "POD_NAME='@MACHINE@'\nINSTANCE_IP='@ADDRESS@'\n",
        "etc/istio/config/mesh": "defaultConfig: {}\n",
        "etc/certs/root-cert.pem": ROOT_CERTIFICATE,
        **(files or {}),
    }
    return Bundle(files=tuple(MachineFile(f"/{STATE}/{name}", text) for name, text in texts.items()), **values)  # type: ignore[arg-type]


ROOT_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
BUNDLE = bundle()


@contextmanager
def full_run(machine: FakeMachine) -> Iterator[None]:
    """Give a machine a /run without room, with the files that it has there."""
    run = machine.directory / "run"
    files = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with mounted(run, "-t", "tmpfs", "-o", "size=256k", "none"):
        for name, text in files.items():
            (run / name).write_bytes(text)
        subprocess.run(["dd", "if=/dev/zero", f"of={run}/of-others"], check=False, stderr=subprocess.DEVNULL)
        yield


@contextmanager
def read_only_etc(machine: FakeMachine) -> Iterator[None]:
    """Have nobody write below a machine's /etc."""
    etc = machine.root / "etc"
    with mounted(etc, "--bind", str(etc)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(etc)], check=True)
        yield


@contextmanager
def mounted(place: Path, *words: str) -> Iterator[None]:
    subprocess.run(["mount", *words, str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)
