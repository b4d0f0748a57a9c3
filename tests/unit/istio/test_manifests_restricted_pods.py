"""Pods of this program under Pod Security's level `restricted`, in namespaces with a quota, and with images that need a secret."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.istio import manifests
from components.manifest import Manifest
from components.verification import jobs
from tests.support.samples import FACTS, PRODUCT

PAIR = jobs.pair("verify-product", [jobs.Called(PRODUCT, FACTS)], "lab")
JOB, PLAINTEXT_JOB = (job["spec"]["template"]["spec"] for job in (PAIR.inside, PAIR.outside))


def pod_of(**settings: Any) -> Manifest:
    """Return the pod of the workload's Deployment."""
    assert PRODUCT.pods
    workload = PRODUCT.model_copy(update={"pods": PRODUCT.pods.model_copy(update=settings)})
    manifest = manifests.deployment(workload, FACTS)
    assert manifest
    pod: Manifest = manifest["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("pod", [pod_of(), JOB, PLAINTEXT_JOB], ids=["pods", "Job", "Job outside the mesh"])
def test_pods_pass_restricted_and_quotas(pod: Manifest) -> None:
    """The seccomp profile is the pod's: the injected sidecar has none of its own."""
    (container,) = pod["containers"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context["runAsNonRoot"] is True and context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context.get("runAsUser") not in (0, 1337)
    assert {*container["resources"]["requests"]} == {*container["resources"]["limits"]} == {"cpu", "memory"}


def test_the_jobs_do_not_run_as_their_images_root() -> None:
    assert all(pod["containers"][0]["securityContext"]["runAsUser"] == 65534 for pod in (JOB, PLAINTEXT_JOB))


def test_an_application_may_be_root_where_the_stack_says_so() -> None:
    pod = pod_of(restricted=False)
    assert "securityContext" not in pod and "securityContext" not in pod["containers"][0]
    pod = pod_of(restricted=False, run_as_user=0)
    assert pod["containers"][0]["securityContext"] == {"runAsUser": 0}
    assert pod_of(run_as_user=1000)["containers"][0]["securityContext"]["runAsUser"] == 1000


def test_pods_with_sidecars_keep_the_pull_secrets_of_their_service_account() -> None:
    """Kubernetes gives a pod those of its ServiceAccount where it states none itself. The injection adds the mesh's."""
    facts = replace(FACTS, pull_secrets=("theirs",))
    deployment = manifests.deployment(PRODUCT, facts)
    assert deployment and "imagePullSecrets" not in deployment["spec"]["template"]["spec"]
    pair = jobs.pair("verify-product", [jobs.Called(PRODUCT, facts)], "lab")
    inside, outside = (job["spec"]["template"]["spec"] for job in (pair.inside, pair.outside))
    assert "imagePullSecrets" not in inside
    assert outside["imagePullSecrets"] == [{"name": "theirs"}], "nothing injects it"


def test_images_are_pulled_with_the_secrets_that_the_stack_states() -> None:
    assert "imagePullSecrets" not in pod_of()
    workload = PRODUCT.model_copy(update={"image_pull_secrets": ("mine", "both")})
    facts = replace(FACTS, pull_secrets=("both", "theirs"))
    mine = [{"name": "mine"}, {"name": "both"}]
    deployment = manifests.deployment(workload, facts)
    assert deployment and deployment["spec"]["template"]["spec"]["imagePullSecrets"] == mine
    pair = jobs.pair("verify-product", [jobs.Called(workload, facts)], "lab")
    assert pair.inside["spec"]["template"]["spec"]["imagePullSecrets"] == mine
    assert pair.outside["spec"]["template"]["spec"]["imagePullSecrets"] == [*mine, {"name": "theirs"}]
