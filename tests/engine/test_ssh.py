"""Scripts over real SSH servers: how far they come, and that the operator's own OpenSSH is used."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from components import shell
from components.local import openssh, private_files, scripting
from components.local.openssh import Hop, Outcome, Target
from components.local.ssh_log import Reach
from components.names import SSH_KEY
from tests.support import namespace
from tests.support.process_watch import ProcessWatch
from tests.support.sshd import Sshd, key_pair, reserved_port, running
from tests.support.waiting import wait_until

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4PAGoNG2Yn3kXVSPFcGAGiqcXZNkHdHnzAlVnoUhS1"
Start = Callable[..., Sshd]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start SSH servers that end with the test."""
    with ExitStack() as stack:
        numbers = iter(range(100))

        def run(*options: str, **arguments: Any) -> Sshd:
            directory = tmp_path / f"sshd-{next(numbers)}"
            directory.mkdir()
            return stack.enter_context(running(directory, *options, **arguments))

        yield run


class Operator:
    """A person's OpenSSH: ~/.ssh/config and known_hosts, which the real client is given by `-F`."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self._monkeypatch = home, monkeypatch
        self._config, self._known = home / "config", home / "known_hosts"
        ssh = shutil.which("ssh")
        programs = home / "bin"
        programs.mkdir(parents=True)
        wrapper = programs / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {ssh} -F {self._config} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        self.config("")

    def config(self, text: str) -> None:
        """Write ~/.ssh/config."""
        lines = f"\nMatch all\n  UserKnownHostsFile {self._known}\n  GlobalKnownHostsFile /dev/null\n"
        self._config.write_text(text + lines)
        self._config.chmod(0o600)

    def know(self, pattern: str, key: str) -> None:
        """Add a line to known_hosts."""
        with self._known.open("a") as file:
            file.write(f"{pattern} {key}\n")

    @contextmanager
    def agent(self, key: Path, passphrase: str = "") -> Iterator[None]:
        """Run an agent that holds a key."""
        path = self.home / "agent"
        process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
        try:
            while not path.exists():
                assert process.poll() is None
            self._monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
            ask = self.home / "askpass"
            ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
            ask.chmod(0o755)
            answers = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
            subprocess.run(["ssh-add", "-q", key], env={**os.environ, **answers}, check=True)
            yield
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path / "home", monkeypatch)


def run(hop: Hop, *jumps: Hop, script: str | Callable[[], str] = "echo here\n", timeout_s: float = 120, **more: Any) -> Outcome:
    return openssh.run_script(Target("m-1", hop, jumps), script, timeout_s, **more)


def reach(hop: Hop, *jumps: Hop, **more: Any) -> Reach:
    return run(hop, *jumps, **more).reach


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose queue is full: connections to it time out, as to a machine that is off."""
    with socket.socket() as server, ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


# How far a script came


def test_a_script_that_ends_is_told_from_one_that_fails(sshd: Sshd) -> None:
    done = run(sshd.hop(), script="echo out; echo err >&2\n")
    assert (done.reach, done.status, done.stdout, done.stderr) == (Reach.DONE, 0, "out", "err")
    failed = run(sshd.hop(), script="echo why >&2; exit 3\n")
    assert (failed.reach, failed.status, failed.stderr) == (Reach.FAILED, 3, "why")


def test_a_script_that_fails_with_255_did_begin(sshd: Sshd) -> None:
    outcome = run(sshd.hop(), script="exit 255\n")
    assert outcome.began and outcome.reach in (Reach.CUT_OFF, Reach.FAILED)


def test_a_connection_that_ends_first_is_no_failure_of_the_script(sshd: Sshd) -> None:
    assert reach(sshd.hop(), script="kill -9 $PPID; sleep 60\n") is Reach.CUT_OFF


def test_a_script_that_takes_too_long_is_ended(sshd: Sshd) -> None:
    logins = sshd.log.read_text().count("Accepted publickey")

    def script() -> str:
        wait_until(lambda: sshd.log.read_text().count("Accepted publickey") > logins)
        return "echo begun\nsleep 60\n"

    outcome = run(sshd.hop(), script=script, timeout_s=10)
    assert (outcome.reach, outcome.stdout) == (Reach.TIMED_OUT, "begun")


