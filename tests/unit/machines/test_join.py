"""The join on machines of several families, with stand-ins for their programs; end-to-end tests have the rest."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from components.machines.files import MachineFile, archive
from tests.support.scripts import COMPONENTS, Sourced, add_program

JOIN = COMPONENTS / "machines" / "scripts" / "join.sh"
ISSUED = 1_800_000_000


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def run(programs: Path, text: str, alone: bool = False, **variables: str | int) -> subprocess.CompletedProcess[str]:
    """Run `text` with the functions of the join, and with `programs` first on PATH, or alone."""
    return Sourced(scripts=[JOIN], programs=programs, alone=alone).run(text, {"MACHINE": "m", **variables})


def token(**claims: object) -> str:
    everything = {"aud": ["istio-ca"], "iat": ISSUED, "exp": ISSUED + 3600, "sub": "system:serviceaccount:shop:product", **claims}
    payload = base64.urlsafe_b64encode(json.dumps(everything, separators=(",", ":")).encode()).decode().rstrip("=")
    return f"head.{payload}.signature"


def test_a_package_waits_for_another_installation(programs: Path, tmp_path: Path) -> None:
    lock = "dpkg: error: dpkg frontend lock was locked by another process with pid 7"
    add_program(programs, "dpkg", f'echo x >>{tmp_path}/calls; [ $(wc -l <{tmp_path}/calls) -gt 2 ] || {{ echo "{lock}" >&2; exit 2; }}')
    done = run(programs, "install_deb p.deb")
    assert done.returncode == 0
    assert done.stdout.count("slept") == 2


def test_a_package_that_cannot_be_installed_fails_at_once_with_the_cause(programs: Path) -> None:
    add_program(programs, "dpkg", 'echo "dpkg: dependency problems: istio-sidecar depends on iptables" >&2; exit 1')
    done = run(programs, "install_deb p.deb")
    assert done.returncode == 1
    assert "depends on iptables" in done.stdout and "slept" not in done.stdout


@pytest.mark.parametrize(
    ("manager", "machine", "package"),
    [
        ("dpkg", "x86_64", "deb/istio-sidecar.deb"),
        ("dpkg", "aarch64", "deb/istio-sidecar-arm64.deb"),
        ("rpm", "x86_64", "rpm/istio-sidecar.rpm"),
        ("rpm", "aarch64", "rpm/istio-sidecar-arm64.rpm"),
    ],
)
def test_the_package_fits_the_machine(programs: Path, manager: str, machine: str, package: str) -> None:
    for name, text in {
        **dict.fromkeys(("systemctl", "iptables", "ss", "curl", "sha256sum", "tar", manager), ""),
        "uname": f"echo {machine}",
        "df": "echo Avail; echo 9999999",
        "pgrep": "exit 1",
        "tail": "echo 9999999",
        "id": "echo 0",
    }.items():
        add_program(programs, name, text)
    url = "https://example.com/1.31.0/{package}"
    done = run(programs, 'preflight\necho "$PACKAGE_URL"', alone=True, PACKAGE_URL=url)
    assert done.stdout == f"https://example.com/1.31.0/{package}\n", done.stderr


@pytest.mark.parametrize(
    ("installed", "cause"),
    [
        (("systemctl", "iptables", "ss", "curl", "sha256sum", "pgrep", "tar"), "there is neither dpkg nor rpm"),
        (("systemctl", "iptables", "ss", "curl", "sha256sum", "pgrep"), "tar is missing: install it on the machine, or in its image"),
    ],
)
def test_a_machine_that_lacks_something_is_refused(programs: Path, installed: tuple[str, ...], cause: str) -> None:
    for name in installed:
        add_program(programs, name, "")
    add_program(programs, "id", "echo 0")
    done = run(programs, "preflight", alone=True, PACKAGE_URL="x")
    assert done.returncode == 1
    assert f"machine m: {cause}" in done.stderr


def test_the_join_waits_for_the_stacks_setup_but_not_for_itself(programs: Path, tmp_path: Path) -> None:
    add_program(
        programs, "systemctl", f"echo x >>{tmp_path}/calls; [ $(wc -l <{tmp_path}/calls) -gt 3 ] && echo inactive || echo activating"
    )
    assert run(programs, "wait_for_setup").stdout.count("slept") == 3
    (tmp_path / "calls").unlink()
    assert run(programs, "wait_for_setup", API_SERVER="https://x").stdout == ""


@pytest.mark.istio_case(27)
@pytest.mark.parametrize(
    ("off", "cause"),
    [
        (-7200, "the clock is at least 120 minutes behind the cluster's"),
        (-60, ""),
        (0, ""),
        (3600 + 1800, "the clock is at least 30 minutes ahead of the cluster's, or this update began more than an hour ago"),
    ],
)
def test_a_wrong_clock_is_named(programs: Path, tmp_path: Path, off: int, cause: str) -> None:
    """By what the machine reports, before its agent is touched."""
    (tmp_path / "token").write_text(token())
    add_program(programs, "date", f'[ "$*" = +%s ] && echo {ISSUED + off} || echo "some day"')
    done = run(programs, "set -eu -o pipefail\ncheck_clock", TOKEN_FILE=f"{tmp_path}/token", CERTS=f"{tmp_path}")
    assert (done.returncode, cause in done.stderr) == (1 if cause else 0, True), done.stderr
    assert bool(done.stderr) == bool(cause)


@pytest.mark.parametrize(
    ("log", "text", "cause"),
    [
        ("rpc error: code = Unauthenticated", "no-token", "the token on the machine is no token: run the update again for a new one"),
        ("rpc error: code = Unauthenticated", token(aud=["other"]), "it is for the audience other instead of istio-ca: raise machines.m.rotation"),
        ("rpc error: code = Unauthenticated", token(exp=1), "it expired on Thu Jan"),
        ("rpc error: code = Unauthenticated", token(exp=1 << 33), "its service account was recreated, it is of another cluster"),
        ('service account mismatch: "other" vs "product"', "", "its service account is other, and its WorkloadGroup is for product: run pulumi refresh"),
        ("no identities ([spiffe://x]) matched product {", "", "refused the machine's identity spiffe://x; the WorkloadGroup is for the service account product:"),
        ("cannot find WorkloadGroup shop/product", "", "is it in the cluster of this mesh?"),
        ("client claims to be in cluster a", "", "mesh.clusterId must be the one that istiod runs with"),
        ("x509: certificate signed by unknown authority", "", "is gw the gateway of this mesh?"),
        ("x509: certificate is valid for a, not b", "", "what answers at gw port 15012 is not istiod"),
        ("tls: x509: certificate has expired or is not yet valid", "", "set the clock"),
    ],
)  # fmt: skip
def test_the_agents_log_names_the_cause(programs: Path, tmp_path: Path, log: str, text: str, cause: str) -> None:
    (tmp_path / "token").write_text(text)
    add_program(programs, "journalctl", f"cat {tmp_path}/log")
    (tmp_path / "log").write_text(f"info\n{log}\ninfo\n")
    done = run(programs, "set -eu -o pipefail\ndiagnose now", TOKEN_FILE=f"{tmp_path}/token", GATEWAY="gw")
    assert done.returncode == 1
    assert done.stderr.startswith("machine m: ") and cause in done.stderr


def test_a_log_without_a_cause_fails_nothing(programs: Path) -> None:
    add_program(programs, "journalctl", "exit 1")
    assert run(programs, "set -eu -o pipefail\ndiagnose now\necho on").stdout == "on\n"


# What needs a real machine; the rest of the join runs as it is. Each call of systemctl is a line.
STAND_INS = """
preflight() { family=deb; }
check_gateway() { :; }
install_package() { :; }
is_ready() { [ -e "$RUN/active" ]; }
chown() { echo "chown $*" >>"$RUN/calls"; }
date() { echo 1800000000; }
systemctl() {
  echo "$*" >>"$RUN/calls"
  case $1 in
  is-active) [ -e "$RUN/active" ] ;;
  restart) touch "$RUN/active" ;;
  stop) rm "$RUN/active" ;;
  esac
}
main
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A directory that has what of a machine the join changes."""
    for name in ("run", "root/var/lib/istio/envoy", "root/etc/systemd/system"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def join(machine: Path, programs: Path, **change: str) -> subprocess.CompletedProcess[str]:
    """Run the whole join; empties the list of calls before."""
    files = [
        MachineFile(path="/etc/systemd/system/istio.service", text=change.pop("unit", "[Unit]\n")),
        MachineFile(path="/var/lib/istio/envoy/overrides.env", text="POD_NAME='@MACHINE@'\nINSTANCE_IP='@ADDRESS@'\n", mode=0o640),
    ]
    (machine / "run" / "calls").write_text("")
    variables: dict[str, str | int] = {
        "FILES": base64.b64encode(archive(files)).decode(),
        "DIGEST": "0123456789abcdef",
        "REGISTRATION": "r",
        "GRACE_S": 10,
        "TOKEN": token(),
        "ROOT": f"{machine}/root",
        "RUN": f"{machine}/run",
        "STATE": f"{machine}/state",
        "CERTS": f"{machine}/certs",
        "TOKEN_FILE": f"{machine}/root/var/lib/istio/envoy/istio-token",
        **change,
    }
    return Sourced(scripts=[JOIN], programs=programs).run(STAND_INS, {"MACHINE": "m", **variables})


def calls(machine: Path) -> list[str]:
    lines = (machine / "run" / "calls").read_text().splitlines()
    return [line for line in lines if not line.startswith(("show", "is-active", "chown"))]


def test_a_join_writes_starts_and_ends_with_its_digest(machine: Path, programs: Path) -> None:
    done = join(machine, programs)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "0123456789abcdef"
    assert (machine / "root/etc/systemd/system/istio.service").read_text() == "[Unit]\n"
    written = machine / "root/var/lib/istio/envoy/overrides.env"
    assert written.read_text() == "POD_NAME='@MACHINE@'\nINSTANCE_IP='@ADDRESS@'\n"
    assert written.stat().st_mode & 0o777 == 0o640
    secret = machine / "root/var/lib/istio/envoy/istio-token"
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == (token(), 0o600)
    assert f"chown istio-proxy:istio-proxy {secret}." in (machine / "run" / "calls").read_text()
    assert not list(machine.rglob("*.istio-vm-mesh")), "no file is left half-way"
    assert calls(machine) == ["enable --quiet istio", "restart istio"]


def test_a_second_join_changes_nothing_but_the_token(machine: Path, programs: Path) -> None:
    join(machine, programs)
    done = join(machine, programs, TOKEN=token(iat=ISSUED + 1))
    assert done.stdout == "0123456789abcdef\n"
    assert calls(machine) == []
    assert (machine / "root/var/lib/istio/envoy/istio-token").read_text() == token(iat=ISSUED + 1)


def test_a_changed_digest_stops_writes_and_starts(machine: Path, programs: Path) -> None:
    join(machine, programs)
    done = join(machine, programs, DIGEST="another", unit="[Service]\n")
    assert done.stdout.splitlines()[-1] == "another"
    assert calls(machine) == ["stop istio", "enable --quiet istio", "restart istio"]
    assert (machine / "root/etc/systemd/system/istio.service").read_text() == "[Service]\n"


def test_a_changed_registration_waits_for_the_old_entry_to_go(machine: Path, programs: Path) -> None:
    join(machine, programs)
    assert "slept" not in join(machine, programs, DIGEST="another").stdout
    assert "slept" in join(machine, programs, DIGEST="third", REGISTRATION="s").stdout


def test_a_token_of_another_account_drops_the_certificate(machine: Path, programs: Path) -> None:
    join(machine, programs)
    (machine / "certs").mkdir()
    for name in ("key.pem", "cert-chain.pem", "root-cert.pem"):
        (machine / "certs" / name).touch()
    join(machine, programs, TOKEN=token(sub="other"))
    assert [path.name for path in (machine / "certs").iterdir()] == ["root-cert.pem"]


def test_a_gateways_join_leaves_no_redirection_of_a_sidecar(machine: Path, programs: Path) -> None:
    drop_in = machine / "root/etc/systemd/system/istio.service.d/sidecar.conf"
    drop_in.parent.mkdir()
    drop_in.touch()
    join(machine, programs)
    assert not drop_in.exists()


def test_a_machine_of_a_group_fills_in_its_name_and_address(machine: Path, programs: Path) -> None:
    join(machine, programs, MACHINE="product-x7k2", ADDRESS="10.11.0.9")
    text = (machine / "root/var/lib/istio/envoy/overrides.env").read_text()
    assert text == "POD_NAME='product-x7k2'\nINSTANCE_IP='10.11.0.9'\n"


def test_an_agent_that_does_not_get_ready_fails_with_its_log(machine: Path, programs: Path) -> None:
    add_program(programs, "journalctl", "echo 'error: no route'")
    done = Sourced(scripts=[JOIN], programs=programs).run("is_ready() { false; }\nwait_ready now", {"MACHINE": "m", "READY_TIMEOUT_S": 1})
    assert done.returncode == 1
    assert done.stderr == "machine m: the agent is not ready after 1 s; its log: error: no route\n"
