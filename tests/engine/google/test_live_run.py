"""`./scripts/live-run` against stand-ins for Google's servers: prerequisites, and whole runs with programs that answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.support.google_fakes import clients
from tests.support.google_fakes.transcripts import IMPERSONATE
from tests.support.waiting import wait_until
from tools import PYTHONPATH, ROOT
from tools.google_model import declared
from tools.google_model.cloud import Cloud
from tools.live_run import cli, commands, prerequisites, rows
from tools.live_run.__main__ import main
from tools.live_run.google import Google, GoogleError
from tools.live_run.prerequisites import Finding, Wanted
from tools.plan.resources import INSTANCE

PROJECT = "my-project"
OSLOGIN = "compute.requireOsLogin"
ENFORCED = {"booleanPolicy": {"enforced": True}}


def sized(stack: str, machine_type: str) -> Wanted:
    """What a stack needs, with machines of another type."""
    needed = wanted(stack)
    nodes = {
        name: replace(node, inputs={**node.inputs, "machineType": machine_type}) if node.type == INSTANCE else node
        for name, node in needed.cloud.nodes.items()
    }
    return replace(needed, cloud=Cloud(nodes))


@cache
def wanted(stack: str = "single-network") -> Wanted:
    return Wanted(live_run=rows.read(stack), cloud=declared.cloud(stack), region="europe-west1", zones=("europe-west1-b",))


def findings(stack: str = "single-network") -> list[Finding]:
    return prerequisites.check(Google.of_gcloud(PROJECT, os.environ), wanted(stack))


def texts(stack: str = "single-network") -> list[str]:
    return [each.text for each in findings(stack)]


# ---- Prerequisites, with gcloud's credentials.


def test_a_project_that_has_everything_has_no_finding(gcloud: clients.Google) -> None:
    assert findings() == []


def test_the_account_that_gcloud_impersonates_is_the_one_that_is_checked(gcloud: clients.Google, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings of gcloud are no part of the token."""
    monkeypatch.setenv(IMPERSONATE, gcloud.identities.account("deployer").email)
    assert findings() == []


def test_a_user_without_credentials_is_told_so(gcloud: clients.Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMPERSONATE, gcloud.identities.account("deployer").email)
    gcloud.apis.may_impersonate = False
    with pytest.raises(GoogleError, match=r"gcloud has no credentials: .*impersonate"):
        Google.of_gcloud(PROJECT, os.environ)


@pytest.fixture
def stubbed(google: clients.Google, monkeypatch: pytest.MonkeyPatch) -> clients.Google:
    """The servers, for tests that need no client."""
    for name, value in google.environment().items():
        monkeypatch.setenv(name, value)
    token = google.token_file.read_text()
    monkeypatch.setattr(Google, "of_gcloud", lambda project, environment: Google(project, token, environment))
    return google


def test_apis_that_are_off_are_named_with_the_command(stubbed: clients.Google) -> None:
    stubbed.apis.project.disabled = {"iap.googleapis.com", "dns.googleapis.com"}
    assert texts() == ["APIs are not enabled: gcloud services enable iap.googleapis.com dns.googleapis.com --project my-project"]


def test_a_missing_role_is_named_with_the_permissions(stubbed: clients.Google) -> None:
    stubbed.apis.project.withheld = {"iap.tunnelInstances.accessViaIAP", "iam.roles.create"}
    iap = "roles/iap.tunnelResourceAccessor is missing: the user has no iap.tunnelInstances.accessViaIAP"
    assert texts() == [iap]
    assert texts("fleet") == ["roles/iam.roleAdmin is missing: the user has no iam.roles.create"]


def test_a_zone_that_is_not_in_the_region_is_named(stubbed: clients.Google) -> None:
    stubbed.apis.project.zones = "cd"
    assert texts() == ["the region europe-west1 has no zone europe-west1-b: europe-west1-c, europe-west1-d"]


@pytest.mark.parametrize(("stack", "zones"), [("single-network", "b"), ("fleet", "")])
def test_a_machine_type_that_its_zone_does_not_have_is_named(stubbed: clients.Google, stack: str, zones: str) -> None:
    """Where Google chooses the zones, it chooses those that have the type."""
    stubbed.apis.project.machine_types = ("n4-",)
    named = [(f"europe-west1-{letter}", machine_type) for letter in zones for machine_type in ("e2-small", "e2-standard-2")]
    assert texts(stack) == [
        f"the zone {zone} has no {machine_type}: gcloud compute machine-types list --filter='name={machine_type}' --project {PROJECT}"
        for zone, machine_type in named
    ]


def test_a_release_channel_that_istio_does_not_support_is_named(stubbed: clients.Google) -> None:
    stubbed.apis.project.kubernetes = {"RAPID": "1.36.1-gke.100", "REGULAR": "1.38.0-gke.1201000"}
    [text] = texts()
    assert text == (
        "the release channel REGULAR gives Kubernetes 1.38.0-gke.1201000; Istio 1.31 supports Kubernetes 1.32 to 1.37: "
        "set another cluster.channel or mesh.version"
    )