@pytest.mark.parametrize("startup", ["exit 0", "exit 3", "exec true", "exec /nowhere", "exit 255"])
def test_a_login_shell_that_runs_something_else_is_told_apart(swallowing_sshd: Sshd, startup: str) -> None:
    swallowing_sshd.log.with_name("startup").write_text(f"echo Welcome; {startup}\n")
    outcome = run(swallowing_sshd.hop())
    assert outcome.reach is (Reach.CUT_OFF if startup == "exit 255" else Reach.NOT_BEGUN)


def test_a_server_without_sessions_is_named(start: Start) -> None:
    """As a jump host may be: `MaxSessions 0` permits to forward ports."""
    server, machine = start("MaxSessions 0"), start()
    outcome = run(server.hop())
    assert (outcome.reach, outcome.reason) == (Reach.NOT_BEGUN, "sshd opens no session (MaxSessions)")
    assert reach(machine.hop(), server.hop()) is Reach.DONE


def test_what_a_server_runs_in_place_of_a_script_is_shown_in_its_words(start: Start) -> None:
    outcome = run(start("ForceCommand echo 'for transfers only'").hop())
    assert (outcome.reach, outcome.reason) == (Reach.NOT_BEGUN, "for transfers only")
    home = "Could not chdir to home directory /home/x: No such file or directory"
    outcome = run(start(f"ForceCommand echo '{home}' >&2; echo 'not available'").hop())
    assert (outcome.reach, outcome.reason) == (Reach.NOT_BEGUN, "not available")


