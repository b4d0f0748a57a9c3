"""How the scripts on machines and in pods start, and what their shared functions do."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from components import shell
from tests.support.scripts import COMPONENTS, LIBRARY, Sourced, add_program
from tools import ROOT

PROBE = COMPONENTS / "verification" / "scripts" / "plaintext-probe.sh"
NAMES = (
    "machines/confirm",
    "machines/join",
    "machines/leave",
    "machines/redirect",
    "machines/redirect_host",
    "machines/undo",
    "machines/withdraw",
    "platforms/google/startup",
    "verification/call-service",
    "verification/gateway-stats",
    "verification/plaintext-probe",
)
DIRECT = r"curl --disable --noproxy '\*'"
PACKAGE = r"runuser -u istio-proxy -- timeout \"\$2\" curl --disable --config - "
"""The download of the package is the one request for which a machine may have a proxy."""


def test_a_script_runs_in_whatever_way_bash_gets_it(tmp_path: Path) -> None:
    """On standard input from machines, with -c in pods, as a file from units."""
    text = shell.remote_script("verification/plaintext-probe", {"ENDPOINTS": "192.0.2.1:80", "SNI": "name", "SCHEME": "http"})
    file = tmp_path / "script"
    file.write_text(text)
    add_program(tmp_path, "curl", "exit 52")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for command, stdin in ((["bash", "-s"], text), (["bash", "-c", text], ""), (["bash", str(file)], "")):
        done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True)
        assert done.stdout == '{"plaintext": {"endpoint": "192.0.2.1:80", "result": "refused"}}\n', command
        assert not done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_sourced_script_defines_functions_and_does_nothing(name: str, tmp_path: Path) -> None:
    package, _, script = name.rpartition("/")
    sourced = Sourced(scripts=[COMPONENTS / package / "scripts" / f"{script}.sh"], programs=tmp_path)
    done = sourced.run("declare -F main prepare >/dev/null; echo on")
    assert (done.stdout, done.stderr) == ("on\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_script_cut_in_transit_does_nothing(name: str) -> None:
    text = shell.remote_script(name, {"MACHINE": "m"})
    end = text.rindex("if ! (return 0 2>/dev/null); then")
    for length in (len(text) - 2, end + 40, end, end * 3 // 4):
        done = subprocess.run(["bash", "-s"], input=text[:length], capture_output=True, text=True)
        assert done.stdout == ""
        assert "machine m" not in done.stderr


def test_to_leave_needs_root(tmp_path: Path) -> None:
    directory = COMPONENTS / "machines" / "scripts"
    script = Sourced(scripts=[directory / "installation.sh", directory / "leave.sh"], programs=tmp_path)
    done = script.run("id() { echo 1000; }\nmain", {"MACHINE": "m"})
    assert (done.returncode, "machine m: leaving the mesh needs root" in done.stderr) == (1, True)


HOSTILE = {
    "http_proxy": "http://127.0.0.1:1",
    "BASH_ENV": "/nowhere/hostile",
    "CDPATH": "/usr",
    "TMPDIR": "/nowhere",
    "TMOUT": "900",
    "LC_ALL": "tr_TR.UTF-8",
    "PATH": "/nowhere",
    "POSIXLY_CORRECT": "1",
    "TAR_OPTIONS": "--nonsense",
    "CURL_HOME": "/nowhere",
    "ASK": "1",
}


def test_the_users_environment_changes_no_script(tmp_path: Path) -> None:
    script = Sourced(scripts=[COMPONENTS / "machines/scripts/withdraw.sh"], programs=tmp_path, environment=HOSTILE)
    done = script.run('clean_environment\ncat <<<"$(env | sort)"\ncd share 2>/dev/null || echo "no such directory"')
    lines = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert "no such directory" in lines
    assert lines["LC_ALL"] == "C" and "/usr/bin" in lines["PATH"]
    assert lines["TMPDIR"] == "/run", "a user's may not be there, and /tmp may be full"
    assert not {"BASH_ENV", "CDPATH", "TMOUT", "POSIXLY_CORRECT", "TAR_OPTIONS", "CURL_HOME"} & lines.keys()
    assert "http_proxy" in lines, "the package's download may go through it"


def test_a_home_that_root_cannot_enter_fails_no_search_of_files(tmp_path: Path) -> None:
    """Of NFS (root_squash): sudo keeps the login's working directory, and `find` has to go back to it."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    home.chmod(0o700)
    text = f"{LIBRARY.read_text()}\nset -e\nclean_environment\nfind /etc -maxdepth 0"
    squashed = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "bash", "-s"]
    done = subprocess.run(
        ["/bin/bash", "-c", 'cd "$0" && exec "$@"', str(home), *squashed], input=text, capture_output=True, text=True
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "/etc\n", "")