def test_a_quota_that_is_too_small_is_named_with_what_is_free(stubbed: clients.Google) -> None:
    stubbed.apis.project.quotas |= {"CPUS_ALL_REGIONS": 3, "NETWORKS": 0}
    cpus, networks = texts()
    assert cpus.startswith("quota CPUS_ALL_REGIONS: the stack needs ") and cpus.endswith(", 3 are free")
    assert networks == "quota NETWORKS: the stack needs 1, 0 are free"


def test_a_machine_type_that_does_not_say_its_size_leaves_quotas_to_the_user(stubbed: clients.Google) -> None:
    stubbed.apis.project.machine_types = ("e2-", "ct5lp-")
    [finding] = prerequisites.check(Google.of_gcloud(PROJECT, os.environ), sized("single-network", "ct5lp-hightpu-4t"))
    assert finding == Finding("quotas are not compared: 'ct5lp-hightpu-4t' does not say how many vCPUs it has", blocks=False)


def test_a_policy_that_refuses_a_machine_is_named_with_the_way_out(stubbed: clients.Google) -> None:
    stubbed.apis.project.policies[OSLOGIN] = ENFORCED
    [finding] = findings()
    assert finding.blocks
    assert finding.text.startswith(f"{OSLOGIN} is enforced and refuses product-1-instance, product-2-instance: use a group ")
    assert "group: true" in finding.text, "the way out of a network's gateway"
    assert findings("fleet") == []


def test_a_policy_with_a_list_says_what_it_must_permit(stubbed: clients.Google) -> None:
    name = "compute.restrictLoadBalancerCreationForTypes"
    stubbed.apis.project.policies[name] = {"listPolicy": {"allowedValues": ["in:INTERNAL"]}}
    text = f"{name} has a list of values: it must permit INTERNAL_TCP_UDP"
    assert findings() == [Finding(text, blocks=False)]
    stubbed.apis.project.policies[name] = {"listPolicy": {"allValues": "DENY"}}
    assert findings() == [Finding(text)]


def test_a_policy_that_cannot_be_read_blocks_nothing_and_is_said(stubbed: clients.Google) -> None:
    stubbed.apis.project.policies[OSLOGIN] = None
    assert findings() == [Finding(f"policies that cannot be read: {OSLOGIN}", blocks=False)]


