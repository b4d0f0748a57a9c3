"""Scripts on machines by OpenSSH: what ssh is given, when it is tried again, and what counts as done."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from time import sleep

import pytest

from components.local import openssh, over_ssh, private_files, scripting, ssh_log
from components.names import SSH_KEY
from tests.support.fake_programs import Programs
from tests.support.tiers import some_quick

HOP = openssh.Hop("192.0.2.7", 22, "admin", "ssh-ed25519 AAAA")
TARGET = openssh.Target("product-1", HOP)
BEGUN = f"{openssh.MARK}\n"
REFUSED = ("", 255, "", "ssh: connect to host 192.0.2.7 port 22: Connection refused")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the clock run by the pauses alone."""
    passed: list[float] = []
    monkeypatch.setattr(openssh, "sleep", passed.append)
    monkeypatch.setattr(openssh, "monotonic", lambda: sum(passed))
    return passed


def payload(**changes: object) -> over_ssh.Payload:
    values = {"target": TARGET, "purpose": "join", "script": "echo abc\n", "timeout_s": 60}
    return over_ssh.Payload(**{**values, "patience_s": 0, "last_line": "abc", **changes})  # type: ignore[arg-type]


def test_a_join_that_ended_with_its_digest_is_done(programs: Programs) -> None:
    programs.add("ssh", ("", 0, f"Welcome!\n{BEGUN}working\nabc\n", "a remark\n"))
    assert over_ssh.run(payload()).stdout == "working\nabc"
    (call,) = programs.calls("ssh")
    assert call.words[-3:] == ("--", "192.0.2.7", "bash -s")
    assert call.stdin.endswith(f"'{openssh.MARK}' >&2\necho abc\n")


@pytest.mark.parametrize("status", [0, 1, 127])
def test_a_login_shell_that_runs_nothing_fails_the_join(programs: Programs, status: int) -> None:
    programs.add("ssh", ("", status, "Welcome!\n", ""))
    with pytest.raises(scripting.Failed, match=r"the login shell of admin@192.0.2.7 did not run the join"):
        over_ssh.run(payload())


@pytest.mark.parametrize("output", ["", "other\n", "abc\nmore\n"])
def test_a_join_that_ended_before_its_digest_failed(programs: Programs, output: str) -> None:
    programs.add("ssh", ("", 0, BEGUN + output, ""))
    with pytest.raises(scripting.Failed, match=r"machine product-1: the join at admin@192.0.2.7 ended before its last step"):
        over_ssh.run(payload())


def test_a_script_that_fails_says_why_itself(programs: Programs) -> None:
    programs.add("ssh", ("", 3, BEGUN, "machine product-1: no gateway\n"))
    with pytest.raises(scripting.Failed, match=r"^machine product-1: no gateway$"):
        over_ssh.run(payload())


def test_a_refused_connection_is_tried_again_until_patience_ends(programs: Programs, no_pauses: list[float]) -> None:
    programs.add("ssh", REFUSED)
    with pytest.raises(
        scripting.Failed, match=r"^machine product-1: SSH did not reach admin@192.0.2.7: Connection refused; the join did not run$"
    ):
        over_ssh.run(payload(patience_s=10))
    assert len(programs.calls("ssh")) == 6
    assert sum(no_pauses) == 10


