"""The join on machines of several families, with stand-ins for their programs; end-to-end tests have the rest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.machine import INSTALLATION, ISSUED, JOIN, token
from tests.support.scripts import Sourced, add_program

TIME_BY_SLEEP = "unset SECONDS; SECONDS=0; sleep() { SECONDS=$((SECONDS + 1)); }"
"""Stops bash's clock, which goes on by more than the pauses on a busy machine."""
NEEDED = (
    *("systemctl", "iptables", "ip", "ss", "curl", "pgrep", "sha256sum", "b2sum", "flock", "runuser", "unshare", "getent", "awk", "cmp"),
    *("find", "xargs", "tar"),
)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def run(programs: Path, text: str, alone: bool = False, **variables: str | int) -> subprocess.CompletedProcess[str]:
    """Run `text` with the functions of the join, and with `programs` first on PATH, or alone."""
    return Sourced(scripts=[INSTALLATION, JOIN], programs=programs, alone=alone).run(text, {"MACHINE": "m", **variables})


@pytest.mark.parametrize(
    ("tool", "machine", "package"),
    [
        ("dpkg-deb", "x86_64", "deb/istio-sidecar.deb"),
        ("dpkg-deb", "aarch64", "deb/istio-sidecar-arm64.deb"),
        ("rpm2cpio", "x86_64", "rpm/istio-sidecar.rpm"),
        ("rpm2cpio", "aarch64", "rpm/istio-sidecar-arm64.rpm"),
    ],
)
def test_the_package_fits_the_machine(programs: Path, tool: str, machine: str, package: str) -> None:
    for name, text in {
        **dict.fromkeys((*NEEDED, tool), ""),
        "readlink": "",
        "uname": f"echo {machine}",
        "pgrep": "exit 1",
        "id": "echo 0",
    }.items():
        add_program(programs, name, text)
    url = "https://example.com/1.31.0/{package}"
    done = run(programs, 'check_machine\necho "$PACKAGE_URL"', alone=True, PACKAGE_URL=url)
    assert done.stdout == f"https://example.com/1.31.0/{package}\n", done.stderr


@pytest.mark.parametrize(
    ("installed", "cause"),
    [
        (NEEDED, "there is neither dpkg-deb nor rpm2cpio"),
        (NEEDED[:-1], f"{NEEDED[-1]} is missing: install it on the machine, or in its image"),
    ],
)
def test_a_machine_that_lacks_something_is_refused(programs: Path, installed: tuple[str, ...], cause: str) -> None:
    for name in (*installed, "readlink"):
        add_program(programs, name, "")
    add_program(programs, "id", "echo 0")
    done = run(programs, "check_machine", alone=True, PACKAGE_URL="x")
    assert done.returncode == 1
    assert f"machine m: {cause}" in done.stderr


def test_programs_that_lack_options_are_refused(programs: Path, tmp_path: Path) -> None:
    """flock of BusyBox, as an example, would have the join wait for another one for ever."""
    add_program(tmp_path, "busybox", "")
    (programs / "flock").symlink_to(tmp_path / "busybox")
    done = run(programs, "check_programs")
    assert (done.returncode, done.stderr.startswith("machine m: flock is BusyBox's, which lacks options")) == (1, True), done.stderr


@pytest.mark.parametrize(("printed", "is_refused"), [("systemd 219\n+PAM", True), ("systemd 252 (252.39-1~deb12u1)", False), ("", False)])
def test_a_systemd_that_does_not_know_the_units_is_refused(programs: Path, printed: str, is_refused: bool) -> None:
    """It would run the agent without its steps as root: without the redirection."""
    add_program(programs, "systemctl", f'[ "$1" = --version ] && echo "{printed}"')
    done = run(programs, "check_systemd")
    cause = "machine m: systemd 219 is too old: the units need systemd 235 (2017) or later\n" if is_refused else ""
    assert (done.returncode, done.stderr) == (int(is_refused), cause)


