"""No text of a stack file reaches ssh or a shell as anything but a host, a user, a key or a path."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from components import config
from components.config import reader
from components.config.existing import Bastion, SshMachine
from components.config.problems import SettingsError

HOSTILE = [
    "-oProxyCommand=touch x",
    "$(touch x)",
    "`touch x`",
    "a; touch x",
    "a | touch x",
    "a && touch x",
    "a > x",
    "a' b",
    'a" b',
    "a\nProxyCommand touch x",
    "a\rb",
    "a\tb",
    "a\0b",
    "%h",
    "${HOME}",
    "a\\",
    "",
]
# A path may hold what a shell reads otherwise: it is quoted (tests/engine/test_ssh.py).
PATHS = {"`touch x`", "a; touch x", "a | touch x", "a && touch x", "a > x", "a' b"}


def texts(record: type[Any]) -> list[str]:
    """Return the keys of a record that hold text."""
    fields = record.model_fields.values()
    return [
        field.alias
        for field in fields
        if field.annotation in (str, str | None) and "\0" not in field.alias
    ]


def with_value(*path: str, value: str) -> dict[str, Any]:
    raw = reader.read_file("existing")
    changed = place = copy.deepcopy(raw)
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_text_is_refused_in_every_text_of_an_ssh_server(value: str) -> None:
    machine = [("machines", "billing-2", key) for key in texts(SshMachine)]
    bastion = [("machines", "billing-2", "bastion", key) for key in texts(Bastion)]
    assert {path[-1] for path in (*machine, *bastion)} >= {
        "host",
        "user",
        "hostKey",
        "privateKey",
        "address",
    }
    for path in (*machine, *bastion):
        if path[-1] == "privateKey" and value in PATHS:
            continue
        with pytest.raises(SettingsError) as raised:
            config.load(with_value(*path, value=value))
        assert any(".".join(path) in str(problem) for problem in raised.value.problems), path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", "10.11.0.6"),
        ("host", "billing.example.com"),
        ("host", "billing_2"),
        ("host", "fd00::1"),
        ("host", "fe80::1%eth0"),
        ("user", "admin@example.com"),
        ("user", "EXAMPLE\\admin"),
        ("user", "first.last"),
        ("privateKey", "~/.ssh/id_ed25519"),
        ("privateKey", "/home/me/my keys/id"),
    ],
)
def test_names_that_people_have_are_taken(key: str, value: str) -> None:
    config.load(with_value("machines", "billing-2", "bastion", key, value=value))