def test_an_api_that_answers_nothing_is_one_finding(stubbed: clients.Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_SERVICEUSAGE", "http://127.0.0.1:1/")
    [text] = texts()
    assert text.startswith("APIs cannot be read: serviceusage cannot be reached: ")


# ---- Whole runs. Pulumi and the others are programs that answer, and write down what they were given.

PULUMI = """#!/bin/bash
echo "pulumi $*" >>"$CALLS"
case $* in
  'stack export '*) cat "$STATE" ;;
  *' --target '*) ;;
  'preview '*) echo '+ 47 to create' ;;
  'up '*)
    if [ -e "$CALLS.wait" ]; then
      trap 'echo interrupted >>"$CALLS"; exit 1' INT
      echo waits >>"$CALLS"
      while :; do sleep 0.1; done
    fi
    if [ -e "$CALLS.fails" ]; then echo 'error: SSD_TOTAL_GB exceeded'; exit 1; fi ;;
  'stack output '*) echo '"path":"direct"' ;;
  'stack --show-urns '*) echo 'urn:pulumi:x::istio-vm-mesh::gcp:container/cluster:Cluster::cluster-gke' ;;
  'destroy --stack single-network --yes --skip-preview '*) if [ -e "$CALLS.stays" ]; then exit 1; fi ;;
  'destroy --stack single-network --yes --non-interactive') echo 'error: it is protected'; exit 1 ;;
esac
"""
GCLOUD = """#!/bin/bash
case $* in
  'auth print-access-token '*) cat "$CLOUDSDK_AUTH_ACCESS_TOKEN_FILE" ;;
  *node-pools*) echo cluster-nodes-0123456 ;;
esac
"""
KUBECTL = """#!/bin/bash
case $* in
  *ingress*) echo 10.10.0.250 ;;
  'get pods '*) printf 'node-1\\nnode-2\\n' ;;
esac
"""


class Checkout:
    """Programs on PATH, and the script as a process."""

    def __init__(self, google: clients.Google, directory: Path) -> None:
        self.calls, self.state, self.report = directory / "calls", directory / "state.json", directory / "report.md"
        self.state.write_text('{"deployment": {"resources": [{"type": "pulumi:pulumi:Stack"}]}}')
        self.calls.touch()
        programs = directory / "programs"
        programs.mkdir()
        for name, text in {"pulumi": PULUMI, "gcloud": GCLOUD, "kubectl": KUBECTL, "gke-gcloud-auth-plugin": "", "ssh": ""}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        variables = {"CALLS": str(self.calls), "STATE": str(self.state), "PATH": path, "PYTHONPATH": PYTHONPATH}
        self.environment = {**os.environ, **google.environment(), **variables}

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tools.live_run", "single-network", "--report", str(self.report), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *words: str) -> tuple[int, str]:
        with self.start(*words) as process:
            output, _ = process.communicate()
            return process.returncode, output

    def pulumi(self) -> list[str]:
        """Return the first words of Pulumi's calls."""
        return [" ".join(line.split()[1:3]) for line in self.calls.read_text().splitlines() if line.startswith("pulumi ")]


@pytest.fixture
def checkout(google: clients.Google, tmp_path: Path) -> Iterator[Checkout]:
    """A checkout whose stack file is the same afterwards."""
    file = ROOT / "stacks" / "Pulumi.single-network.yaml"
    before = file.read_bytes()
    yield Checkout(google, tmp_path)
    assert file.read_bytes() == before


def test_nothing_is_created_without_a_confirmation(checkout: Checkout) -> None:
    status, output = checkout.run()
    assert (status, checkout.pulumi()) == (2, ["stack export"])
    assert "The prerequisites are met." in output and "Nothing was done: confirm with --yes." in output


def test_nothing_is_created_where_prerequisites_are_not_met(checkout: Checkout, google: clients.Google) -> None:
    google.apis.project.policies[OSLOGIN] = ENFORCED
    status, output = checkout.run("--yes")
    assert (status, checkout.pulumi()) == (cli.UNFIT, ["stack export"])
    assert f"- {OSLOGIN} is enforced" in output


def test_a_stack_that_is_up_is_not_taken_for_one_of_a_run(checkout: Checkout) -> None:
    """The run would end with its deletion."""
    resources = [{"type": "gcp:compute/network:Network", "custom": True}]
    checkout.state.write_text(json.dumps({"deployment": {"resources": resources}}))
    status, output = checkout.run("--yes")
    assert (status, checkout.pulumi()) == (cli.UNFIT, ["stack export"])
    assert "the stack single-network is up already" in output


def test_a_check_creates_nothing(checkout: Checkout) -> None:
    assert checkout.run("--check")[0] == cli.AS_EXPECTED
    assert checkout.pulumi() == ["stack export"]


def test_a_surprise_ends_the_run_and_everything_is_taken_down(checkout: Checkout) -> None:
    Path(f"{checkout.calls}.fails").touch()
    status, output = checkout.run("--yes")
    assert status == cli.SURPRISE
    assert checkout.pulumi() == ["stack export", "stack select", "preview --stack", "up --stack", *DOWN]
    report = checkout.report.read_text()
    assert "error: SSD_TOTAL_GB exceeded" in report
    assert "~~the backend takes the stack~~" in report and "| ~~all that the stack declares" not in report
    assert "Cost so far: about 0.0" in output and "--down" not in output


DOWN = ["config set", "stack --show-urns", "up --stack", "destroy --stack"]


def test_an_interrupted_run_is_taken_down(checkout: Checkout) -> None:
    Path(f"{checkout.calls}.wait").touch()
    with checkout.start("--yes") as process:
        wait_until(lambda: "\nwaits\n" in checkout.calls.read_text())
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()
    assert process.returncode == cli.INTERRUPTED, output
    assert "\ninterrupted\n" in checkout.calls.read_text()
    assert checkout.pulumi()[-4:] == DOWN
    assert "Interrupted: the stack is taken down." in output


def test_what_cannot_be_taken_down_is_said_with_the_way_on(checkout: Checkout) -> None:
    Path(f"{checkout.calls}.stays").touch()
    status, output = checkout.run("--down", "--yes")
    assert status == cli.NOT_DOWN
    assert "Something may be left, and costs: ./scripts/live-run single-network --down" in output


@pytest.mark.parametrize("stack", ["single-network"])
def test_a_run_without_a_surprise_strikes_out_every_row_that_it_ran(
    checkout: Checkout, stack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "status").write_text("#!/bin/sh\n")
    (tmp_path / "scripts" / "status").chmod(0o755)
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    for name, value in checkout.environment.items():
        monkeypatch.setenv(name, value)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        assert main([stack, "--yes", "--report", str(checkout.report)]) == cli.AS_EXPECTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    live_run, report = rows.read(stack), checkout.report.read_text()
    for row in (*live_run.rows, *live_run.down):
        assert f"| {row.shows if row.hand else f'~~{row.shows}~~'} |" in report
    assert checkout.pulumi()[-4:] == DOWN


def test_down_alone_deletes_and_creates_nothing(checkout: Checkout) -> None:
    assert checkout.run("--down")[0] == 2
    assert checkout.pulumi() == []
    assert checkout.run("--down", "--yes")[0] == cli.AS_EXPECTED
    assert checkout.pulumi() == DOWN


def test_a_stack_that_is_not_on_google_cloud_is_refused() -> None:
    command = [sys.executable, "-m", "tools.live_run", "lab", "--yes"]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "lab is not on Google Cloud: it has no `google`\n")
