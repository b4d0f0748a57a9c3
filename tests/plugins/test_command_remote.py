"""`command:remote:Command` on the real engine, against a real sshd."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi_command import remote

from tests.support.cli_stack import Stack
from tests.support.sshd import Sshd, reserved_port
from tests.support.waiting import wait_until


def to(sshd: Sshd, **changes: Any) -> remote.ConnectionArgs:
    settings = {
        "host": "127.0.0.1",
        "port": sshd.port,
        "user": sshd.user,
        "private_key": sshd.private_key,
        "host_key": sshd.host_key,
        "dial_error_limit": 1,
    }
    return remote.ConnectionArgs(**{**settings, **changes})


def test_life_of_a_remote_command(commands: Stack, sshd: Sshd, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def program(word: str) -> None:
        remote.Command(
            "converges",
            connection=to(sshd),
            create=f"cat > {tmp_path}/received; echo {word} | tee -a {log}; echo aside >&2",
            delete=f"echo deleted >> {log}",
            stdin=pulumi.Output.secret("x" * 200_000 + word),
            add_previous_output_in_env=False,
        )
        remote.Command("defaults", connection=remote.ConnectionArgs(host="127.0.0.1", private_key=sshd.private_key))

    assert commands.preview(lambda: program("one")).changes() == {"create": 3}
    assert not log.exists()
    commands.up(lambda: program("one"))
    outputs = commands.resources()["converges"]["outputs"]
    assert (outputs["stdout"], outputs["stderr"]) == ("one", "aside")
    assert (tmp_path / "received").stat().st_size == 200_003
    wait_until(lambda: sshd.connections() == 0)
    assert commands.files_with(sshd.private_key.splitlines()[3]) == []

    assert commands.up(lambda: program("one")).changes() == {"unchanged": 3}
    commands.up(lambda: program("two"))
    commands.destroy()
    assert log.read_text().split() == ["one", "two", "deleted"]


def test_a_failing_remote_command_says_how_it_ended(commands: Stack, sshd: Sshd) -> None:
    def program() -> None:
        remote.Command("fails", connection=to(sshd), create="echo on its way; exit 7", logging=remote.Logging.NONE)

    assert 'Process exited with status 7: running "echo on its way; exit 7":\n' in commands.up(program, fails=True).output
    assert commands.resources() == {}


def test_another_host_key_is_refused(commands: Stack, sshd: Sshd, tmp_path: Path) -> None:
    for kind in ("ed25519", "ecdsa"):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / kind], check=True)

    def program() -> None:
        for kind in ("ed25519", "ecdsa"):
            key = (tmp_path / f"{kind}.pub").read_text()
            remote.Command(kind, connection=to(sshd, host_key=key, dial_error_limit=0), create=f"touch {tmp_path}/ran", stdin="x")

    output = commands.up(program, fails=True).output
    assert "host key mismatch" in output, "the other key of the same type"
    assert sorted(commands.resources()) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.standin
def test_a_server_that_does_not_answer(commands: Stack, sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    stranger = (tmp_path / "other").read_text()
    with socket.create_server(("127.0.0.1", 0)) as silent, reserved_port() as closed:
        port = silent.getsockname()[1]

        def program() -> None:
            remote.Command("closed", connection=to(sshd, port=closed, dial_error_limit=2), create="true")
            remote.Command("silent", connection=to(sshd, port=port, per_dial_timeout=1, dial_error_limit=0), create="true")
            remote.Command("stranger", connection=to(sshd, private_key=stranger), create="true")
            remote.Command("key", connection=to(sshd, private_key="nonsense"), create="true")

        output = commands.up(program, fails=True).output
    assert "after 2 failed attempts: connection refused" in output
    assert "Dial 1/2 failed: retrying (connection refused)" in output
    assert f"{port} by SSH: after 0 failed attempts: " in output
    assert "the server does not accept the login" in output
    assert "`privateKey` is no Ed25519, ECDSA or RSA key" in output


@pytest.mark.standin
def test_connection_is_checked_in_the_preview(commands: Stack) -> None:
    def program() -> None:
        remote.Command("keyless", connection=remote.ConnectionArgs(host="h"), create="true")

    assert "needs `privateKey` or `password`" in commands.preview(program, fails=True).output


def test_unknown_host_in_a_preview(commands: Stack, sshd: Sshd) -> None:
    def program() -> None:
        first = remote.Command("first", connection=to(sshd), create="echo 127.0.0.1")
        second = remote.Command("second", connection=to(sshd, host=first.stdout), create="echo reached")
        pulumi.export("reached", second.stdout)

    assert commands.preview(program).changes() == {"create": 3}
    assert 'reached: "reached"' in commands.up(program).output


def test_environment_needs_the_server_to_accept_it(commands: Stack, sshd: Sshd) -> None:
    def program(word: str, **environment: str) -> None:
        remote.Command("accepted", connection=to(sshd), create=f"echo $LAB_WORD {word}", environment={"LAB_WORD": "w"})
        remote.Command("refused", connection=to(sshd), create="true", environment=environment)

    commands.up(lambda: program("one"))
    assert commands.resources()["accepted"]["outputs"]["stdout"] == "w one"
    result = commands.up(lambda: program("two", OTHER="x"), fails=True)
    assert "OTHER" in result.output
    assert commands.resources()["accepted"]["outputs"]["stdout"] == "w two"


def test_through_a_proxy(commands: Stack, sshd: Sshd) -> None:
    proxy = remote.ProxyConnectionArgs(
        host="127.0.0.1", port=sshd.port, user=sshd.user, private_key=sshd.private_key, host_key=sshd.host_key
    )

    def program() -> None:
        remote.Command("behind", connection=to(sshd, proxy=proxy), create="echo reached")

    commands.up(program)
    assert commands.resources()["behind"]["outputs"]["stdout"] == "reached"
    wait_until(lambda: sshd.connections() == 0)


def test_machine_that_comes_up_while_dialling(commands: Stack, sshd: Sshd) -> None:
    """The retries bridge the time until sshd listens: a relay to it appears after half a second."""

    def relay(port: int) -> None:
        with socket.create_server(("127.0.0.1", port)) as server:
            client, _ = server.accept()
            with client, socket.create_connection(("127.0.0.1", sshd.port)) as behind:
                back = threading.Thread(target=_copy, args=(behind, client), daemon=True)
                back.start()
                _copy(client, behind)
                back.join()

    with reserved_port() as port:
        timer = threading.Timer(0.8, relay, [port])
        timer.daemon = True
        timer.start()
        connection = to(sshd, port=port, dial_error_limit=10)
        commands.up(lambda: remote.Command("patient", connection=connection, create="echo reached"))
        timer.join(10)
    assert commands.resources()["patient"]["outputs"]["stdout"] == "reached"


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
