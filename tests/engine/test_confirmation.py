"""A join over a real sshd, with the real scripts, is confirmed by a second connection, or is taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.local import scripting
from components.machines.scripts import join_machine
from tests.support import confirmed_join, namespace
from tests.support.confirmed_join import Joined
from tests.support.sshd import Sshd


@pytest.fixture
def joined(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Joined]:
    with confirmed_join.prepared(sshd, tmp_path, monkeypatch) as joined:
        yield joined


def test_a_join_is_confirmed_by_a_second_login(joined: Joined) -> None:
    before = joined.logins()
    assert joined.run() == join_machine.Result(joined.digest)
    assert (joined.logins() - before, joined.machine.active) == (2, "good-1")
    joined.wait_until_idle()
    before = joined.logins()
    joined.run()
    assert joined.logins() - before == 1, "a join that restarts nothing needs no second one"


def test_logins_that_depend_on_what_the_mesh_keeps_out_are_not_lost(joined: Joined) -> None:
    joined.run()
    before = joined.machine.tree()
    joined.change()
    joined.when_the_agent_starts(f"mv {joined.authorised} {joined.authorised}.kept", f"mv {joined.authorised}.kept {joined.authorised}")
    with pytest.raises(scripting.Failed, match=r"a second SSH connection to it failed.*refused the login") as error:
        joined.run()
    assert str(error.value).endswith("; the machine runs as before")
    assert (joined.machine.tree(), joined.machine.active) == (before, "good-1")


def test_a_machine_whose_runner_dies_is_what_it_was(joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ssh is killed, as with the computer, while the machine waits for the second connection."""
    joined.run()
    before = joined.machine.tree()
    joined.change()
    monkeypatch.setattr(join_machine._Join, "_confirm", lambda _join, _nonce: joined.end_clients())
    with pytest.raises(scripting.Failed, match=r"the join at .* ended with status -9"):
        joined.run()
    joined.wait_until_idle()
    assert (joined.machine.tree(), joined.machine.active) == (before, "good-1")


REDIRECTED = """
import sys, pytest, json
from pathlib import Path
from tests.support import confirmed_join, sshd
directory = Path(sys.argv[1])
with pytest.MonkeyPatch.context() as patch, sshd.running(directory, port=2222) as server:
    with confirmed_join.prepared(server, directory, patch) as joined:
        rule = "add rule ip test output tcp dport 2222 redirect to :15006"
        begin = f"nft 'add table ip test; add chain ip test output {{ type nat hook output priority -100; }}; {rule}'"
        joined.when_the_agent_starts(begin, "nft delete table ip test")
        joined.within(10)
        try:
            joined.run()
            error = ""
        except Exception as raised:
            error = str(raised)
        joined.wait_until_idle()
        print(json.dumps({"error": error, "left": joined.machine.mesh_paths(), "reached": joined.can_log_in()}))
"""


def test_a_port_of_ssh_that_is_redirected_locks_nobody_out(tmp_path: Path) -> None:
    """The connection of the join lives on, and every new one would reach Envoy."""
    result = json.loads(namespace.run_python(REDIRECTED, tmp_path).splitlines()[-1])
    assert "a second SSH connection to it failed" in result["error"]
    assert "; nothing of the join is left on the machine" in result["error"]
    assert (result["left"], result["reached"]) == ([], True)
