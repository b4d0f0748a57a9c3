"""Waiting for the SSH host key of a Compute Engine machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.local import scripting
from components.platforms.google.scripts import host_key
from tests.support.fake_programs import Programs

PAYLOAD = host_key.Payload("my-project", "europe-west1-b", "lab-product-1", "ssh-ed25519")


def test_the_key_that_the_machine_published_is_returned(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.add("gcloud", ("", 1, "", "The guest attribute was not found"))
    monkeypatch.setattr(host_key, "sleep", lambda _: programs.add("gcloud", ("", 0, "AAAA\n", "")))
    assert host_key.run(PAYLOAD).host_key == "ssh-ed25519 AAAA"
    assert len(programs.calls("gcloud")) == 2
    assert "get-guest-attributes lab-product-1 --project my-project --zone europe-west1-b" in programs.lines()[0]


def test_an_image_in_fips_mode_publishes_a_key_of_another_type(programs: Programs) -> None:
    programs.add("gcloud", ("", 0, "AAAA\n", ""))
    assert host_key.run(replace(PAYLOAD, key_type="ecdsa-sha2-nistp256")).host_key == "ecdsa-sha2-nistp256 AAAA"
    assert "--query-path=hostkeys/ecdsa-sha2-nistp256" in programs.lines()[0]


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
