"""What is run beside Pulumi for machines: the stack's key, and the end of a machine in the mesh."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from components.local import openssh, scripting
from components.machines.scripts import create_ssh_key, drain
from tests.support.fake_programs import Programs

TARGET = openssh.Target("product-1", openssh.Hop("192.0.2.7", 22, "admin", "ssh-ed25519 AAAA"))
LEAVE = drain.Leave(TARGET, "echo left\n", required=True)
PAYLOAD = drain.Payload("canary-kubeconfig", "shop", "product-192.0.2.7-pods", 5, LEAVE)
BEGUN = f"{openssh.MARK}\n"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    passed: list[float] = []
    monkeypatch.setattr(drain, "sleep", passed.append)
    return passed


def test_a_key_pair_is_made(programs: Programs) -> None:
    programs.add_script(
        "ssh-keygen",
        "import sys\n"
        "open(sys.argv[-1], 'w').write('PRIVATE\\n')\n"
        "open(sys.argv[-1] + '.pub', 'w').write('ssh-ed25519 AAAA ' + sys.argv[sys.argv.index('-C') + 1] + '\\n')\n",
    )
    pair = create_ssh_key.run(create_ssh_key.Payload("mesh"))
    assert pair == create_ssh_key.Result("PRIVATE\n", "ssh-ed25519 AAAA mesh")


def test_the_entry_goes_first_then_requests_end_then_the_machine_leaves(
    programs: Programs, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("kubectl", ("", 0, "workloadentry.networking.istio.io/product-192.0.2.7-pods\n", ""))
    programs.add("ssh", ("", 0, BEGUN, ""))
    drain.run(PAYLOAD)
    assert [call.words[0] for call in programs.calls()] == ["kubectl", "ssh"]
    kubectl = programs.calls("kubectl")[0]
    assert "delete workloadentry product-192.0.2.7-pods --namespace shop --ignore-not-found" in kubectl.line
    assert kubectl.files == ("canary-kubeconfig",)
    assert pauses == [5]
    assert capsys.readouterr().err == ""


def test_nothing_is_waited_for_where_there_was_no_entry(programs: Programs, pauses: list[float]) -> None:
    programs.add("kubectl")
    drain.run(replace(PAYLOAD, leave=None))
    assert pauses == []
    assert not programs.calls("ssh"), "a machine that is shut down leaves by its unit"


@pytest.mark.parametrize("kubectl", [True, False])
def test_an_api_server_that_does_not_answer_holds_nothing_up(programs: Programs, capsys: pytest.CaptureFixture[str], kubectl: bool) -> None:
    if kubectl:
        programs.add("kubectl", ("", 1, "", "Unable to connect to the server: timeout\n"))
    programs.add("ssh", ("", 0, BEGUN, ""))
    drain.run(PAYLOAD)
    assert programs.calls("ssh")
    message = capsys.readouterr().err
    assert "WorkloadEntry shop/product-192.0.2.7-pods was not deleted first" in message
    assert ("timeout" if kubectl else "kubectl is not on PATH") in message


REFUSED = "ssh: connect to host 192.0.2.7 port 22: Connection refused"


def test_a_dead_machine_is_let_go_and_reported(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    programs.add("kubectl")
    programs.add("ssh", ("", 255, "", REFUSED))
    drain.run(PAYLOAD)
    message = capsys.readouterr().err
    assert "machine product-1 was not reached at admin@192.0.2.7 (Connection refused)" in message
    assert len(programs.calls("ssh")) == 1, "one attempt"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((3, BEGUN, "machine product-1: no root"), r"did not leave the mesh \(status 3\)"),
        ((0, "Welcome\n", ""), "the login shell of admin@192.0.2.7 ran nothing of the leave"),
        ((255, "", "Host key verification failed."), "does not have the pinned key"),
        ((255, "", "admin@192.0.2.7: Permission denied (publickey)."), "refused the login"),
        ((255, "", "Connection closed by 192.0.2.7 port 22"), "SSH did not reach"),
        ((255, BEGUN, "Connection reset"), "may not have left the mesh: the SSH connection to admin@192.0.2.7 ended before"),
        ((124, BEGUN, ""), r"did not leave the mesh \(status 124\)"),  # as timeout(1) on the machine ends it
    ],
)
def test_a_machine_that_answers_and_does_not_leave_is_an_error(
    programs: Programs, capsys: pytest.CaptureFixture[str], answer: tuple[int, str, str], problem: str
) -> None:
    programs.add("kubectl")
    programs.add("ssh", ("", *answer))
    with pytest.raises(scripting.Failed, match=problem):
        drain.run(PAYLOAD)
    drain.run(replace(PAYLOAD, leave=replace(LEAVE, required=False)))
    assert re.search(problem, capsys.readouterr().err), "where the machine is removed anyway"