DISKS = {
    "read-only": ("size=1m", "mount -o remount,ro $d", "Read-only file system"),
    "full": ("size=64k", "head -c 1m /dev/zero >$d/full 2>/dev/null || true", "No space left on device"),
    "out of inodes": ("size=1m,nr_inodes=1", "true", "No space left on device"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("options", "command", "cause"), DISKS.values(), ids=DISKS.keys())
@pytest.mark.parametrize("place", ["PROGRAMS", "STATE", "UNITS", "RUN"])
def test_a_place_that_cannot_be_written_is_refused(
    programs: Path, tmp_path: Path, place: str, options: str, command: str, cause: str
) -> None:
    places = {name: str(tmp_path / name / "below") for name in ("PROGRAMS", "STATE", "UNITS", "RUN")}
    for name in places:
        (tmp_path / name).mkdir()
    add_program(programs, "runuser", 'shift 3; "$@"')
    directory = tmp_path / place
    assert run(programs, "check_directories", False, **places).stderr == ""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(directory)], check=True)
    try:
        subprocess.run(["bash", "-c", f"d={directory}; {command}"], check=True)
        before = sorted(directory.iterdir())
        done = run(programs, "check_directories", False, **places)
        assert (done.returncode, sorted(directory.iterdir())) == (1, before)
        assert done.stderr.startswith(f"machine m: cannot write to {directory} ({cause}): ")
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.parametrize("place", ["PROGRAMS", "STATE"])
def test_a_directory_that_only_root_can_enter_is_refused(programs: Path, place: str) -> None:
    with TemporaryDirectory(dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        places = {each: str(directory / each) for each in ("PROGRAMS", "STATE", "UNITS", "RUN")}
        for each in places.values():
            Path(each).mkdir()
        assert run(programs, "check_directories", False, **places).stderr == ""
        (directory / place).chmod(0o750)
        done = run(programs, "check_directories", False, **{**places, place: f"{directory}/{place}/below"})
        assert done.stderr.startswith(f"machine m: {directory}/{place} cannot be entered by the agent"), done.stderr


def test_the_ports_of_ssh_are_looked_for_with_the_agents_environment(programs: Path, tmp_path: Path) -> None:
    """The workload's ports, which it has, are none of a program that passes connections on to sshd."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/redirect.sh").write_text('echo "$1 $ISTIO_META_POD_PORTS $FIREWALL"\n')
    (tmp_path / "cluster.env").write_text("ISTIO_META_POD_PORTS='[80]'\nFIREWALL=report\n")
    (tmp_path / "overrides.env").write_text("FIREWALL=manage\n")
    done = run(programs, "keep_ssh_port", False, STATE=str(tmp_path), PROGRAMS=str(tmp_path))
    assert done.stdout == "ssh-port [80] manage\n"


def test_a_file_system_from_which_nothing_runs_is_named(programs: Path, tmp_path: Path) -> None:
    package = tmp_path / "disk" / "package"
    package.parent.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", str(package.parent)], check=True)
    try:
        for name in ("usr/local/bin", "var/lib/istio/envoy"):
            (package / name).mkdir(parents=True)
        (package / "var/lib/istio/envoy/envoy_bootstrap_tmpl.json").touch()
        add_program(package / "usr/local/bin", "pilot-agent", "echo version")
        add_program(programs, "runuser", 'shift 3; exec "$@"')
        done = run(programs, f"check_package {package}", NEW_PACKAGE=str(package.parent), DEADLINE_S=600, PACKAGE_URL="x")
        assert done.stderr.endswith(f"Permission denied ({package.parent} is mounted with noexec)\n")
    finally:
        subprocess.run(["umount", str(package.parent)], check=True)


@pytest.mark.parametrize(("end", "limit"), [(113, 113), (6, 6), (4, 5), (0, 5)])
def test_programs_of_a_package_take_what_the_download_left_of_its_time(programs: Path, tmp_path: Path, end: int, limit: int) -> None:
    """Each has a share of the join's time at least."""
    (tmp_path / "var/lib/istio/envoy").mkdir(parents=True)
    (tmp_path / "var/lib/istio/envoy/envoy_bootstrap_tmpl.json").touch()
    text = f"unset SECONDS; SECONDS=0 PACKAGE_END={end}; runuser() {{ echo $5 >>{tmp_path}/limits; }}; check_package {tmp_path}"
    done = run(programs, text, NEW_PACKAGE=str(tmp_path), DEADLINE_S=540, PACKAGE_URL="x")
    assert (done.returncode, (tmp_path / "limits").read_text().split()) == (0, [str(limit)] * 2), done.stderr


@pytest.mark.parametrize(
    ("log", "unit"),
    [
        ("E: Unable to fetch some archives", "google-startup-scripts"),
        ("", "google-startup-scripts"),
        ("E: Unable to fetch some archives", "istio-vm-mesh-boot"),
    ],
)
def test_a_startup_script_that_failed_is_named_with_its_error(programs: Path, log: str, unit: str) -> None:
    """The unit itself does not fail then, and runs once a boot."""
    for name in NEEDED[:-1]:
        add_program(programs, name, "")
    for name in ("grep", "tail", "cut", "rm"):
        (programs / name).symlink_to(shutil.which(name) or name)
    add_program(programs, "id", "echo 0")
    add_program(programs, "journalctl", f"[[ $* != *'--unit {unit} '* ]] || echo '{log}'; echo done")
    variables = {"BOOT_UNIT": unit} if unit != "google-startup-scripts" else {}  # of an instance group's machine
    done = run(programs, "set -eu -o pipefail\ncheck_machine", alone=True, PACKAGE_URL="x", **variables)
    assert done.returncode == 1
    assert f"; its startup script ended without it ({log or 'no error is in its log'}): 'systemctl restart {unit}'" in done.stderr


def test_a_machine_is_looked_at_after_its_setup() -> None:
    """Its startup script installs iptables."""
    text = JOIN.read_text()
    assert text.index("step wait_for_setup") < text.index("step check_machine")


@pytest.mark.parametrize("agent", ["in a network of its own", "of the unit", "another"])
def test_only_an_agent_in_this_network_is_in_the_way(programs: Path, agent: str) -> None:
    stand_ins = {
        "readlink": f'[ "$1" = /proc/self/ns/net ] && echo 1 || echo {2 if agent == "in a network of its own" else 1}',
        "grep": f"exit {0 if agent == 'of the unit' else 1}",
    }
    for name, text in stand_ins.items():
        add_program(programs, name, text)
    assert run(programs, "is_another_agent 7 && echo refused").stdout == ("refused\n" if agent == "another" else "")


@pytest.mark.parametrize(
    ("state", "command", "refused"),
    [
        ("enabled", "/usr/local/bin/istio-start.sh", True),
        ("disabled", "/usr/local/bin/istio-start.sh", False),
        ("enabled", "/usr/bin/something-else", False),
        ("", "", False),
    ],
)
def test_an_agent_that_comes_with_the_next_boot_is_in_the_way(programs: Path, state: str, command: str, refused: bool) -> None:
    """Istio's package brings the unit `istio`."""
    add_program(programs, "pgrep", "exit 1")
    add_program(programs, "systemctl", f'case $1 in is-enabled) echo {state} ;; show) echo "ExecStart={{ path={command} ; }}" ;; esac')
    done = run(programs, "check_other_agents")
    assert (done.returncode, "systemctl disable istio" in done.stderr) == (int(refused), refused)


@pytest.mark.parametrize("shown", ["ActiveState=activating", "ActiveState=inactive\nJob=7"])
def test_the_join_waits_for_the_setup_of_the_machine_but_not_for_itself(programs: Path, tmp_path: Path, shown: str) -> None:
    answer = f'[ $(wc -l <{tmp_path}/calls) -gt 3 ] && echo ActiveState=inactive || echo "{shown}"'
    add_program(programs, "systemctl", f"echo x >>{tmp_path}/calls; echo Id=cloud-init.service; {answer}")
    assert run(programs, "wait_for_setup", DEADLINE_S=600).stdout.count("slept") == 3
    (tmp_path / "calls").unlink()
    assert run(programs, "wait_for_setup", API_SERVER="https://x").stdout == ""


@pytest.mark.parametrize(("state", "waits_for", "in_order"), [("activating", 12, True), ("active", 12, True), ("inactive", 0, False)])
def test_a_boot_does_not_restart_an_agent_that_starts(programs: Path, tmp_path: Path, state: str, waits_for: int, in_order: bool) -> None:
    """A machine of a group joins at each boot. On a small machine, or while istiod is away, its agent is ready late."""
    add_program(programs, "systemctl", f"case $1 in show) echo {state} ;; is-active) [ {state} = active ] ;; esac")
    add_program(programs, "curl", f"echo x >>{tmp_path}/calls; [ $(wc -l <{tmp_path}/calls) -gt {waits_for} ]")
    done = run(programs, f"{TIME_BY_SLEEP}; is_in_order", API_SERVER="https://x", DEADLINE_S=540, RUN=str(tmp_path))
    assert (done.returncode == 0) == in_order, done.stderr


def test_an_agent_that_does_not_become_ready_is_restarted_by_a_boot_too(programs: Path, tmp_path: Path) -> None:
    """It may wait for this token: the machine was off for days."""
    add_program(programs, "systemctl", "case $1 in show) echo active ;; esac")
    add_program(programs, "curl", "exit 7")
    done = run(programs, f"{TIME_BY_SLEEP}; is_in_order || echo $SECONDS", API_SERVER="https://x", DEADLINE_S=540, RUN=str(tmp_path))
    assert 20 <= int(done.stdout) <= 30


def test_a_setup_that_does_not_end_is_named(programs: Path) -> None:
    add_program(
        programs,
        "systemctl",
        """for unit in ${*:3}; do
          echo -e "Id=$unit.service\nActiveState=$([ $unit = cloud-final ] && echo activating || echo inactive)\n"
        done""",
    )
    done = run(programs, "wait_for_setup", DEADLINE_S=60)
    assert done.stderr == "machine m: cloud-final still runs after 12 s: see its log, and run the update again\n"


@pytest.mark.istio_case(27)
@pytest.mark.parametrize(
    ("off", "cause"),
    [
        (-7200, "the clock is at least 120 minutes behind the cluster's"),
        (-60, ""),
        (0, ""),
        (3600 + 1800, "the clock is at least 30 minutes ahead of the cluster's, or this update began hours ago"),
    ],
)
def test_a_wrong_clock_is_named(programs: Path, tmp_path: Path, off: int, cause: str) -> None:
    """By what the machine reports, before its agent is touched."""
    add_program(programs, "date", f'[ "$*" = +%s ] && echo {ISSUED + off} || echo "some day"')
    done = run(programs, "set -eu -o pipefail\ncheck_token", TOKEN=token(), CERTS=f"{tmp_path}")
    assert (done.returncode, cause in done.stderr) == (1 if cause else 0, True), done.stderr
    assert bool(done.stderr) == bool(cause)


@pytest.mark.parametrize(
    ("log", "text", "cause"),
    [
        ("rpc error: code = Unauthenticated", "no-token", "the token on the machine is no token: run the update again for a new one"),
        ("rpc error: code = Unauthenticated", token(aud=["other"]), "it is for the audience other instead of istio-ca: raise the rotation of m in the stack file"),
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
    add_program(programs, "journalctl", f"cat {tmp_path}/log")
    (tmp_path / "log").write_text(f"info\n{log}\ninfo\n")
    done = run(programs, "set -eu -o pipefail\ndiagnose now", TOKEN=text, GATEWAY="gw", GATEWAY_PORT="15012")
    assert done.returncode == 1
    assert done.stderr.startswith("machine m: ") and cause in done.stderr


def test_a_log_without_a_cause_fails_nothing(programs: Path) -> None:
    add_program(programs, "journalctl", "exit 1")
    assert run(programs, "set -eu -o pipefail\ndiagnose now\necho on").stdout == "on\n"


@pytest.mark.parametrize(
    ("status", "spare", "cause"),
    [
        (124, 0, "has not started within 32 s: is the machine too busy"),
        (124, 40, "has not started within 72 s: is the machine too busy"),
        (1, 0, "does not start: a rule"),
    ],
)
def test_a_start_that_takes_too_long_is_told_from_one_that_fails(programs: Path, status: int, spare: int, cause: str) -> None:
    """In a start that is only slow, the end of the log is no cause. It may take the time that the package did not need."""
    add_program(programs, "journalctl", "echo 'a rule'")
    add_program(programs, "systemctl", "true")
    add_program(programs, "timeout", f"exit {status}")
    done = run(programs, f"SPARE_S={spare}; start_agent", DEADLINE_S=540)
    assert done.returncode == 1
    assert f"machine m: the unit istio-vm-mesh {cause}" in done.stderr


def test_units_that_start_slowly_share_the_time_that_the_package_did_not_need(programs: Path) -> None:
    add_program(programs, "timeout", "echo $1")
    text = """
    unset SECONDS; SECONDS=0 SPARE_S=100
    restart_within 10 quick; echo "left $SPARE_S"
    timeout() { echo $1; SECONDS=$((SECONDS + 70)); return 124; }
    restart_within 10 slow; echo "$? left $SPARE_S"
    restart_within 30 slow; echo "$? left $SPARE_S"
    restart_within 10 slow; echo "$? left $SPARE_S"
    """
    assert run(programs, text).stdout.split("\n")[:-1] == [
        *("110", "left 100"),
        *("110", "124 left 40"),
        *("70", "124 left 0"),
        *("10", "124 left 0"),
    ]


@pytest.mark.parametrize("enforce", ["1", "0", None])
def test_where_selinux_enforces_its_policy_a_failure_leads_to_what_it_refused(programs: Path, tmp_path: Path, enforce: str | None) -> None:
    add_program(programs, "journalctl", "echo 'Permission denied'")
    if enforce:
        (tmp_path / "enforce").write_text(enforce)
    done = run(programs, "fail_to_start 1 32 now", ENFORCE=str(tmp_path / "enforce"))
    words = " (SELinux enforces its policy here: 'ausearch -m AVC -ts recent' shows what it refused)"
    assert done.stderr.endswith(f"Permission denied{words if enforce == '1' else ''}\n")


def test_an_agent_that_does_not_get_ready_fails_with_its_log(programs: Path) -> None:
    add_program(programs, "journalctl", "echo 'error: no route'")
    done = run(programs, "is_ready() { false; }\nwait_ready now", DEADLINE_S=10)
    assert done.returncode == 1
    assert done.stderr == "machine m: the agent is not ready after 1 s; its log: error: no route\n"
