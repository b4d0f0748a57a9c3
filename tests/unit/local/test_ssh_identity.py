"""Keys that ssh could not use in an update are named before it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.local import ssh_identity
from tests.support.sshd import key_pair
from tests.support.tiers import some_quick

PASSPHRASE = "long enough"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """An agent of OpenSSH without keys: the path of its socket."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    while not path.exists():
        assert process.poll() is None
    yield path
    process.terminate()
    process.wait()


def problem(path: Path | str) -> str:
    ssh_identity.problem.cache_clear()
    return ssh_identity.problem(str(path), "billing.example.com")


@pytest.mark.parametrize("kind", some_quick(["ed25519", "rsa", "ecdsa"], "ed25519"))
def test_a_key_without_a_passphrase_is_good(tmp_path: Path, kind: str) -> None:
    assert problem(key_pair(tmp_path / "key", kind)) == ""


@pytest.mark.slow
def test_a_key_in_the_older_format_is_good_or_needs_its_passphrase(tmp_path: Path) -> None:
    for name, passphrase, expected in (("open", "", ""), ("locked", PASSPHRASE, "needs a passphrase")):
        words = ["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", passphrase, "-f", str(tmp_path / name)]
        subprocess.run(words, check=True)
        (tmp_path / f"{name}.pub").unlink()
        assert expected in problem(tmp_path / name)


def test_files_that_are_no_private_keys_are_told_apart(tmp_path: Path) -> None:
    key = key_pair(tmp_path / "key")
    assert problem(f"{key}.pub") == f"{key}.pub is a public key, and no agent has its private key: name {key}"
    assert problem(tmp_path / "none") == f"cannot read {tmp_path}/none: No such file or directory"
    assert problem(tmp_path) == f"cannot read {tmp_path}: Is a directory"
    text = tmp_path / "text"
    text.write_text("a host name\n")
    text.chmod(0o600)
    assert problem(text) == f"{text} is not a private key that ssh can read"
    key.chmod(0o644)
    assert problem(key) == f"other users can read {key}, so ssh refuses it: run `chmod 600 {key}`"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", ": it is a key of PuTTY, convert it"),
        ("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", ": it is a public key, name the private one"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", ": it is a public key, name the private one"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n", ": it is a certificate, name its private key"),
        ("", ""),
    ],
)
def test_a_file_of_another_kind_is_named_by_its_kind(tmp_path: Path, text: str, kind: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(0o600)
    assert problem(file).startswith(f"{file} is not a private key that ssh can read{kind}")


def test_a_passphrase_is_the_agents(tmp_path: Path, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_pair(tmp_path / "key", passphrase=PASSPHRASE)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    assert problem(key) == f"{key} needs a passphrase, and no agent has the key: run `ssh-add {key}` first"
    ask = tmp_path / "askpass"
    ask.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    ask.chmod(0o755)
    answers = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    subprocess.run(["ssh-add", "-q", key], env={**os.environ, **answers}, check=True)
    assert problem(key) == ""
    assert problem(f"{key}.pub") == "", "the agent has its private key"


def test_the_agent_of_the_operators_configuration_counts(tmp_path: Path, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_pair(tmp_path / "key")
    subprocess.run(["ssh-add", "-q", key], env={**os.environ, "SSH_AUTH_SOCK": str(agent)}, check=True)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    programs = tmp_path / "bin"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f"#!/bin/sh\n[ \"$*\" = '-G -- billing.example.com' ] && echo 'identityagent {agent}'\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert problem(f"{key}.pub") == ""


@pytest.mark.slow
def test_the_text_of_a_key_is_checked_too(tmp_path: Path) -> None:
    text = key_pair(tmp_path / "key").read_text()
    assert ssh_identity.text_problem(text) == ssh_identity.text_problem(text.strip().replace("\n", "\r\n")) == ""
    assert "with its line breaks" in ssh_identity.text_problem(text.replace("\n", " "))
    locked = key_pair(tmp_path / "locked", passphrase=PASSPHRASE).read_text()
    assert "has a key with a passphrase" in ssh_identity.text_problem(locked)
