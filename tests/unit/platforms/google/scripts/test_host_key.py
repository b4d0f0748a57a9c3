"""Waiting for the SSH host key of a Compute Engine machine."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from components.local import scripting
from components.platforms.google.scripts import host_key
from tests.support.fake_programs import Programs


def public_key(kind: str) -> str:
    """Return a key of a type in base64, as far as it names the type."""
    return base64.b64encode(len(kind).to_bytes(4, "big") + kind.encode() + bytes(36)).decode()


ED25519 = public_key("ssh-ed25519")
PAYLOAD = host_key.Payload("my-project", "europe-west1-b", "lab-product-1", "ssh-ed25519")


def test_the_key_that_the_machine_published_is_returned(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.add("gcloud", ("", 1, "", "The guest attribute was not found"))
    monkeypatch.setattr(host_key, "sleep", lambda _: programs.add("gcloud", ("", 0, f"{ED25519}\n", "")))
    assert host_key.run(PAYLOAD).host_key == f"ssh-ed25519 {ED25519}"
    assert len(programs.calls("gcloud")) == 2
    assert "get-guest-attributes lab-product-1 --project my-project --zone europe-west1-b" in programs.lines()[0]


def test_an_image_in_fips_mode_publishes_a_key_of_another_type(programs: Programs) -> None:
    key = public_key("ecdsa-sha2-nistp256")
    programs.add("gcloud", ("", 0, f"{key}\n", ""))
    assert host_key.run(replace(PAYLOAD, key_type="ecdsa-sha2-nistp256")).host_key == f"ecdsa-sha2-nistp256 {key}"
    assert "--query-path=hostkeys/ecdsa-sha2-nistp256" in programs.lines()[0]


WARNINGS = (
    "WARNING: This command is using service account impersonation. All API calls will be executed as [ci@p.iam.gserviceaccount.com].\n"
)


@pytest.mark.parametrize(("stdout", "stderr"), [(f"{ED25519}\n", WARNINGS), (f"{WARNINGS}{ED25519}\n", "")])
def test_what_gcloud_prints_beside_the_key_is_not_in_it(programs: Programs, stdout: str, stderr: str) -> None:
    programs.add("gcloud", ("", 0, stdout, stderr))
    assert host_key.run(PAYLOAD).host_key == f"ssh-ed25519 {ED25519}"


@pytest.mark.parametrize("printed", [WARNINGS, "AAAA\n", f"{public_key('ssh-rsa')}\n", f"{ED25519[:-4]} {ED25519[-4:]}\n"])
def test_what_is_no_key_of_the_type_is_no_host_key(programs: Programs, monkeypatch: pytest.MonkeyPatch, printed: str) -> None:
    """A bad one would be in the state, and every join would fail by it."""
    programs.add("gcloud", ("", 0, printed, ""))
    monkeypatch.setattr(host_key, "TIMEOUT_S", 0)
    with pytest.raises(scripting.Failed, match=r"published no host key of the type ssh-ed25519"):
        host_key.run(PAYLOAD)


@pytest.mark.parametrize("is_named", [True, False])
def test_an_organisation_that_forbids_guest_attributes_is_named_with_the_way_out(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, is_named: bool
) -> None:
    policy = "Constraint constraints/compute.disableGuestAttributesAccess violated for projects/my-project." if is_named else "not found"
    programs.add("gcloud", ("", 1, "", f"ERROR: {policy}"))
    monkeypatch.setattr(host_key, "TIMEOUT_S", 300 if is_named else 0)
    with pytest.raises(scripting.Failed, match=r"compute\.disableGuestAttributesAccess.*instance group with minReplicas: 1"):
        host_key.run(PAYLOAD)
    assert len(programs.calls("gcloud")) == 1, "it waits for nothing"


def test_a_machine_that_publishes_none_is_named_with_gclouds_reason(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.add("gcloud", ("", 1, "", "The guest attribute was not found"))
    passed: list[float] = []
    monkeypatch.setattr(host_key, "sleep", lambda _: passed.append(100))
    monkeypatch.setattr(host_key, "monotonic", lambda: sum(passed))
    with pytest.raises(
        scripting.Failed, match=r"lab-product-1 published no host key of the type ssh-ed25519 within 300 s.*attribute was not found"
    ):
        host_key.run(PAYLOAD)


def test_gcloud_that_is_missing_is_named(programs: Programs) -> None:
    with pytest.raises(scripting.Failed, match=r"^gcloud is not on PATH"):
        host_key.run(PAYLOAD)
