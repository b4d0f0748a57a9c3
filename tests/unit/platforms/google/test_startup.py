"""The startup script of an instance group's machines, with stand-ins for curl; engine tests have a real API server."""

from __future__ import annotations

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
    assert text.index("then prepare </dev/null; fi") < text.index("then main 3<&0 </dev/null; fi")
    assert "\nMACHINE=" not in text and "\nTOKEN=" not in text, "only the machine knows them"


def test_each_machine_fills_in_its_name_and_address() -> None:
    overrides = machine_files(startup_script(INPUTS))["/var/lib/istio-vm-mesh/overrides.env"]
    assert "istio-vm-mesh/registration" not in overrides and '"istio-locality":"@LOCALITY@"' in overrides
    assert "INSTANCE_IP='@ADDRESS@'" in overrides and "POD_NAME='@MACHINE@'" in overrides


def test_its_metadata_is_not_too_long() -> None:
    """Google takes 256 KiB for a value."""
    assert len(startup_script(INPUTS)) < 200_000


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("exit 1", "the metadata server gives no access token: does the machine have its service account?"),
        ('case "$*" in *metadata*) echo \'{"access_token": "a"}\' ;; *) cat >/dev/null; echo Forbidden; exit 22 ;; esac', "no token for the service account shop/product: Forbidden"),
        ('case "$*" in *metadata*) echo \'{"access_token": "a"}\' ;; *) cat >/dev/null; echo {} ;; esac', "the API server's answer has no token"),
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
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert "the stack's startup script failed with status 3; the machine joins" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == []
