"""Scripts on Compute Engine machines through Identity-Aware Proxy: the operator's ssh, gcloud and a real sshd."""

from __future__ import annotations

from typing import Any

import pytest

from components.local import openssh
from components.local.openssh import Outcome, Target
from components.local.ssh_log import Reach
from tests.support.google_fakes.clients import Google
from tests.support.processes import processes
from tests.support.sshd import Sshd
from tests.support.waiting import wait_until

INSTANCE = "lab-product-1"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4PAGoNG2Yn3kXVSPFcGAGiqcXZNkHdHnzAlVnoUhS1"


@pytest.fixture
def iap(gcloud: Google, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Google:
    """Google, where the instance's port 22 is a real sshd."""
    monkeypatch.setattr(openssh, "PAUSE_S", 0.1)
    monkeypatch.setattr(openssh, "PROXY_START_S", 50)  # the processors may be busy
    gcloud.relay.port = sshd.port
    return gcloud


def target(sshd: Sshd, **changes: Any) -> Target:
    """Return the machine as the program gives it to ssh."""
    return Target("product-1", sshd.hop(host=INSTANCE, port=22, **changes), iap=openssh.Iap("my-project", "europe-west1-b"))


def run(sshd: Sshd, script: str = "echo here\n", timeout_s: float = 60, **more: Any) -> Outcome:
    return openssh.run_script(target(sshd), script, timeout_s, **more)


def explained(sshd: Sshd, outcome: Outcome) -> str:
    """Return what a user reads."""
    return openssh.explain(target(sshd), outcome, "join")


def test_a_join_passes_the_tunnel_with_its_questions_and_leaves_no_gcloud(iap: Google, sshd: Sshd) -> None:
    """A join sends about 24 KB, asks, and gets answers."""
    padding = "# " + "x" * 24_000 + "\n"
    script = padding + "{\necho istio-vm-mesh: ask stop\nread -r reply\necho got $reply\nexit\n}\n"
    outcome = run(sshd, script, answer=lambda words, pause: f"yes {words}")
    assert (outcome.reach, outcome.stdout) == (Reach.DONE, "got yes stop")
    assert iap.relay.requests == [f"my-project/europe-west1-b/{INSTANCE}:22"]
    wait_until(lambda: not iap.relay.open and not processes(str(iap.relay.url)))


def test_another_host_behind_the_tunnel_gets_no_script(iap: Google, sshd: Sshd) -> None:
    outcome = openssh.run_script(target(sshd, host_key=OTHER_KEY), "echo here\n", 60)
    assert (outcome.reach, outcome.stdout) == (Reach.HOST_KEY, "")


def test_a_machine_whose_sshd_is_not_up_yet_is_tried_again(iap: Google, sshd: Sshd) -> None:
    iap.relay.close, iap.relay.closes = (4003, "failed to connect to backend"), 1
    assert run(sshd, patience_s=100).reach is Reach.DONE
    assert len(iap.relay.requests) == 2


@pytest.mark.parametrize(
    ("status", "close", "cause"),
    [
        (403, None, "Handshake status 403 Forbidden"),
        (101, (4003, "failed to connect to backend"), "4003: 'failed to connect to backend'"),
        (101, (4033, "not authorized"), "4033: 'not authorized'"),
    ],
)
def test_what_iap_refuses_reaches_the_user(iap: Google, sshd: Sshd, status: int, close: tuple[int, str] | None, cause: str) -> None:
    iap.relay.handshake_status, iap.relay.close = status, close
    outcome = run(sshd)
    assert not outcome.began and cause in explained(sshd, outcome)


def test_a_gcloud_that_starts_slowly_is_waited_for(iap: Google, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many that start at once share the processors."""
    monkeypatch.setattr(openssh, "CONNECT_TIMEOUT_S", 1)
    gcloud = iap.directory / "bin" / "gcloud"
    gcloud.write_text(gcloud.read_text().replace("#!/bin/sh\n", "#!/bin/sh\nsleep 2\n"))
    assert run(sshd).reach is Reach.DONE
    assert len(iap.relay.requests) == 1


@pytest.mark.parametrize("what", ["unanswered", "silent"])
def test_a_tunnel_that_hangs_is_given_up_and_leaves_no_gcloud(iap: Google, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The relay does not answer, or the machine behind it sends nothing."""
    monkeypatch.setattr(openssh, "PROXY_START_S", 1)
    monkeypatch.setattr(openssh, "CONNECT_TIMEOUT_S", 2)
    setattr(iap.relay, what, True)
    outcome = run(sshd)
    assert not outcome.began and "timed out" in explained(sshd, outcome)
    wait_until(lambda: not iap.relay.open and not processes(str(iap.relay.url)))
