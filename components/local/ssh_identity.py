"""Checks a private key before it is needed: ssh cannot prompt for a passphrase in an update."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path

from . import scripting

_SECONDS = 10
_OTHER_KINDS = {
    b"PuTTY-User-Key-File": "a key of PuTTY, convert it (puttygen KEY -O private-openssh -o NEW)",
    b"BEGIN PUBLIC KEY": "a public key, name the private one",
    b"BEGIN RSA PUBLIC KEY": "a public key, name the private one",
    b"BEGIN SSH2 PUBLIC KEY": "a public key, name the private one",
    b"BEGIN CERTIFICATE": "a certificate, name its private key",
}


@cache
def problem(path: str, host: str) -> str:
    """Return why ssh cannot log in with the key file of a host; "" where it can.

    path: of the private key; `~` is the user's home.
    host: for the agent that ~/.ssh/config names for it.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_bytes()
        mode = file.stat()
    except OSError as error:
        return f"cannot read {file}: {error.strerror}"
    if _is_public(text):
        return "" if _agent_has(file, host) else _public_problem(file)
    if mode.st_uid == os.geteuid() and stat.S_IMODE(mode.st_mode) & 0o077:
        return f"other users can read {file}, so ssh refuses it: run `chmod 600 {file}`"
    if scripting.call(_open_words(file), timeout_s=_SECONDS).status == 0:
        return ""
    if _agent_has(file, host):
        return ""
    if _fingerprint(file) or b"ENCRYPTED" in text:
        return f"{file} needs a passphrase, and no agent has the key: run `ssh-add {file}` first"
    return f"{file} is not a private key that ssh can read{_kind(text)}"


@cache
def text_problem(text: str) -> str:
    """Return why ssh cannot use the text of a private key; "" where it can."""
    with scripting.private_directory() as directory:
        file = directory / "key"
        scripting.write_private(file, text.replace("\r\n", "\n").rstrip("\n") + "\n")
        if scripting.call(_open_words(file), timeout_s=_SECONDS).status == 0:
            return ""
        if _fingerprint(file) or "ENCRYPTED" in text:
            return "has a key with a passphrase: give one without, or run an agent"
    return "has no private key that ssh can read: give the text of the file, with its line breaks"


def _open_words(file: Path) -> list[str]:
    """Return the command that succeeds for a private key without a passphrase."""
    return ["ssh-keygen", "-y", "-P", "", "-f", str(file)]


def _public_problem(file: Path) -> str:
    private = file.with_suffix("") if file.suffix == ".pub" else None
    fix = f"name {private}" if private else "name the private key"
    return f"{file} is a public key, and no agent has its private key: {fix}"


def _is_public(text: bytes) -> bool:
    words = text.split(None, 2)
    return len(words) > 1 and words[0].startswith((b"ssh-", b"ecdsa-", b"sk-"))


def _kind(text: bytes) -> str:
    """Return what a file is that people take for a private key, and the fix; "" for others."""
    for begin, kind in _OTHER_KINDS.items():
        if begin in text[:200]:
            return f": it is {kind}"
    return ": its lines end with CR LF, convert them to LF" if b"PRIVATE KEY-----\r\n" in text else ""


def _fingerprint(file: Path) -> str:
    """Return the fingerprint of a key file; "" where its public half cannot be read."""
    words = ["ssh-keygen", "-l", "-f", str(file)]
    fields = scripting.call(words, timeout_s=_SECONDS).text.split()
    return fields[1] if len(fields) > 1 else ""


def _agent_has(file: Path, host: str) -> bool:
    fingerprint = _fingerprint(file)
    listed = scripting.call(["ssh-add", "-l"], timeout_s=_SECONDS, environment=_agent(host))
    return bool(fingerprint) and fingerprint in listed.text.split()


def _agent(host: str) -> dict[str, str]:
    """Return the environment for the agent that ssh uses for a host."""
    resolved = scripting.call(["ssh", "-G", "--", host], timeout_s=_SECONDS).text
    for line in resolved.splitlines():
        name, _, value = line.partition(" ")
        if name == "identityagent" and value not in ("none", "SSH_AUTH_SOCK"):
            value = value.strip('"')
            socket = os.environ.get(value[1:], "") if value.startswith("$") else value
            return {"SSH_AUTH_SOCK": os.path.expanduser(socket)}
    return {}