@pytest.mark.parametrize("reason", [REFUSED[-1], "kex_exchange_identification: Connection closed by remote host"])
def test_a_machine_that_is_not_ready_yet_is_reached_later(programs: Programs, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    programs.add("ssh", ("", 255, "", reason))
    later = ("", 0, f"{BEGUN}abc\n", "")
    monkeypatch.setattr(openssh, "sleep", lambda _: programs.add("ssh", later))
    assert over_ssh.run(payload(patience_s=10)).stdout == "abc"


def test_a_script_that_has_begun_is_never_started_again(programs: Programs) -> None:
    programs.add("ssh", ("", 255, BEGUN, "Connection reset by peer"))
    with pytest.raises(scripting.Failed, match=r"the SSH connection to admin@192.0.2.7 ended before the join did"):
        over_ssh.run(payload(patience_s=60))
    assert len(programs.calls("ssh")) == 1


def test_another_host_key_is_final(programs: Programs) -> None:
    programs.add("ssh", ("", 255, "", "Host key verification failed."))
    with pytest.raises(scripting.Failed, match=r"Host key verification failed"):
        over_ssh.run(payload(patience_s=60))
    assert len(programs.calls("ssh")) == 1


def test_ssh_that_is_missing_is_named(programs: Programs) -> None:
    with pytest.raises(scripting.Failed, match=r"^ssh is not on PATH"):
        over_ssh.run(payload())


def test_a_generated_key_may_be_authorised_a_little_later(programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    key = private_files.reference("o/p/s", SSH_KEY)
    private_files.write(key, "a key")
    refused = ("", 255, "", "admin@192.0.2.7: Permission denied (publickey).")
    programs.add("ssh", refused)
    monkeypatch.setattr(openssh, "sleep", lambda _: programs.add("ssh", ("", 0, f"{BEGUN}abc\n", "")))
    assert over_ssh.run(payload(patience_s=10, target=replace(TARGET, hop=replace(HOP, identity_file=key)))).stdout == "abc"
    programs.add("ssh", refused)
    with pytest.raises(scripting.Failed, match=r"run `pulumi preview`, which writes the key of this stack to its file"):
        over_ssh.run(payload(target=replace(TARGET, hop=replace(HOP, identity_file=key))))
    with pytest.raises(scripting.Failed, match=r"admin@192.0.2.7 refused the login: Permission denied \(publickey\) \(a key with a"):
        over_ssh.run(payload(patience_s=10))


def test_a_refused_login_names_the_key(programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The link may be of another stack of the same name, whose state is elsewhere."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    identity = private_files.reference("o/p/s", private_files.IDENTITIES, "billing-1")
    private_files.link(identity, tmp_path / "their-key")
    programs.add("ssh", ("", 255, "", "admin@192.0.2.7: Permission denied (publickey)."))
    for file in (identity, str(tmp_path / "their-key")):
        with pytest.raises(scripting.Failed, match=rf"refused the login.*the key is {tmp_path}/their-key; a key with a passphrase"):
            over_ssh.run(payload(target=replace(TARGET, hop=replace(HOP, identity_file=file))))
    # A runner in CI sets a secret that it has not to an empty text. ssh then gets the file.
    monkeypatch.setenv(openssh.KEY_VARIABLE, "")
    with pytest.raises(scripting.Failed, match=rf"the key is {tmp_path}/their-key;"):
        over_ssh.run(payload(target=replace(TARGET, hop=replace(HOP, identity_file=identity))))
    monkeypatch.setenv(openssh.KEY_VARIABLE, "a key")
    with pytest.raises(scripting.Failed, match=r"the key is that of ISTIO_VM_MESH_SSH_KEY"):
        over_ssh.run(payload())


def test_a_jump_host_that_refuses_the_login_names_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(openssh.KEY_VARIABLE, raising=False)
    jump = replace(HOP, host="jump.example.com", identity_file="/keys/jump")
    target = replace(TARGET, jumps=(jump,))
    refused = openssh.Outcome(ssh_log.Reach.BASTION, 255, reason="jump host jump.example.com: Permission denied (publickey).")
    assert "(the key is /keys/jump; a key with a passphrase" in openssh.explain(target, refused, "join")
    unreachable = replace(refused, reason="jump host jump.example.com: Connection timed out")
    assert openssh.explain(target, unreachable, "join").endswith("Connection timed out")


@pytest.mark.parametrize("text", ["-oProxyCommand=x", "a\nb", ""])
def test_a_host_cannot_become_an_option(programs: Programs, text: str) -> None:
    programs.add("ssh")
    for hop in (replace(HOP, host=text), replace(HOP, user=text or "\n")):
        for target in (replace(TARGET, hop=hop), replace(TARGET, jumps=(hop,))):
            with pytest.raises(scripting.Failed, match=r"neither a host nor a user"):
                over_ssh.run(payload(target=target))


@pytest.mark.parametrize("path", ['a" b', "%h", "${HOME}/x", "a\\b", "a\nb"])
def test_a_path_that_ssh_would_read_otherwise_is_refused(programs: Programs, path: str) -> None:
    programs.add("ssh")
    with pytest.raises(scripting.Failed, match=r"ssh cannot be given the path"):
        over_ssh.run(payload(target=replace(TARGET, hop=replace(HOP, identity_file=path))))


def test_what_ssh_prints_of_a_machine_that_is_behind_a_proxy_is_shown(programs: Programs) -> None:
    programs.add_script("ssh", "import sys; print('ERROR: (gcloud) not logged in', file=sys.stderr); sys.exit(255)")
    target = replace(TARGET, iap=openssh.Iap("my-project", "europe-west1-b"))
    with pytest.raises(scripting.Failed, match=r"ERROR: \(gcloud\) not logged in\nmachine product-1: SSH did not reach"):
        over_ssh.run(payload(target=target))


REFUSED_BY_IAP = (
    "WARNING: consider installing NumPy\n"
    "ERROR: [0] Error during local connection to [stdin]: Error while connecting [4033: 'not authorized'].\n"
    "Traceback (most recent call last):\n  raise ConnectionCreationError(error_msg)\n"
    "googlecloudsdk.api_lib.compute.iap_tunnel_websocket.ConnectionCreationError: Error while connecting [4033: 'not authorized'].\n"
)
"""What gcloud 528 prints, and then ends with status 0."""


def behind_iap(programs: Programs, printed: str) -> openssh.Target:
    """Have ssh log what it logs when its proxy command ends; return a machine behind one."""
    programs.add_script(
        "ssh",
        "import sys\n"
        "open(sys.argv[2], 'w').write('kex_exchange_identification: Connection closed by remote host\\n')\n"
        f"print({printed!r}, file=sys.stderr); sys.exit(255)",
    )
    return replace(TARGET, iap=openssh.Iap("my-project", "europe-west1-b"))


@pytest.mark.parametrize(
    ("printed", "cause"),
    [
        (REFUSED_BY_IAP, r"Error while connecting \[4033: 'not authorized'\]\."),
        ("ERROR: (gcloud) You do not have an active account\n\nPlease run:\n", r"ERROR: \(gcloud\) You do not have an active account"),
        ("", "kex_exchange_identification: Connection closed by remote host"),
    ],
)
def test_why_a_proxy_did_not_connect_is_the_cause(programs: Programs, printed: str, cause: str) -> None:
    outcome = openssh.run_script(behind_iap(programs, printed), "true\n", 10)
    assert re.fullmatch(cause, outcome.reason)
    text = openssh.explain(TARGET, outcome, "join"), openssh.explain(behind_iap(programs, printed), outcome, "join")
    assert ["--verbosity warning` prints" in each for each in text] == [False, True]


@pytest.mark.slow
def test_a_cause_that_lasts_is_reported_once_while_it_is_tried_again(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new machine has no SSH server for a while; a refusal by policy is worth an interruption."""
    target, clock = behind_iap(programs, REFUSED_BY_IAP), iter(range(0, 10_000, 20))
    monkeypatch.setattr(openssh, "monotonic", lambda: next(clock))
    monkeypatch.setattr(openssh, "sleep", lambda _: None)
    openssh.run_script(target, "true\n", 10, 60)
    assert capsys.readouterr().err == "", "within the first minute"
    openssh.run_script(target, "true\n", 10, 200)
    assert capsys.readouterr().err.count("4033") == 1
    assert next(clock) > 250, "it was tried for all of that time"


def test_files_beside_ssh_are_private_and_gone_afterwards(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(openssh.KEY_VARIABLE, "canary-key")
    programs.add_script(
        "ssh",
        "import os, sys\n"
        "directory = os.path.dirname(sys.argv[2])\n"
        "modes = [os.stat(os.path.join(directory, name)).st_mode & 0o777 for name in os.listdir(directory)]\n"
        f"print('{openssh.MARK}')\n"
        "print(directory, oct(os.stat(directory).st_mode & 0o777), *map(oct, modes))\n",
    )
    directory, mode, *files = over_ssh.run(payload(last_line=None)).stdout.split()
    assert mode == "0o700" and set(files) == {"0o600"} and len(files) == 2
    assert not Path(directory).exists()


@pytest.mark.parametrize("number", some_quick([signal.SIGTERM, signal.SIGINT, signal.SIGKILL], signal.SIGTERM))
def test_an_interruption_ends_ssh_and_removes_the_keys(programs: Programs, tmp_path: Path, number: int) -> None:
    programs.add_script(
        "ssh",
        "import os, sys, time\n"
        f"with open('{tmp_path}/started.new', 'w') as file: file.write(str(os.getpid()))\n"
        f"os.rename('{tmp_path}/started.new', '{tmp_path}/started')\n"
        "time.sleep(600)\n",
    )
    process = programs.start("verification/scripts/prove_machine.py")
    assert process.stdin
    process.stdin.write('{"create": ' + scripting.encode(payload()) + "}")
    process.stdin.close()
    process.stdin = None
    while not (tmp_path / "started").exists():
        assert process.poll() is None
    process.send_signal(number)
    process.communicate()
    if number == signal.SIGKILL:  # nothing runs in a process that is killed; what runs beside it removes the keys
        while list(tmp_path.glob("istio-vm-mesh-*")):
            sleep(0.01)
        os.kill(int((tmp_path / "started").read_text()), number)
        return
    assert process.returncode == 128 + number
    assert not list(tmp_path.glob("istio-vm-mesh-*"))
    assert not Path(f"/proc/{(tmp_path / 'started').read_text()}/cmdline").exists()
