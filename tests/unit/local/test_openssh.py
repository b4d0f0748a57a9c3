"""Scripts on machines by OpenSSH: what ssh is given, when it is tried again, and what counts as done."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from time import sleep

import pytest

from components.local import openssh, over_ssh, scripting
from tests.support.fake_programs import Programs

KEY = "canary-private-key"
HOP = openssh.Hop("192.0.2.7", 22, "admin", KEY, "ssh-ed25519 AAAA")
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
    assert call.words[-2:] == ("machine", "bash -s")
    assert call.stdin == f"printf '\\n%s\\n' '{openssh.MARK}'\necho abc\n"


@pytest.mark.parametrize("status", [0, 1, 127])
def test_a_login_shell_that_runs_nothing_fails_the_join(programs: Programs, status: int) -> None:
    programs.add("ssh", ("", status, "Welcome!\n", ""))
    with pytest.raises(scripting.Failed, match=r"the login shell of admin@192.0.2.7 ran nothing of the join"):
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
    with pytest.raises(scripting.Failed, match=r"Connection refused\nmachine product-1: SSH did not reach admin@192.0.2.7"):
        over_ssh.run(payload(patience_s=10))
    assert len(programs.calls("ssh")) == 6
    assert sum(no_pauses) == 10


@pytest.mark.parametrize("reason", ["Connection timed out", "admin@192.0.2.7: Permission denied (publickey)."])
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


def configuration(programs: Programs, target: openssh.Target) -> str:
    """Return the configuration that ssh was given."""
    programs.add("ssh", ("", 0, f"{BEGUN}abc\n", ""))
    over_ssh.run(payload(target=target))
    call = programs.calls("ssh")[-1]
    assert call.words[1] == "-F"
    return call.files[0]


def block(text: str, host: str) -> dict[str, str]:
    """Return the options of one host."""
    lines = text.partition(f"Host {host}\n")[2].partition("Host ")[0].splitlines()
    return {name: value for name, _, value in (line.strip().partition(" ") for line in lines)}


def test_a_pinned_host_key_is_looked_up_by_an_alias_on_any_port(programs: Programs, tmp_path: Path) -> None:
    for port in (22, 2222):
        options = block(configuration(programs, replace(TARGET, hop=replace(HOP, port=port))), "machine")
        assert options["Port"] == str(port)
        assert (options["HostKeyAlias"], options["StrictHostKeyChecking"]) == ("machine", "yes")


def test_any_host_key_is_accepted_only_where_the_stack_says_so(programs: Programs) -> None:
    options = block(configuration(programs, replace(TARGET, hop=replace(HOP, host_key=None))), "machine")
    assert options["StrictHostKeyChecking"] == "no"


def test_a_bastion_has_options_of_its_own(programs: Programs) -> None:
    bastion = openssh.Hop("bastion.example.com", 2200, "jump", "another-key", "ssh-rsa BBBB")
    text = configuration(programs, replace(TARGET, bastion=bastion))
    machine, jump = block(text, "machine"), block(text, "bastion")
    assert machine["ProxyCommand"].endswith("/config -W '[%h]:%p' bastion")
    assert (jump["HostName"], jump["Port"], jump["User"]) == ('"bastion.example.com"', "2200", '"jump"')
    assert jump["HostKeyAlias"] == "bastion"
    assert jump["IdentityFile"] != machine["IdentityFile"]


def test_nothing_of_the_operators_own_is_used(programs: Programs) -> None:
    options = block(configuration(programs, TARGET), "machine")
    assert (options["IdentityAgent"], options["IdentitiesOnly"], options["BatchMode"]) == ("none", "yes", "yes")


@pytest.mark.parametrize("host", ['a" ProxyCommand "x', "a\nb", ""])
def test_a_host_cannot_become_an_option(programs: Programs, host: str) -> None:
    programs.add("ssh")
    with pytest.raises(scripting.Failed, match=r"neither a host nor a user"):
        over_ssh.run(payload(target=replace(TARGET, hop=replace(HOP, host=host))))


def test_files_with_keys_are_private_and_gone_afterwards(programs: Programs, tmp_path: Path) -> None:
    programs.add_script(
        "ssh",
        "import os, sys\n"
        "directory = os.path.dirname(sys.argv[2])\n"
        "modes = [os.stat(os.path.join(directory, name)).st_mode & 0o777 for name in os.listdir(directory)]\n"
        f"print('{openssh.MARK}')\n"
        "print(directory, oct(os.stat(directory).st_mode & 0o777), *map(oct, modes))\n",
    )
    directory, mode, *files = over_ssh.run(payload(last_line=None)).stdout.split()
    assert mode == "0o700" and set(files) == {"0o600"} and len(files) == 3
    assert not Path(directory).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interruption_ends_ssh_and_removes_the_keys(programs: Programs, tmp_path: Path, number: int) -> None:
    programs.add_script(
        "ssh",
        "import os, sys, time\n"
        f"with open('{tmp_path}/started.new', 'w') as file: file.write(str(os.getpid()))\n"
        f"os.rename('{tmp_path}/started.new', '{tmp_path}/started')\n"
        "time.sleep(60)\n",
    )
    process = programs.start("local/over_ssh.py")
    assert process.stdin
    process.stdin.write('{"create": ' + scripting.encode(payload()) + "}")
    process.stdin.close()
    process.stdin = None
    while not (tmp_path / "started").exists():
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=30)
    if number == signal.SIGKILL:  # nothing runs in a process that is killed; what runs beside it removes the keys
        while list(tmp_path.glob("istio-vm-mesh-*")):
            sleep(0.01)
        os.kill(int((tmp_path / "started").read_text()), number)
        return
    assert process.returncode == 128 + number
    assert not list(tmp_path.glob("istio-vm-mesh-*"))
    assert not Path(f"/proc/{(tmp_path / 'started').read_text()}/cmdline").exists()