def test_a_dead_machine_is_told_from_one_that_refuses(sshd: Sshd, start: Start, silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bastion = start()
    with reserved_port() as closed:
        for jumps in ((), (bastion.hop(),), (bastion.hop(), sshd.hop())):
            assert reach(sshd.hop(port=closed), *jumps) is Reach.DEAD
    with monkeypatch.context() as shorter:
        shorter.setattr(openssh, "CONNECT_TIMEOUT_S", 5)
        for jumps in ((), (bastion.hop(),)):
            assert reach(sshd.hop(port=silent_port), *jumps) is Reach.DEAD
    for jumps in ((), (bastion.hop(),)):
        assert reach(sshd.hop(host="nowhere.invalid"), *jumps) is Reach.UNRESOLVED
        assert reach(sshd.hop(host_key=OTHER_KEY), *jumps) is Reach.HOST_KEY
        assert reach(sshd.hop(identity_file=str(bastion.identity_file)), *jumps) is Reach.LOGIN_REFUSED
        assert reach(sshd.hop(), *jumps) is Reach.DONE


def test_a_port_that_accepts_and_says_nothing_is_not_dead(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a machine runs, and its agent may."""
    monkeypatch.setattr(openssh, "CONNECT_TIMEOUT_S", 5)
    with socket.create_server(("127.0.0.1", 0), backlog=10) as server:
        for jumps in ((), (sshd.hop(),)):
            assert reach(sshd.hop(port=server.getsockname()[1]), *jumps) is Reach.BROKEN


def test_what_a_bastion_refuses_is_not_the_machines(sshd: Sshd, start: Start) -> None:
    other, closed_to_all = start(), start("AllowTcpForwarding no")
    limited = start(f"PermitOpen 127.0.0.1:{other.port}")
    with reserved_port() as closed:
        refused = {
            "dead": other.hop(port=closed),
            "another": other.hop(host_key=OTHER_KEY),
            "unresolved": other.hop(host="nowhere.invalid"),
            "a stranger": other.hop(identity_file=str(sshd.identity_file)),
            "no forwarding": closed_to_all.hop(),
            "other places": limited.hop(),
        }
        reasons = {name: run(sshd.hop(), bastion) for name, bastion in refused.items()}
        behind = {name: run(sshd.hop(), sshd.hop(), bastion) for name, bastion in refused.items()}
    for outcomes in (reasons, behind):
        assert {name: outcome.reach for name, outcome in outcomes.items()} == dict.fromkeys(refused, Reach.BASTION)
        assert all(outcome.reason.startswith(("jump host 127.0.0.1: ", "jump host nowhere")) for outcome in outcomes.values())
    assert "Connection refused" in reasons["dead"].reason
    assert "refused to forward" in reasons["no forwarding"].reason and "refused to forward" in reasons["other places"].reason


def test_a_server_that_accepts_no_more_connections_is_named_and_tried_again(start: Start) -> None:
    """Another client logs in at the same time, and `MaxStartups` is 1."""
    full, machine = start("MaxStartups 1", "LogLevel DEBUG"), start()
    hops = {"machine": (full.hop(),), "jump host": (machine.hop(), full.hop())}

    def is_full() -> bool:
        """The client that looked whether sshd is up may be there for a moment."""
        other = clients.enter_context(socket.create_connection(("127.0.0.1", full.port)))
        return other.recv(3) == b"SSH"

    with ExitStack() as clients:
        wait_until(is_full)
        refused = {name: run(*each) for name, each in hops.items()}
    assert {name: outcome.reach for name, outcome in refused.items()} == {"machine": Reach.BROKEN, "jump host": Reach.BASTION}
    causes = [openssh.explain(Target("m-1", hop, tuple(jumps)), refused[name], "join") for name, (hop, *jumps) in hops.items()]
    assert all("beyond its MaxStartups" in cause for cause in causes), causes
    assert {reach(*each, patience_s=60) for each in hops.values()} == {Reach.DONE}


PORT_22 = """
import json, sys
from pathlib import Path
from components.local import openssh
from components.local.openssh import Hop, Target
from tests.support import sshd

root, other = Path(sys.argv[1]), sys.argv[2]
(root / "server").mkdir()
with sshd.running(root / "server", port=22) as server:
    (root / "known_hosts").write_text("127.0.0.1 " + server.host_key)
    reach = lambda *hops: openssh.run_script(Target("m-1", hops[0], hops[1:]), "true\\n", 30).reach.name
    hop = server.hop
    openssh.run_script(Target("m-1", hop()), f"touch {root}/ran\\n", 30)
    print(json.dumps({
        "pinned": reach(hop()), "without a port": reach(hop(port=None)), "through itself": reach(hop(), hop()),
        "another key": reach(hop(host_key=other)), "another key of a bastion": reach(hop(), hop(host_key=other)),
        "by known_hosts": reach(hop(host_key=None, port=None)), "closed": reach(hop(port=23)),
        "without a network": reach(hop(host="192.0.2.7")),
    }))
"""


def test_keys_are_pinned_on_port_22_too_and_scripts_run_there(operator: Operator, tmp_path: Path) -> None:
    """OpenSSH looks up a host on port 22 by another name than one on any other port."""
    operator.config(f"Match all\n  UserKnownHostsFile {tmp_path}/known_hosts\n")
    assert json.loads(namespace.run_python(PORT_22, tmp_path, OTHER_KEY)) == {
        "pinned": "DONE", "without a port": "DONE", "through itself": "DONE", "another key": "HOST_KEY",
        "another key of a bastion": "BASTION", "by known_hosts": "DONE", "closed": "DEAD", "without a network": "UNRESOLVED",
    }  # fmt: skip
    assert (tmp_path / "ran").exists()


# Questions


def test_questions_are_answered_over_the_same_connection(sshd: Sshd) -> None:
    asked: list[str] = []

    def answer(words: str, _pause: object) -> str:
        asked.append(words)
        return f"yes {words}\n"

    before = sshd.log.read_text().count("Accepted publickey")
    main = "ask() { echo istio-vm-mesh: ask $*; read -r reply; echo got $reply; }\nask one two\nask three\nexit 4\n"
    padding = "# " + "x" * 50_000 + "\n"
    for script in (padding + shell.run_as_root(main), "{\n" + main + "}\n"):
        outcome = run(sshd.hop(), script=script, answer=answer)
        assert (outcome.reach, outcome.status, outcome.stdout) == (Reach.FAILED, 4, "got yes one two\ngot yes three")
    assert asked == ["one two", "three"] * 2
    assert sshd.log.read_text().count("Accepted publickey") - before == 2


def test_a_hardened_server_is_no_obstacle(start: Start, tmp_path: Path) -> None:
    banner = tmp_path / "banner"
    banner.write_text("Authorised use only\n")
    server = start("MaxSessions 1", "MaxAuthTries 1", "DisableForwarding yes", "PermitTTY no", f"Banner {banner}")
    script = shell.run_as_root("echo istio-vm-mesh: ask one\nread -r reply\necho $reply\n")
    outcome = run(server.hop(), script=script, answer=lambda _words, _pause: "yes")
    assert (outcome.reach, outcome.stdout, outcome.stderr) == (Reach.DONE, "yes", "")


def test_without_answers_the_script_reads_the_end_of_its_input(sshd: Sshd) -> None:
    script = shell.run_as_root("echo istio-vm-mesh: ask stop\nread -r reply || echo nothing\n")
    outcome = run(sshd.hop(), script=script)
    assert (outcome.reach, outcome.stdout) == (Reach.DONE, "istio-vm-mesh: ask stop\nnothing")


def test_an_answer_that_fails_ends_the_script(sshd: Sshd, tmp_path: Path) -> None:
    def answer(words: str, _pause: object) -> str:
        raise scripting.Failed(f"nobody answers {words}")

    script = f"{{\necho istio-vm-mesh: ask stop\nread -r reply && touch {tmp_path}/went-on\nexit\n}}\n"
    with pytest.raises(scripting.Failed, match="nobody answers stop"):
        run(sshd.hop(), script=script, answer=answer)
    wait_until(lambda: sshd.connections() == 0)
    assert not (tmp_path / "went-on").exists()


# The operator's own OpenSSH


def test_a_host_of_the_operators_configuration_is_all_that_is_needed(operator: Operator, start: Start) -> None:
    machine, bastion = start(), start()
    operator.config(
        f"Host billing\n  HostName 127.0.0.1\n  Port {machine.port}\n  IdentityFile {machine.identity_file}\n  ProxyJump jump\n"
        "  LocalForward 127.0.0.1:1 127.0.0.1:1\n  RemoteCommand false\n  RequestTTY force\n  ForwardAgent yes\n"
        f"  ControlMaster auto\n  ControlPath {operator.home}/c-%n\n  ControlPersist 60\n  StrictHostKeyChecking no\n"
        f"Host jump\n  HostName 127.0.0.1\n  Port {bastion.port}\n  IdentityFile {bastion.identity_file}\n"
    )
    billing = Hop("billing")
    operator.know(f"[127.0.0.1]:{bastion.port}", bastion.host_key)
    assert reach(billing) is Reach.HOST_KEY, "checked strictly, whatever the configuration says"
    operator.know(f"[127.0.0.1]:{machine.port}", machine.host_key)
    outcome = run(billing)
    assert (outcome.reach, outcome.stdout) == (Reach.DONE, "here")
    assert bastion.log.read_text().count("Accepted publickey") == 2
    # Options of the stack file take precedence.
    assert reach(Hop("billing", port=bastion.port)) is Reach.LOGIN_REFUSED
    assert reach(Hop("billing", host_key=OTHER_KEY)) is Reach.HOST_KEY


def test_a_refusal_of_the_operators_own_jump_host_is_told_apart(operator: Operator, start: Start, sshd: Sshd) -> None:
    bastion, limited = start(), start("AllowTcpForwarding no")
    with reserved_port() as closed:
        ports = {"good": bastion.port, "limited": limited.port, "dead": closed}
        keys = {"good": bastion, "limited": limited, "dead": bastion}
        operator.config(
            "".join(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {ports[name]}\n  IdentityFile {keys[name].identity_file}\n"
                "  StrictHostKeyChecking no\n"
                f"Host by-{name}\n  HostName 127.0.0.1\n  ProxyJump {name}\n"
                for name in ports
            )
        )
        assert reach(sshd.hop(host="by-good")) is Reach.DONE
        assert reach(sshd.hop(host="by-good", port=closed)) is Reach.DEAD
        assert reach(sshd.hop(host="by-limited")) is Reach.BASTION
        assert reach(sshd.hop(host="by-dead")) is Reach.BASTION
        assert reach(sshd.hop(host="by-good", host_key=OTHER_KEY)) is Reach.HOST_KEY
        assert reach(sshd.hop(host="by-good", identity_file=str(limited.identity_file))) is Reach.LOGIN_REFUSED


def test_a_pinned_key_holds_where_known_hosts_say_otherwise(operator: Operator, start: Start) -> None:
    machine, bastion = start(), start()
    for server in (machine, bastion):
        operator.know(f"[127.0.0.1]:{server.port}", OTHER_KEY)
    assert reach(machine.hop(), bastion.hop()) is Reach.DONE
    # Each hop is checked by its own option.
    any_key = {"host_key": None, "accept_any_host_key": True}
    assert reach(machine.hop(**any_key), bastion.hop()) is Reach.DONE
    assert reach(machine.hop(), bastion.hop(**any_key)) is Reach.DONE
    assert reach(machine.hop(**any_key), bastion.hop(host_key=OTHER_KEY)) is Reach.BASTION
    assert reach(machine.hop(**any_key), bastion.hop(host_key=None)) is Reach.BASTION
    assert reach(machine.hop(host_key=None), bastion.hop(**any_key)) is Reach.HOST_KEY


def test_a_connection_that_is_open_already_does_not_pass_a_pinned_key(operator: Operator, sshd: Sshd) -> None:
    control = operator.home / "c"
    operator.config(f"Host *\n  ControlPath {control}\n")
    words = ["ssh", "-o", "StrictHostKeyChecking=no", "-o", "ControlMaster=yes", "-N", "-i", str(sshd.identity_file)]
    master = subprocess.Popen([*words, "-p", str(sshd.port), "127.0.0.1"], stderr=subprocess.DEVNULL)
    try:
        while not control.exists():
            assert master.poll() is None
        assert reach(sshd.hop(host_key=OTHER_KEY)) is Reach.HOST_KEY
        assert reach(sshd.hop(host_key=None, identity_file=None)) is Reach.DONE, "the operator's own rules"
    finally:
        master.terminate()
        master.wait()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_keys_of_every_type_are_pinned_and_accepted(operator: Operator, start: Start, kind: str) -> None:
    server = start(kind=kind)
    assert reach(server.hop()) is Reach.DONE
    # A server with several keys is checked by the pinned one.
    other = key_pair(server.log.with_name("another"), "ecdsa" if kind != "ecdsa" else "rsa")
    two = start(f"HostKey {other}")
    pinned = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    assert reach(two.hop(host_key=pinned)) is Reach.DONE
    assert reach(start().hop(host_key=pinned)) is Reach.HOST_KEY, "a server without a key of this type"


def test_host_certificates_are_accepted_by_the_operators_authority(operator: Operator, start: Start, tmp_path: Path) -> None:
    authority = key_pair(tmp_path / "authority")
    server = start(f"HostCertificate {tmp_path}/sshd-0/host-cert.pub")
    assert reach(server.hop(host_key=None)) is Reach.HOST_KEY
    host = server.log.with_name("host.pub")
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "host", "-h", "-n", "127.0.0.1", host], check=True)
    certified = start(f"HostCertificate {host.with_name('host-cert.pub')}", f"HostKey {host.with_suffix('')}", kind="ecdsa")
    operator.know("@cert-authority *", authority.with_suffix(".pub").read_text())
    assert reach(certified.hop(host_key=None)) is Reach.DONE
    assert reach(certified.hop(host_key=server.host_key)) is Reach.DONE, "its pinned key counts without the authority"
    assert reach(certified.hop(host_key=OTHER_KEY)) is Reach.HOST_KEY, "the authority does not pass a pinned key"


def test_user_certificates_are_used(operator: Operator, start: Start, tmp_path: Path) -> None:
    authority, user = key_pair(tmp_path / "authority"), key_pair(tmp_path / "user")
    server = start(f"TrustedUserCAKeys {authority.with_suffix('.pub')}")
    hop = server.hop(identity_file=str(user))
    assert reach(hop) is Reach.LOGIN_REFUSED
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", server.user, user.with_suffix(".pub")], check=True)
    assert reach(hop) is Reach.DONE


def test_a_key_with_a_passphrase_is_used_by_its_agent(operator: Operator, start: Start, tmp_path: Path) -> None:
    server = start()
    key = key_pair(tmp_path / "locked", passphrase="long enough")
    public = server.identity_file.with_suffix(".pub")
    public.write_text(key.with_suffix(".pub").read_text())
    hop = server.hop(identity_file=str(key))
    assert reach(hop) is Reach.LOGIN_REFUSED
    with operator.agent(key, "long enough"):
        assert reach(hop) is Reach.DONE
        assert reach(server.hop(identity_file=None)) is Reach.DONE
        assert reach(server.hop(identity_file=None), server.hop(identity_file=None)) is Reach.DONE


def test_a_runner_in_ci_gives_the_key_by_its_environment(
    operator: Operator, start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = start()
    text = server.private_key
    monkeypatch.setenv(openssh.KEY_VARIABLE, text.strip().replace("\n", "\r\n"))
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    with ProcessWatch() as watch:
        for identity in (None, "~/.ssh/of-a-person", "state:o/p/s/identities/machines/m-1"):
            hop = server.hop(identity_file=identity)
            assert reach(hop, hop, script="sleep 0.2\n") is Reach.DONE
    canary = text.splitlines()[2].encode()
    lines = [line for line in watch.seen if canary in line and b"=" not in line.partition(b"\0")[0]]
    assert lines == [], "on a command line"
    wait_until(lambda: not list(private.glob("istio-vm-mesh-*/key")))


def test_the_key_of_the_stack_is_used_alone_and_its_lack_is_explained(
    operator: Operator, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start("LogLevel VERBOSE")
    generated = private_files.reference("organization/mesh/lab", SSH_KEY)
    hop = server.hop(identity_file=generated)
    with pytest.raises(scripting.Failed, match="the SSH key of the stack is not on this computer"):
        run(hop)
    private_files.write(generated, server.private_key)
    monkeypatch.setenv(openssh.KEY_VARIABLE, "another key")
    with operator.agent(key_pair(operator.home / "mine")):
        assert reach(hop) is Reach.DONE
    assert "Failed publickey" not in server.log.read_text()


def test_a_key_that_a_stack_file_names_is_found_by_its_link(operator: Operator, start: Start) -> None:
    server = start()
    link = private_files.reference("organization/mesh/lab", private_files.IDENTITIES, "machines", "m-1")
    hop = server.hop(identity_file=link)
    assert reach(hop) is Reach.LOGIN_REFUSED, "ssh's own keys"
    private_files.link(link, server.identity_file)
    assert reach(hop) is Reach.DONE
    private_files.link(link, None)
    assert reach(hop) is Reach.LOGIN_REFUSED


def test_a_login_that_is_refused_is_not_repeated(sshd: Sshd, start: Start) -> None:
    """Servers ban addresses for it."""
    server = start()
    hop = server.hop(identity_file=str(sshd.identity_file))
    assert reach(hop, patience_s=60) is Reach.LOGIN_REFUSED
    # The server writes it after the client has ended.
    closed = "Connection closed by authenticating user"
    wait_until(lambda: closed in server.log.read_text())
    assert server.log.read_text().count(closed) == 1


@pytest.mark.parametrize("evil", ["-oProxyCommand=touch PWNED", "$(touch PWNED)", "`touch PWNED`", "a;touch PWNED", "a'\"; touch PWNED #"])
def test_no_text_reaches_a_shell(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    """Also where a program's records were never checked."""
    monkeypatch.chdir(tmp_path)
    for hop in (sshd.hop(host=evil), sshd.hop(user=evil), sshd.hop(identity_file=evil)):
        for hops in ((hop,), (sshd.hop(), hop), (sshd.hop(), hop, hop)):
            with suppress(scripting.Failed):
                run(*hops)
    assert not (tmp_path / "PWNED").exists()


def test_a_new_connection_is_no_session_of_one_that_is_open(start: Start, operator: Operator) -> None:
    """A session of an open connection reaches a machine that no new connection reaches."""
    server, path = start(), operator.home / "m"
    operator.know(f"[127.0.0.1]:{server.port}", server.host_key)
    operator.config(f"Match host 127.0.0.1\n  ControlPath {path}\n")
    words = ["-p", str(server.port), "-i", str(server.identity_file), "127.0.0.1"]
    with subprocess.Popen(["ssh", "-M", "-N", *words]) as master:
        try:
            wait_until(path.exists)
            hop = server.hop(host_key=None)
            logins = [server.log.read_text().count("Accepted publickey")]
            for is_new in (False, True):
                assert reach(hop, new_connection=is_new) is Reach.DONE
                logins.append(server.log.read_text().count("Accepted publickey"))
        finally:
            master.terminate()
    assert logins == [1, 1, 2]
