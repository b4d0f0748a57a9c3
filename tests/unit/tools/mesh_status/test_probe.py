"""The script that looks at a machine: what it prints, and what never leaves the machine."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.support.scripts import Sourced
from tools.mesh_status import read_machines

PROBE = Path(read_machines.__file__).with_name("probe.sh")
SECRET = "eyJhbGciOiJSUzI1NiJ9.{}.canary-token"


@pytest.mark.parametrize("more", ["", "a", "ab"])  # claims of every length: base64url without padding
def test_of_the_token_only_the_expiry_leaves_the_machine(more: str, tmp_path: Path) -> None:
    """The script runs here with its files in a directory, beside a key and a token that must not come out."""
    claims = json.dumps({"aud": ["istio-ca"], "exp": 1795425814, "sub": f"canary-token>>>???{more}"}, separators=(",", ":"))
    token = SECRET.format(base64.urlsafe_b64encode(claims.encode()).decode().rstrip("="))
    (tmp_path / "istio-token").write_text(token)
    (tmp_path / "cert-chain.pem").write_text("a certificate")
    (tmp_path / "key.pem").write_text("canary-private-key")
    stand_ins = "systemctl() { case $* in *Monotonic*) echo 0 ;; *) echo ActiveState=inactive ;; esac; }\ncurl() { return 7; }\n"
    places = {"TOKEN_FILE": f"{tmp_path}/istio-token", "CERTIFICATE": f"{tmp_path}/cert-chain.pem", "GATEWAY": ""}
    done = Sourced(scripts=[PROBE], programs=tmp_path).run(f"{stand_ins}main", places)
    assert "token=1795425814\n" in done.stdout and f"certificate={base64.b64encode(b'a certificate').decode()}\n" in done.stdout
    assert "canary" not in done.stdout + done.stderr and token.split(".")[1] not in done.stdout


@pytest.mark.parametrize(("missing", "active"), [("", True), ("a is missing", True), ("a is missing\nb is open", False)])
def test_a_machine_says_what_is_missing_of_its_redirection(missing: str, active: bool, tmp_path: Path) -> None:
    (tmp_path / "overrides.env").write_text("FAIL_CLOSED='1'\n")
    (tmp_path / "guard").write_text(f"[ \"$1 $FAIL_CLOSED\" = 'check 1' ] && cat <<'END'\n{missing}\nEND\n" if missing else "")
    places = {"STATE": str(tmp_path), "GUARD": f"{tmp_path}/guard", "GUARD_UNIT": f"{tmp_path}/guard"}
    done = Sourced(scripts=[PROBE], programs=tmp_path).run(f"systemctl() {{ {'true' if active else 'false'}; }}\nprint_redirection", places)
    expected = [*missing.splitlines(), *([] if active else ["istio-vm-mesh-redirect.service does not run"])]
    assert (done.returncode, list(read_machines.parse(done.stdout, 0, 1).redirection)) == (0, expected)
    assert done.stderr == "", "a machine may have no cluster.env"


SETUP = r"""
ROOT=$HOME STATE=$HOME/state PACKAGE=$HOME/current PROGRAMS=$HOME/programs GUARD_UNIT=$HOME/unit
CERTIFICATE=$HOME/certificate TOKEN_FILE=$HOME/token GATEWAY='' GATEWAY_PORT=15012 active='' disabled=0
clean_environment() { :; }
cut() { echo 500.25; }
systemctl() { case $1 in
show) case $* in *--value) echo "$active" ;; *) echo LoadState=loaded ;; esac ;;
is-enabled) return $disabled ;; esac; }
# A machine that has joined.
joined() { mkdir -p "$STATE" "$HOME/packages/abc"; ln -s packages/abc "$PACKAGE"
: >"$STATE/owner"; echo package-sha256=abc >"$STATE/joined"; echo a >"$STATE/a.env"; echo b >"$PACKAGE/envoy"
describe "$PACKAGE/" >"$PACKAGE/.description"; describe_files "$ROOT/" <<<state/a.env >"$STATE/written"; }
files() { print_files | sed "s#$HOME##g"; }
all() { main | paste -sd ' '; }
"""
CASES = {
    "print_unit: since when it is active": (
        "for active in 490000000 0 ''; do print_unit | paste -sd ' '; done",
        "LoadState=loaded up=500 active=10\nLoadState=loaded up=500\nLoadState=loaded up=500",
    ),
    "print_versions: of the agent and of Envoy, or none": (
        "direct_curl() { :; }; print_versions; mkdir $PROGRAMS; printf '#!/bin/sh\\necho client version: 1.31.0' >$PROGRAMS/pilot-agent; chmod +x $PROGRAMS/pilot-agent; "
        "direct_curl() { printf '  \"version\": \"abc/1.39.%s/Clean\"\\n' 3 4; }; print_versions",
        "agent=\nenvoy=\nagent=1.31.0\nenvoy=1.39.3",
    ),
    "print_redirection: a network's gateway has none": ("print_redirection; echo $?", "0"),
    "print_files: of a machine that has not joined": ("joined; rm $STATE/owner; files; echo $?", "0"),
    "print_files: all as the join wrote it": ("joined; files", "files="),
    "print_files: nothing to compare with": ("joined; rm $STATE/written; files", "files=/state/written"),
    "print_files: a file that was edited": ("joined; echo c >>$STATE/a.env; files", "files=/state/a.env"),
    "print_files: a program that was edited": ("joined; echo c >>$PACKAGE/envoy; files", "files=/current/envoy"),
    "print_files: a package without a description": ("joined; rm $PACKAGE/.description; files", "files="),
    "print_files: another package": ("joined; ln -sfn packages/other $PACKAGE; files", "files=/current"),
    "print_files: a unit that a boot would not start": ("joined; disabled=1; files", "files=istio-vm-mesh.service, which is not enabled"),
    "main: certificate and token that are there": (
        "for each in unit versions redirection files; do eval \"print_$each() { echo $each; }\"; done; date() { echo 7; }; direct_curl() { printf 200; }; all; "
        "echo c >$CERTIFICATE; printf a.eyJleHAiOjd9.b >$TOKEN_FILE; all",
        "time=7 unit versions ready=200 redirection files\ntime=7 unit versions ready=200 redirection files certificate=Ywo= token=7",
    ),
    "main: the gateway, by the proxy's user": (
        "for each in unit versions redirection files; do eval \"print_$each() { :; }\"; done; date() { :; }; direct_curl() { :; }; id() { :; }; can_connect() { [ \"$*\" = '10.0.0.1 15012 3' ]; }; "
        "all; GATEWAY=10.0.0.1; all; can_connect() { return 1; }; all; id() { return 1; }; all",
        "time= ready=\ntime= ready= gateway=yes\ntime= ready= gateway=no\ntime= ready=",
    ),
}  # fmt: skip
"""A text of bash, and what it prints, by what it shows."""


@pytest.mark.parametrize("case", CASES)
def test_what_is_printed_of_a_machine_follows_from_what_is_there(case: str, tmp_path: Path) -> None:
    text, expected = CASES[case]
    done = Sourced(scripts=[PROBE], programs=tmp_path).run(f"exec 2>&1\n{SETUP}\n{text}")
    assert done.stdout.rstrip() == expected
