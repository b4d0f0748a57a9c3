"""`python -m tools.devtools.mutate`, started by `./scripts/mutations`: breaks the program on purpose, and sees whether a test notices.

Each mutation is one change of one place in a copy of the program. One that no test notices is a hole in the tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tools import ROOT

TESTS = (
    "tests/preview",
    "tests/unit/test_plan.py",
    "tests/unit/test_token.py",
    "tests/unit/test_calls.py",
    "tests/unit/test_settings.py",
    "tests/unit/test_broken.py",
)
GOLDEN = "the_graph_is_the_one_that_was_reviewed"
"""Golden graphs notice almost everything and say little: what is asked here is whether a rule does."""
COPIED = ("__main__.py", "components", "docs", "pyproject.toml", "scripts", "stacks", "tests")


class Mutation(NamedTuple):
    """A change of a file: `before`, which must be there once, becomes `after`."""

    what: str
    file: str
    before: str
    after: str


MUTATIONS = (
    # Labels and names
    Mutation(
        "Services select another label",
        "components/istio/manifests.py",
        '"selector": service.selected(workload.labels),',
        '"selector": {"x": "y"},',
    ),
    Mutation(
        "the pods' network has no label",
        "components/istio/network_gateways.py",
        '"labels": {"topology.istio.io/network": network}',
        '"labels": {}',
    ),
    Mutation("namespaces inject no sidecar", "components/istio/manifests.py", '{"istio-injection": "enabled"}', "{}"),
    Mutation(
        "the WorkloadGroup names no service account",
        "components/istio/manifests.py",
        '"serviceAccount": service_account_name(name, workload),',
        "",
    ),
    Mutation(
        "a component has another type",
        "components/platforms/google/network.py",
        "istio-vm-mesh:networks:Google",
        "istio-vm-mesh:networks:Vpcs",
    ),
    Mutation("a resource has another name", "components/platforms/google/network.py", '"gateway-zone"', '"zone-gateway"'),
    Mutation("the probe leaves out its threshold", "components/istio/manifests.py", ', "failureThreshold": settings.failure_threshold', ""),
    # Firewall and addresses
    Mutation(
        "the firewall lets nothing in",
        "components/platforms/google/network.py",
        "for rule in args.firewall_rules]",
        "for rule in ()]",
    ),
    Mutation("SSH is open to the world", "components/platforms/google/firewall.py", 'IAP = "35.235.240.0/20"', 'IAP = "0.0.0.0/0"'),
    Mutation(
        "pods reach far machines",
        "components/platforms/google/firewall.py",
        'if spec.role == "router" else networks',
        "if True else networks",
    ),
    Mutation(
        "no rule for health checks of groups",
        "components/platforms/google/firewall.py",
        "or any(isinstance(machine, GceInstanceGroup)",
        "or False and any(isinstance(machine, GceInstanceGroup)",
    ),
    Mutation(
        "a machine has a public address",
        "components/platforms/google/machine.py",
        "InstanceNetworkInterfaceArgs(subnetwork",
        "InstanceNetworkInterfaceArgs(access_configs=[compute.InstanceNetworkInterfaceAccessConfigArgs()], subnetwork",
    ),
    Mutation(
        "the gateway's balancer is public",
        "components/platforms/google/cluster.py",
        '"networking.gke.io/load-balancer-type": "Internal",',
        "",
    ),
    Mutation(
        "the gateway's balancer lets everybody in",
        "components/platforms/google/cluster.py",
        '"loadBalancerSourceRanges": list(args.gateway_clients),',
        "",
    ),
    Mutation(
        "no rule for health checks of gateways", "components/platforms/google/firewall.py", 'if spec.role == "router" or any', "if any"
    ),
    Mutation(
        "a gateway's balancer is open to the world",
        "components/platforms/google/load_balancer.py",
        'region=google.region,\n            load_balancing_scheme="INTERNAL",\n            backend_service',
        'region=google.region,\n            load_balancing_scheme="EXTERNAL",\n            backend_service',
    ),
    Mutation(
        "a gateway that is made again gets no calls", "components/platforms/google/load_balancer.py", "replace_with=[member.instance], ", ""
    ),
    Mutation(
        "the mesh knows gateways past their balancer",
        "components/platforms/dispatch.py",
        "if network_gateways.has_load_balancer(settings, network) and",
        "if False and",
    ),
    # Rights and protection
    Mutation(
        "machines have the default service account",
        "components/platforms/google/machine.py",
        "email=networks.accounts[machine.workload].email, ",
        "",
    ),
    Mutation(
        "machines may do anything",
        "components/platforms/google/machine.py",
        '["https://www.googleapis.com/auth/logging.write", ',
        '["https://www.googleapis.com/auth/cloud-platform", ',
    ),
    Mutation("groups may mint tokens for anybody", "components/platforms/google/startup.py", '"resourceNames": [account], ', ""),
    Mutation(
        "clusters are not protected",
        "components/platforms/google/cluster.py",
        "deletion_protection=settings.deletion_protection",
        "deletion_protection=False",
    ),
    Mutation("an adopted mesh lets plaintext in", "components/istio/workload.py", "if strict:", "if False:"),
    # Secrets
    Mutation(
        "the SSH key is no secret", "components/machines/ssh_key.py", 'additional_secret_outputs=["stdout"]', "additional_secret_outputs=[]"
    ),
    Mutation("kind's kubeconfig is no secret", "components/platforms/docker/cluster.py", 'additional_secret_outputs=["stdout"],', ""),
    Mutation(
        "a kubeconfig's file is no secret",
        "components/platforms/existing/cluster.py",
        "return pulumi.Output.secret(text)",
        "return pulumi.Output.from_input(text)",
    ),
    Mutation("keys in the clear are taken", "components/stack.py", "if secret != (name in SECRETS)", "if secret and name not in SECRETS"),
    # Dependencies and order
    Mutation(
        "machines join before the Service exists",
        "components/istio/workload.py",
        "[account, workload_group, *services]",
        "[account, workload_group]",
    ),
    Mutation(
        "manifests do not wait for istiod",
        "components/istio/control_plane.py",
        "manifest, pulumi.ResourceOptions(parent=self, depends_on=istiod))",
        "manifest, pulumi.ResourceOptions(parent=self))",
    ),
    Mutation("both halves of a peering at once", "components/platforms/google/network.py", "depends_on=peerings[-1:]", "depends_on=[]"),
    Mutation("a dead machine stands in the way", "components/machines/machine.py", "deleted_with=host.resource,", ""),
    Mutation(
        "machines that stay do not leave",
        "components/platforms/existing/machine.py",
        "leave_script=key.apply(lambda text: ssh_leave.leave_over_ssh_script(name, settings, text)),",
        "",
    ),
    Mutation("a workload goes under its machines", "components/machines/token.py", "_refuse_to_rename(_olds, _news)", "..."),
    Mutation(
        "a group's machines stop with their application", "components/platforms/google/startup.py", "[*files, *drain_files()]", "files"
    ),
    # What Google's API descriptions list
    Mutation(
        "a value that Google's API does not have",
        "components/platforms/google/cluster.py",
        'mode="GKE_METADATA"',
        'mode="GKE_METADATA_SERVER"',
    ),
    Mutation(
        "an OAuth scope that Google does not have", "components/platforms/google/startup.py", "auth/userinfo.email", "auth/userinfo.mail"
    ),
    # Settings
    Mutation("unknown keys are passed over", "components/config/decode.py", "for key in value if key not in fields)", "for key in ())"),
    Mutation("reserved ports are taken", "components/config/workload_checks.py", "elif port in RESERVED_PORTS:", "elif False:"),
    Mutation("public ranges are taken", "components/config/google.py", "if known.is_global:", "if False:"),
    Mutation(
        "the gateway's zone hides its domain",
        "components/platforms/google/network.py",
        'dns_name=f"{name}.",',
        "dns_name=f\"{name.split('.', 1)[1]}.\",",
    ),
    Mutation("overlapping subnets are taken", "components/config/google.py", "if first.overlaps(second):", "if False:"),
)


def parser() -> argparse.ArgumentParser:
    """The command line; standard library only, like everything at the top of this file."""
    top = argparse.ArgumentParser(
        prog="./scripts/mutations",
        description="Breaks a copy of the program in one place after the other and runs the quick tests: each break must turn one red.",
    )
    top.set_defaults(needs_lab=False)
    top.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="how many at once (default: %(default)s)")
    top.add_argument("words", nargs="*", metavar="word", help="only mutations with one of these words in their description")
    return top


def applied(mutation: Mutation, root: Path) -> None:
    """Make the change below `root`. Raises SystemExit where the place is not there, or there more than once."""
    file = root / mutation.file
    text = file.read_text()
    if text.count(mutation.before) != 1:
        sys.exit(
            f"{mutation.file} has {text.count(mutation.before)} times what to change for '{mutation.what}': mend scripts/tools/devtools/mutate.py"
        )
    file.write_text(text.replace(mutation.before, mutation.after))


def noticed(mutation: Mutation | None) -> str:
    """The first test that fails under a mutation, or "" if none does."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "go", "images"))
            else:
                shutil.copy2(source, root / name)
        if mutation:
            applied(mutation, root)
        rules = ["-k", f"not {GOLDEN}"]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *rules, *TESTS]
        environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            return ""
        failed = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0].rpartition("/")[2] if failed else "the tests do not run"


def main() -> int:
    arguments = parser().parse_args()
    wanted: Sequence[Mutation] = [
        mutation for mutation in MUTATIONS if not arguments.words or any(word in mutation.what for word in arguments.words)
    ]
    if red := noticed(None):
        print(f"The tests are red without a mutation ({red}): mend that first.", file=sys.stderr)
        return 1
    started, missed = time.monotonic(), 0
    with ThreadPoolExecutor(arguments.jobs) as threads:
        for mutation, test in zip(wanted, threads.map(noticed, wanted), strict=True):
            missed += not test
            print(f"{'noticed' if test else 'MISSED ':7}  {mutation.what}{f'  ({test})' if test else ''}", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} noticed, in {time.monotonic() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