def every_script() -> list[str]:
    directories = [ROOT / "components", ROOT / "scripts/tools/mesh_status"]
    return sorted(str(path.relative_to(ROOT)) for directory in directories for path in directory.rglob("*.sh"))


@pytest.mark.parametrize("name", every_script())
def test_every_request_is_direct(name: str) -> None:
    lines = [line.strip() for line in (ROOT / name).read_text().splitlines() if not line.strip().startswith("#")]
    requests = [line for line in lines if re.search(r"(?<![\w/.-])(curl|wget) -", re.sub(DIRECT, "", line))]
    assert [line for line in requests if not re.match(PACKAGE, line)] == []


def test_a_request_to_the_machine_ignores_proxies(tmp_path: Path) -> None:
    (tmp_path / ".curlrc").write_text('proxy = "http://127.0.0.1:9"\nfail\n')
    environment = dict.fromkeys(("http_proxy", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        sourced = Sourced(scripts=[], programs=tmp_path, environment=environment)
        url = f"http://127.0.0.1:{server.server_port}/"
        assert sourced.run(f"direct_curl --output /dev/null --write-out '%{{http_code}}' {url}").stdout == "200"
        assert sourced.run(f"curl --silent {url}").returncode != 0
        server.shutdown()


def test_no_request_of_a_machine_goes_through_a_proxy_but_the_packages() -> None:
    """Every curl of a machine's script ignores the files of users; one of them takes a proxy of the environment."""
    calls: list[str] = []
    for file in [*(COMPONENTS / "machines" / "scripts").glob("*.sh"), *(COMPONENTS / "platforms").rglob("startup.sh")]:
        text = file.read_text().replace("\\\n", " ")
        calls += [f"{file.name}: {call}" for call in re.findall(r"\bcurl -.*", text)]
    assert len(calls) >= 4
    assert [call for call in calls if "curl --disable " not in call] == []
    assert [call.partition(":")[0] for call in calls if "--noproxy" not in call] == ["join.sh"]


def test_a_question_is_answered_or_fails(tmp_path: Path) -> None:
    for answer, shown in (
        ("yes\n", ""),
        ("no because\n", "because"),
        ("", "the connection ended before the request 'stop it' was answered"),
        ("maybe\n", "was answered by 'maybe'"),
    ):
        (tmp_path / "answer").write_text(answer)
        done = functions(tmp_path, f"exec 3<{tmp_path}/answer\nask stop it\necho on", MACHINE="m", ASK="1")
        assert done.stdout == "istio-vm-mesh: ask stop it\n" + ("" if shown else "on\n")
        assert shown in done.stderr and done.returncode == (1 if shown else 0)
    assert functions(tmp_path, "ask stop it\necho on", MACHINE="m", ASK="").stdout == "on\n"


@pytest.mark.slow
def test_a_question_that_nobody_answers_ends(tmp_path: Path) -> None:
    """A computer that loses its power closes no connection, and the join holds the machine's lock."""
    done = functions(tmp_path, f"mkfifo {tmp_path}/open\nexec 3<>{tmp_path}/open\nask stop it\necho on", MACHINE="m", ASK="1")
    assert "machine m: the request 'stop it' was not answered within 1 s" in done.stderr
    assert (done.returncode, "on\n" in done.stdout) == (1, False)


def functions(tmp_path: Path, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return Sourced(scripts=[], programs=tmp_path).run(text, variables)


@pytest.mark.parametrize(("status", "subject", "shown"), [("1", "", "machine m"), ("0", "Job x", "Job x")])
def test_a_cause_ends_a_script_as_a_failure_or_a_warning(tmp_path: Path, status: str, subject: str, shown: str) -> None:
    done = functions(tmp_path, 'fail "it is" broken\necho on', MACHINE="m", FAILURE_STATUS=status, SUBJECT=subject)
    assert (done.returncode, done.stdout, done.stderr) == (int(status), "", f"{shown}: it is broken\n")


def test_the_users_environment_makes_no_failure_a_warning(tmp_path: Path) -> None:
    environment = {"FAILURE_STATUS": "0", "MODE": "warn", "SUBJECT": "x", "ROOT": "/x", "STATE": "/x"}
    sourced = Sourced(scripts=[COMPONENTS / "machines" / "scripts" / "installation.sh"], programs=tmp_path, environment=environment)
    done = sourced.run('echo "$ROOT$STATE"\nfail no', {"MACHINE": "m"})
    assert (done.returncode, done.stdout, done.stderr) == (1, "/var/lib/istio-vm-mesh\n", "machine m: no\n")


@pytest.mark.parametrize("length", range(4))
def test_claims_of_a_token_are_read_whatever_its_length(tmp_path: Path, length: int) -> None:
    claims = {"x": "é" * length, "aud": ["istio-ca"], "sub": "system:serviceaccount:a:b", "exp": 12}
    payload = base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).decode()
    (tmp_path / "token").write_text(f"head.{payload.rstrip('=')}.signature")
    text = f'for claim in aud sub exp none; do echo "$(token_claim {tmp_path}/token $claim)"; done'
    assert functions(tmp_path, text).stdout == "istio-ca\nsystem:serviceaccount:a:b\n12\n\n"


def test_what_is_no_token_has_no_claim(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("no token")
    done = functions(tmp_path, f"set -eu -o pipefail\ntoken_claim {tmp_path}/token exp\necho on")
    assert done.stdout == "on\n"


def test_a_field_of_json_is_read(tmp_path: Path) -> None:
    answer = '{\n "kind": "TokenRequest",\n "status": {"token" : "a.b-c_d", "expires": "x"}}'
    assert functions(tmp_path, f"json_field token <<<'{answer}'").stdout.strip() == "a.b-c_d"


def test_an_address_is_a_number(tmp_path: Path) -> None:
    assert functions(tmp_path, "ipv4_number 172.31.6.130; echo $NUMBER").stdout == f"{0xAC1F0682}\n"


def test_a_command_runs_as_the_proxy_where_there_is_one(tmp_path: Path) -> None:
    add_program(tmp_path, "runuser", 'echo "$*"')
    add_program(tmp_path, "id", '[ "$1" = istio-proxy ] && exit "$WITHOUT"')
    for without, shown in ((1, "as it is"), (0, "-u istio-proxy -- echo as it is")):
        assert functions(tmp_path, "export WITHOUT\nas_proxy echo as it is", WITHOUT=str(without)).stdout == f"{shown}\n"


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for text in ("old", "new"):
        assert functions(tmp_path, f"printf {text} | write_file {tmp_path}/file").stderr == ""
    assert [path.read_text() for path in tmp_path.glob("file*")] == ["new"]


def test_a_file_is_whole_before_it_has_its_name(tmp_path: Path) -> None:
    """A rename reaches one mount alone: elsewhere `mv` writes to a file that has its name already."""
    staging, directory = tmp_path / "staging", tmp_path / "place"
    staging.mkdir()
    for name in ("a.service", "b.service"):
        (staging / name).write_text(name)
        (staging / name).chmod(0o640)
    add_program(tmp_path / "bin", "mv", f'echo "$*" >>{tmp_path}/calls; exec /bin/mv "$@"')
    sourced = Sourced(scripts=[COMPONENTS / "machines/scripts/installation.sh"], programs=tmp_path / "bin")
    done = sourced.run(f"place {directory} {staging}/a.service {staging}/b.service", {"STAGING": str(staging)})
    assert (done.returncode, done.stderr) == (0, "")
    shown = {path.name: (path.read_text(), path.stat().st_mode & 0o777) for path in directory.iterdir()}
    assert shown == {name: (name, 0o640) for name in ("a.service", "b.service")}
    renamed = [f"-fT {directory}/{name}.istio-vm-mesh {directory}/{name}" for name in ("a.service", "b.service")]
    assert (tmp_path / "calls").read_text().splitlines() == renamed
