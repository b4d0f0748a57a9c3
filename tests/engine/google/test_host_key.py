"""The SSH host key of a Compute Engine machine, by gcloud."""

from __future__ import annotations

import pytest

from components.local import scripting
from components.platforms.google.scripts import host_key
from tests.support.google_fakes.clients import Google
from tests.support.google_fakes.transcripts import IMPERSONATE, KEY_PATH

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIJ4PAGoNG2Yn3kXVSPFcGAGiqcXZNkHdHnzAlVnoUhS1"
PAYLOAD = host_key.Payload("my-project", "europe-west1-b", "lab-product-1", "ssh-ed25519")
REQUEST = "GET /compute/v1/projects/my-project/zones/europe-west1-b/instances/lab-product-1/getGuestAttributes"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_key, "sleep", lambda _: None)


def test_a_machine_that_starts_is_waited_for_until_it_has_published_its_key(gcloud: Google) -> None:
    gcloud.apis.guest_attributes[KEY_PATH] = KEY
    gcloud.apis.missing = 1
    assert host_key.run(PAYLOAD).host_key == f"ssh-ed25519 {KEY}"
    assert [request.partition("?")[0] for request in gcloud.apis.requests] == [REQUEST] * 2


def test_warnings_of_impersonation_are_not_part_of_the_key(gcloud: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMPERSONATE, gcloud.identities.account("deployer").email)
    gcloud.apis.guest_attributes[KEY_PATH] = KEY
    assert host_key.run(PAYLOAD).host_key == f"ssh-ed25519 {KEY}"


def test_an_organisation_policy_that_forbids_guest_attributes_is_named(gcloud: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_key, "TIMEOUT_S", 0)
    gcloud.apis.guest_attributes_policy = True
    with pytest.raises(scripting.Failed, match=r"lab-product-1 .*compute\.disableGuestAttributesAccess"):
        host_key.run(PAYLOAD)


def test_an_account_that_may_not_be_impersonated_is_named(gcloud: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_key, "TIMEOUT_S", 0)
    monkeypatch.setenv(IMPERSONATE, gcloud.identities.account("deployer").email)
    gcloud.apis.may_impersonate = False
    with pytest.raises(scripting.Failed, match=r"Failed to impersonate \[deployer@.*iam\.serviceAccountTokenCreator"):
        host_key.run(PAYLOAD)
