"""The startup script of an instance group's machines, with stand-ins for curl; engine tests have a real API server."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from components.platforms.google.startup import StartupInputs, startup_script
from tests.support.samples import FACTS, MESH, PRODUCT
from tests.support.scripts import COMPONENTS, Sourced, add_program, machine_files

INPUTS = StartupInputs(
    project="istio-vm-mesh",
    stack="fleet",
    network="pods",
    gateway="10.10.0.250",
    root_certificate="root",
    workload=PRODUCT,
    mesh=MESH,
    facts=FACTS,
    api_server="https://192.0.2.1",
    setup="#!/bin/bash\necho set up\n",
)


def run(tmp_path: Path, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    sourced = Sourced(
        scripts=[COMPONENTS / "platforms" / "google" / "scripts" / "startup.sh"],
        programs=tmp_path,
        environment={"TMPDIR": str(tmp_path)},
    )
    defaults = {"MACHINE": "m", "API_SERVER": "https://x", "NAMESPACE": "shop", "SERVICE_ACCOUNT": "product", "SETUP_BASE64": ""}
    return sourced.run(text, {**defaults, **variables})


def test_it_is_a_program_that_sets_the_machine_up_and_joins_it() -> None:
    text = startup_script(INPUTS)
    assert text.startswith("#!/bin/bash\n")
    assert text.index("  attempt) prepare </dev/null ;;\n") < text.index("then main 3<&0 </dev/null; fi")
    assert "\nMACHINE=" not in text and "\nTOKEN=" not in text, "only the machine knows them"


def test_each_machine_fills_in_its_name_and_address() -> None:
    overrides = machine_files(startup_script(INPUTS))["/var/lib/istio-vm-mesh/overrides.env"]
    assert "istio-vm-mesh/registration" not in overrides and '"istio-locality":"@LOCALITY@"' in overrides
    assert "INSTANCE_IP='@ADDRESS@'" in overrides and "POD_NAME='@MACHINE@'" in overrides


def test_its_metadata_is_not_too_long() -> None:
    """Google takes 256 KiB for a value."""
    assert len(startup_script(INPUTS)) < 240_000


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("exit 1", "the metadata server gives no access token: does the machine have its service account?"),
        ('case "$*" in *metadata*) echo \'{"access_token": "a"}\' ;; *) cat >/dev/null; printf "Forbidden\\n403" ;; esac', "no token for the service account shop/product (HTTP status 403): Forbidden"),
        ('case "$*" in *metadata*) echo \'{"access_token": "a"}\' ;; *) cat >/dev/null; echo "curl: (6) no host" >&2; printf "\\n000"; exit 6 ;; esac', "(HTTP status 000): curl: (6) no host"),
        ('case "$*" in *metadata*) echo \'{"access_token": "a"}\' ;; *) cat >/dev/null; printf "{}\\n201" ;; esac', "the API server's answer has no token"),
    ],
)  # fmt: skip
def test_the_cause_is_named_where_there_is_no_token(tmp_path: Path, answer: str, cause: str) -> None:
    add_program(tmp_path, "curl", answer)
    done = run(tmp_path, "TOKEN=$(mint_token) || exit\necho on")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("machine m: ") and cause in done.stderr


def test_a_machine_that_does_not_get_its_name_does_not_join(tmp_path: Path) -> None:
    add_program(tmp_path, "curl", "exit 22")
    done = run(tmp_path, "prepare\necho on")
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not give this machine's name, address and zone" in done.stderr


def test_a_setup_that_fails_is_named_and_the_machine_joins(tmp_path: Path) -> None:
    done = run(tmp_path, "run_setup\necho on", SETUP_BASE64="IyEvYmluL3NoCmV4aXQgMwo=")  # exit 3
    assert (done.returncode, done.stdout) == (0, "slept\nslept\nslept\non\n"), "a mirror may be away for a moment"
    assert "the stack's startup script failed with status 3; the machine joins" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_machine_tries_until_it_has_joined(tmp_path: Path) -> None:
    """IAM, the gateway or a mirror may come later, and Google's unit runs the script once."""
    script, attempts = tmp_path / "script", tmp_path / "attempts"
    script.write_text(f'[ "$PART" = attempt ] || exit 9\necho x >>{attempts}\n[ "$(wc -l <{attempts})" = 3 ]\n')
    done = run(tmp_path, f"try_until_joined {script}\necho joined")
    assert (done.returncode, done.stdout) == (0, "slept\nslept\njoined\n")
    assert done.stderr.splitlines() == [f"the machine has not joined: it tries again in {pause} s" for pause in (10, 20)]


def test_google_unit_ends_at_once_and_the_attempts_go_on_in_a_unit_of_ours(tmp_path: Path) -> None:
    """While Google's unit runs, the boot is not complete, and what drains the machine waits for the boot. Its file is gone afterwards.

    The setup may have started an application in the background, which stays.
    """
    script = tmp_path / "startup-script"
    text = startup_script(INPUTS).partition("# Joins this machine to the mesh")[0]
    script.write_text(f"{text}\necho $TOKEN for $MACHINE\n")
    programs = tmp_path / "bin"
    answer = 'case "$*" in *token*) echo \'{"access_token": "a"}\' ;; *zone*) echo projects/1/zones/a-b1-c ;; *) echo m1 ;; esac'
    add_program(
        programs, "curl", f'[[ "$*" != *TokenRequest* ]] || {{ cat >/dev/null; printf \'{{"token": "t"}}\\n201\'; exit; }}\n{answer}'
    )
    add_program(programs, "sleep", f"echo slept; [ -e {tmp_path}/later ] || touch {tmp_path}/later")
    add_program(programs, "id", f"[ -e {tmp_path}/later ]")
    add_program(programs, "runuser", 'shift 3; "$@"')
    add_program(programs, "systemctl", f'echo "$@" >>{tmp_path}/systemd; exit 1')
    add_program(programs, "systemd-run", f'printf "%s\\n" "$@" >>{tmp_path}/systemd')
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "RUN_DIRECTORY": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    script.unlink()
    stop, _, *started = (tmp_path / "systemd").read_text().splitlines()
    assert stop == "stop istio-vm-mesh-boot", "of an earlier run"
    assert {"KillMode=process", "StandardOutput=journal+console", "istio-vm-mesh-boot"} <= set(started)
    variable, *command = started[started.index("--setenv") + 1 :]
    assert variable == "PART=attempts" and command[0] == "/bin/bash"
    done = subprocess.run(command, env={**environment, "PART": "attempts"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "t for m1"), done.stderr


@pytest.mark.parametrize("fails", ["update", "install"])
def test_a_gateways_setup_goes_on_until_iptables_is_there(tmp_path: Path, fails: str) -> None:
    """A network's NAT may be younger than the machine, and another apt may hold the lock."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    add_program(programs, "sleep", "echo slept")
    add_program(
        programs,
        "apt-get",
        f'echo "$@" >>{calls}\n'
        f'[ "$(grep -c {fails} {calls})" -gt 2 ] || [[ "$*" != *{fails}* ]] || exit 100\n'
        f'[[ "$*" != *install* ]] || {{ printf "#!/bin/bash\\n" >{programs}/iptables; chmod +x {programs}/iptables; }}',
    )
    for name in ("bash", "grep", "chmod"):
        (programs / name).symlink_to(shutil.which(name) or name)
    script = COMPONENTS / "platforms" / "google" / "scripts" / "gateway-setup.sh"
    done = subprocess.run([str(programs / "bash"), str(script)], env={"PATH": str(programs)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("slept")) == (0, 2), done.stderr
    assert "DPkg::Lock::Timeout" in calls.read_text()
