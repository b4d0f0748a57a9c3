"""What holds in every lab, whatever its networks: Istio's own machine test cases, DNS, traffic management and telemetry.

A subclass in a scenario says which lab is tested: its module has the fixture `lab`. What the tests need besides the stack is applied with kubectl,
as users do. `docs/acceptance.md` lists the cases.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import pytest

from components.names import (
    CANONICAL_REVISION_LABEL,
    CROSS_NETWORK_PORT,
    DEFAULT_DOMAIN,
    ENVOY_ADMIN_PORT,
    ISTIO_NAMESPACE,
    METRICS_PORT,
    TOKEN_AUDIENCE,
    service_host,
)
from tests.support.lab import Lab
from tests.support.traffic import LOST, assert_no_lost_requests, describe_lost, lost_share, statuses
from tests.support.waiting import wait_until

Result = TypeVar("Result")

NAMES = ("product", "product.shop", "product.shop.svc", service_host("product", "shop", DEFAULT_DOMAIN))
ECHO = "istio-vm-mesh/echo:1.31.0"

GONE_S = 22
"""Seconds after an agent's stop in which its entry goes: twice the grace, and two more."""
CALLED_S = 15
"""Seconds after an agent's start in which its machine is called."""

CALLER = "statefulset/steady"
"""Calls while pods and machines come and go."""
# A second caller with an identity of its own, which also has a name of its own: a headless Service over a StatefulSet.
# A pod without requests gets no processor where the others need all of it. A client that starves gives up its calls after seconds.
STEADY = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: steady}}
---
apiVersion: v1
kind: Service
metadata: {{name: headless}}
spec: {{clusterIP: None, selector: {{app: steady}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: steady}}
spec:
  serviceName: headless
  selector: {{matchLabels: {{app: steady}}}}
  template:
    metadata:
      labels: {{app: steady}}
      annotations: {{sidecar.istio.io/proxyCPU: 200m}}
    spec:
      serviceAccountName: steady
      containers:
      - {{name: steady, image: {ECHO}, imagePullPolicy: IfNotPresent, args: [--port, "8080"], resources: {{requests: {{cpu: 200m}}}}}}
"""

# Services of the machines alone, of the pods alone, and of both; the echo server answers each protocol on a port.
SERVICES = "".join(
    f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {selector}
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: http2, port: 8081}}
  - {{name: grpc, port: 7070}}
  - {{name: tcp, port: 9090}}
  - {{name: https, port: 8443}}
"""
    for name, selector in {
        "machines": "{app: product, version: machines}",
        "protocols": "{app: product, version: machines}",
        "pods": "{app: product, version: pods}",
        "split": "{app: product}",
    }.items()
)

# Retries and a timeout by path, for calls to machines and to pods; and one call in five to machines.
ROUTES = "".join(
    f"""
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{name}]
  http:
  - match: [{{uri: {{prefix: /impatient}}}}]
    timeout: 1s
    route: [{{destination: {{host: {name}, port: {{number: 80}}}}}}]
  - match: [{{uri: {{prefix: /again}}}}]
    retries: {{attempts: 40, retryOn: 5xx}}
    route: [{{destination: {{host: {name}, port: {{number: 80}}}}}}]
  - match: [{{port: 80}}]
    retries: {{attempts: 0}}
    route: [{{destination: {{host: {name}, port: {{number: 80}}}}}}]
"""
    for name in ("machines", "pods")
)
# The program's own Services have such rules. Without them, idle connections through a gateway last for an hour.
IDLE_CONNECTIONS = "".join(
    f"""
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec:
  host: {name}
  trafficPolicy: {{connectionPool: {{http: {{idleTimeout: 3s}}}}}}
"""
    for name in ("machines", "protocols", "pods")
)
SPLIT = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: split}
spec:
  host: split
  trafficPolicy: {connectionPool: {http: {idleTimeout: 3s}}}
  subsets: [{name: machines, labels: {version: machines}}, {name: pods, labels: {version: pods}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: split}
spec:
  hosts: [split]
  http:
  - route:
    - {destination: {host: split, subset: machines}, weight: 20}
    - {destination: {host: split, subset: pods}, weight: 80}
"""
EXTRA = STEADY + SERVICES + ROUTES + IDLE_CONNECTIONS + SPLIT
POLICY_NAME = "steady-alone"
POLICY = f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {POLICY_NAME}}}
spec:
  selector: {{matchLabels: {{version: machines}}}}
  action: ALLOW
  rules: [{{from: [{{source: {{principals: [{DEFAULT_DOMAIN}/ns/shop/sa/steady]}}}}]}}]
"""


def all_of(call: Callable[[int], list[Result]], count: int) -> list[Result]:
    """Return the results of so many requests. `call` makes some, and returns the results that are known (`traffic.is_cut`)."""
    results: list[Result] = []

    def complete() -> bool:
        results.extend(call(count - len(results)))
        return len(results) == count

    wait_until(complete, description="the results of all requests are known")
    return results


def http_statuses(lab: Lab, caller: str, url: str, count: int = 1) -> list[int]:
    """Return the HTTP status of some requests of a machine, of `deploy/…` or of `statefulset/…`; 0 for one without an answer."""

    def from_pod(count: int) -> list[int]:
        client = ["/usr/local/bin/client", url, "--count", str(count), "--qps", "50", "--timeout", "20s"]
        exec_ = ["kubectl", "--namespace", "shop", "exec", caller, "--container", caller.split("/")[1], "--"]
        return statuses(lab.run(*exec_, *client, check=False), count)

    if "/" in caller:
        return all_of(from_pod, count)
    urls = " ".join([f"--output /dev/null '{url}'"] * count)
    printed = lab.ssh(caller, f"curl --silent --max-time 20 --write-out '%{{http_code}} ' {urls}", check=False).split()
    return [int(status) for status in printed] + [0] * (count - len(printed))


def resolves(lab: Lab, machine: str, name: str) -> bool:
    """Whether a machine resolves a name by one query over UDP, and by one over TCP, which a busy computer may answer late."""
    queries = " && ".join(
        f"RES_OPTIONS='{options} attempts:1 timeout:20' timeout 30 getent hosts {name} >/dev/null" for options in ("", "use-vc")
    )
    return lab.ssh(machine, f"{queries} && echo yes", check=False).strip() == "yes"


def start_steady_caller(lab: Lab) -> None:
    """Have the second caller run in a pod, `CALLER`."""
    lab.apply(STEADY)
    lab.wait_until_rolled_out(CALLER)


@contextmanager
def without_istiod(lab: Lab) -> Iterator[None]:
    """Run the block while the control plane is away."""
    of_istiod = ["--selector", "app=istiod", "--namespace", ISTIO_NAMESPACE]
    scale = ["scale", "deployment/istiod", "--namespace", ISTIO_NAMESPACE, "--replicas"]

    def replicas() -> set[int]:
        """What the ReplicaSets declare, and what they have."""
        return {each[part]["replicas"] for each in lab.get("replicasets", *of_istiod)["items"] for part in ("spec", "status")}

    def pods() -> str:
        return lab.kubectl("get", "pods", *of_istiod, "--output", "name")

    lab.kubectl(*scale, "0")
    try:
        # A pod that is deleted before its ReplicaSet has none to keep is created anew.
        wait_until(lambda: replicas() == {0}, description="the ReplicaSets of istiod keep no pod")
        lab.kubectl("delete", "pods", *of_istiod, "--grace-period", "1")
        wait_until(lambda: not pods(), description="no pod of istiod is left")
        yield
        assert not pods()
    finally:
        lab.kubectl(*scale, "1")
        lab.wait_until_rolled_out("deployment/istiod", ISTIO_NAMESPACE)
        # Its webhook is called by way of a Service, which hears of the new pod a moment later.
        answers = ["apply", "--dry-run=server", "--filename", "-"]
        wait_until(
            lambda: not lab.run("kubectl", "--namespace", "shop", *answers, stdin=POLICY, check=False).returncode,
            description="istiod answers",
        )


def proxy_configuration(lab: Lab, place: str) -> str:
    """Return what the proxy of a machine, of `deploy/…` or of `statefulset/…` has from istiod: Envoy's `/config_dump`."""
    if "/" in place:
        return lab.kubectl("exec", place, "--container", "istio-proxy", "--", "pilot-agent", "request", "GET", "config_dump")
    return lab.ssh(place, f"curl --silent http://127.0.0.1:{ENVOY_ADMIN_PORT}/config_dump")


def has_routes(lab: Lab, caller: str) -> bool:
    """Whether the proxy of a caller has the routes of the services that the tests need besides the stack."""
    configuration = proxy_configuration(lab, caller)
    return configuration.count('"/impatient"') >= 2 and '"weighted_clusters"' in configuration


class IstioCases:
    """Istio's machine test cases; the fixture `lab` is the lab, up."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def extra_services(cls, lab: Lab) -> Iterator[None]:
        """What the tests need besides the stack; and on every machine a second echo server, for HTTP/2 and HTTPS.

        istiod sends each proxy its routes in its own time, so this ends when the proxy of every caller has them.
        """
        lab.apply(EXTRA)
        key = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=machines -keyout /tmp/key -out /tmp/crt 2>/dev/null; chmod a+r /tmp/key"
        server = "/usr/local/bin/echo-server --port 8081 --port 8443 --tls 8443 --crt /tmp/crt --key /tmp/key --grpc 7071 --tcp 9091"
        for machine in sorted(lab.machines):
            lab.ssh(machine, f"sudo sh -c '{key}; systemd-run --quiet --collect --unit more --uid application {server}'")
        lab.wait_until_rolled_out(CALLER)
        for caller in ("deploy/product", CALLER, lab.tested_machine):
            wait_until(lambda caller=caller: has_routes(lab, caller), description=f"the proxy of {caller} has its routes")  # type: ignore[misc]
        yield
        for machine in sorted(lab.machines):
            lab.ssh(machine, "sudo systemctl stop more", check=False)
        for text in (POLICY, EXTRA):
            lab.run("kubectl", "--namespace", "shop", "delete", "--ignore-not-found", "--filename", "-", stdin=text, check=False)

    # Connectivity

    @pytest.mark.istio_case(1, 22)
    @pytest.mark.parametrize("name", NAMES)
    def test_pod_and_machine_call_each_other_by_name(self, lab: Lab, name: str) -> None:
        for caller in ("pod", lab.tested_machine):
            lab.wait_until_answered_by(caller, lab.service_endpoints, name)

    @pytest.mark.istio_case(2)
    def test_a_machine_calls_a_headless_service_and_a_pod_of_a_statefulset_by_its_name(self, lab: Lab) -> None:
        # A headless Service stands for its pods' own addresses, which no gateway passes on: the caller is in the pods' network.
        urls = [f"http://{name}:8080/" for name in ("headless.shop", service_host("steady-0.headless", "shop", DEFAULT_DOMAIN))]
        wait_until(lambda: [http_statuses(lab, "product-1", url) for url in urls] == [[200], [200]], description="both names answer")

    @pytest.mark.istio_case(4)
    @pytest.mark.parametrize(
        "url", ["http://protocols", "http://protocols:8081", "grpc://protocols:7070", "tcp://protocols:9090", "https://protocols:8443"]
    )
    def test_a_pod_calls_machines_by_every_protocol(self, lab: Lab, url: str) -> None:
        client = ["/usr/local/bin/client", url, "--count", "8", "--timeout", "10s", "--new-connection-per-request"]
        client += ["--http2"] if url.endswith("8081") else ["--insecure-skip-verify"] if url.startswith("https") else []

        def answered() -> bool:
            output = lab.kubectl("exec", "deploy/product", "--container", "product", "--", *client, check=False)
            # Not by each of them: what keeps one connection meets one machine behind a gateway.
            hostnames = re.findall(r"Hostname=(\S+)", output)
            return len(hostnames) == 8 and lab.machines.issuperset(hostnames)

        wait_until(answered, description=f"machines answer {url}")

    # Registration

    @pytest.mark.istio_case(6, 8)
    def test_an_agent_that_stops_is_gone_without_a_lost_call_and_back_within_15_seconds(self, lab: Lab) -> None:
        machine = lab.tested_machine
        entry = lab.outputs()["machines"][machine]["entry"]
        with lab.background_requests(CALLER) as requests:
            lab.ssh(machine, "sudo systemctl stop --no-block istio-vm-mesh")
            gone = wait_until(lambda: lab.entry_health(entry) is None, GONE_S, "the WorkloadEntry is gone")
            lab.ssh(machine, "sudo systemctl stop istio-vm-mesh")  # this ends when the agent has stopped
            # The machine stays reachable, and ordinary names resolve: nothing is captured any more.
            assert resolves(lab, machine, lab.plain_hostname)
            rules = "sudo sh -c 'iptables-save; iptables-legacy-save; iptables-nft-save' | grep ISTIO || echo none"
            assert lab.ssh(machine, rules).strip() == "none"
            lab.wait_until_out_of_proxies(machine, "pod")
            lab.ssh(machine, "sudo systemctl start --no-block istio-vm-mesh")
            started = time.monotonic()
            # Calls begin when their proxies have the machine. Connections to others, behind a gateway, would be kept for another ten seconds.
            lab.wait_until_in_proxies(machine, "pod", CALLED_S)
            lab.wait_until_answered_by("pod", {machine}, seconds=started + CALLED_S - time.monotonic())
            called = time.monotonic() - started
        print(f"gone after {gone:.1f} s, called after {called:.1f} s")
        assert_no_lost_requests(requests)

    @pytest.mark.istio_case(17)
    def test_a_failing_probe_takes_the_machine_out_and_a_passing_one_back_in(self, lab: Lab) -> None:
        machine = lab.tested_machine
        entry = lab.outputs()["machines"][machine]["entry"]
        with lab.background_requests(CALLER) as requests:
            lab.ssh(machine, "sudo systemctl kill --signal KILL echo && sudo systemctl stop echo")
            out = wait_until(lambda: lab.entry_health(entry) == "False", description="the WorkloadEntry is unhealthy")
            # The condition is istiod's. Each proxy is told in its own time, and a caller sees what the proxies on its way have.
            lab.wait_until_out_of_proxies(machine, CALLER)
            without = time.monotonic()
            lab.ssh(machine, "sudo systemctl start echo")
            back = wait_until(lambda: lab.entry_health(entry) == "True", description="the WorkloadEntry is Healthy")
            lab.wait_until_answered_by("pod", lab.service_endpoints)
        before, after = ([each for each in requests if (each.started >= without) == later] for later in (False, True))
        print(f"out after {out:.1f} s, back after {back:.1f} s; lost {lost_share(before):.1%}, then {lost_share(after):.1%}")
        # Until the probe has failed often enough, callers see the machine's own share fail: Istio repeats no answer 503.
        assert not lost_share(after), describe_lost(after)

    @pytest.mark.istio_case(16)
    def test_an_entry_has_the_groups_labels_and_ports_and_the_machines_network(self, lab: Lab) -> None:
        group = lab.get("workloadgroup", "product")["spec"]
        machine = lab.outputs()["machines"][lab.tested_machine]
        entry = lab.get("workloadentry", machine["entry"])
        spec = entry["spec"]
        assert spec["labels"].items() >= group["metadata"]["labels"].items()
        assert spec["labels"][CANONICAL_REVISION_LABEL] == "machines"  # the proxy's own, from the label `version`
        assert (spec["ports"], spec["serviceAccount"]) == (group["template"]["ports"], "product")
        assert (spec["address"], entry["metadata"]["name"]) == (machine["address"], f"product-{machine['address']}-{spec['network']}")
        assert spec["network"] == ("pods" if lab.tested_machine == "product-1" else "far")

    @pytest.mark.istio_case(14)
    def test_istiod_registers_only_the_workload_itself(self, lab: Lab) -> None:
        """A service account of another name, one of another namespace, and no token at all; the agent has no certificate yet each time."""
        machine = lab.tested_machine
        entry = lab.outputs()["machines"][machine]["entry"]
        token_file = "/var/lib/istio-vm-mesh/var/run/secrets/tokens/istio-token"
        lab.ssh(
            machine,
            f"sudo sh -c 'cp -a {token_file} /root/token; cp -a /var/lib/istio-vm-mesh/etc/certs /root/certs; systemctl mask --runtime istio-vm-mesh; systemctl kill --signal KILL istio-vm-mesh'",
        )
        lab.kubectl("delete", "workloadentry", entry)
        lab.kubectl("create", "serviceaccount", "other", check=False)
        try:
            for account, namespace, reason in (
                ("other", "shop", "no identities"),
                ("default", "default", "no identities"),
                ("", "", "Unauthenticated"),
            ):
                token = (
                    lab.kubectl("create", "token", account, "--namespace", namespace, "--audience", TOKEN_AUDIENCE) if account else "none"
                )
                write = f"umask 077; cat >{token_file}; chown istio-proxy {token_file}; rm -f /var/lib/istio-vm-mesh/etc/certs/key.pem /var/lib/istio-vm-mesh/etc/certs/cert-chain.pem"
                lab.ssh(
                    machine,
                    f"echo {token.strip()} | sudo sh -c '{write}; systemctl unmask --runtime istio-vm-mesh; systemctl restart istio-vm-mesh'",
                )
                lab.wait_for_log(machine, reason)
                assert lab.entry_health(entry) is None
                lab.ssh(machine, "sudo sh -c 'systemctl mask --runtime istio-vm-mesh; systemctl kill --signal KILL istio-vm-mesh'")
        finally:
            lab.ssh(
                machine,
                f"sudo sh -c 'mv /root/token {token_file}; rm -rf /var/lib/istio-vm-mesh/etc/certs; mv /root/certs /var/lib/istio-vm-mesh/etc/certs; systemctl unmask --runtime istio-vm-mesh; systemctl restart istio-vm-mesh'",
            )
            lab.kubectl("delete", "serviceaccount", "other")
        wait_until(lambda: lab.entry_health(entry) == "True", description="the machine is back with its own certificate")

    # DNS, and istiod away

    @pytest.mark.istio_case(26)
    def test_without_istiod_calls_and_names_go_on_after_a_reboot_names_too(self, lab: Lab) -> None:
        machine = lab.tested_machine
        for name in (lab.plain_hostname, *NAMES):
            assert resolves(lab, machine, name), f"{name} does not resolve"
        with without_istiod(lab):
            for name in (lab.plain_hostname, *NAMES):
                assert resolves(lab, machine, name), f"{name} does not resolve without istiod"
            for caller in ("pod", machine):
                lab.wait_until_answered_by(caller, lab.service_endpoints)
            lab.docker("restart", lab.container(machine))
            up = f"systemctl is-active --quiet istio-vm-mesh && getent hosts {lab.plain_hostname} && echo up"
            wait_until(lambda: "up" in lab.ssh(machine, up, check=False).split(), description="the machine has booted")
            assert resolves(lab, machine, lab.plain_hostname), "names do not resolve on a machine that booted without istiod"
            assert "ISTIO_OUTPUT" in lab.exec_in_container(machine, "iptables-save")
            assert not lab.agent_ready(machine)
        controller = "istio.io/workloadController"
        [istiod] = lab.get("pods", "--selector", "app=istiod", "--namespace", ISTIO_NAMESPACE)["items"]
        name = istiod["metadata"]["name"]
        entries = lambda: lab.get("workloadentries")["items"]  # noqa: E731
        back = wait_until(
            lambda: {each["metadata"]["annotations"][controller] for each in entries()} == {name},
            description="machines are connected again",
        )
        print(f"connected {back:.1f} s after istiod was back")
        wait_until(lambda: all(resolves(lab, machine, each) for each in (lab.plain_hostname, *NAMES)), description="names resolve")
        lab.wait_until_answered_by(machine, lab.service_endpoints)

    # Policy

    @pytest.mark.istio_case(21)
    def test_callers_outside_the_mesh_are_refused(self, lab: Lab) -> None:
        """As the verification says, of every machine and pod, or of the gateways before them."""
        evidence = lab.evidence("product")
        assert {each.result for each in evidence.plaintext} == {"refused"}
        called = {each.endpoint for each in evidence.plaintext}
        # All that the verification found: far machines by their gateways. What was on its way out may have answered its calls too.
        machines, pods = evidence.entries, evidence.pods
        near = {each.endpoint for each in machines if each.entry.rpartition("-")[2] == "pods"}
        assert machines and called >= near | {f"{each.address}:8080" for each in pods if each.ready}
        assert len(near) == len(machines) or any(endpoint.endswith(f":{CROSS_NETWORK_PORT}") for endpoint in called)

    @pytest.mark.istio_case(21)
    def test_a_machine_answers_only_callers_that_a_policy_allows(self, lab: Lab) -> None:
        def machines_with_policy() -> set[str]:
            """Those whose own proxies have it. Calls meet some machines by chance."""
            return {machine for machine in lab.machines if POLICY_NAME in proxy_configuration(lab, machine)}

        lab.apply(POLICY)
        wait_until(lambda: machines_with_policy() == lab.machines, description="each machine has the policy")
        wait_until(
            lambda: http_statuses(lab, "deploy/product", "http://machines/", 8) == [403] * 8, description="another caller is refused"
        )
        assert http_statuses(lab, "statefulset/steady", "http://machines/", 8) == [200] * 8
        lab.kubectl("delete", "authorizationpolicy", POLICY_NAME)
        wait_until(lambda: not machines_with_policy(), description="no machine has the policy")
        wait_until(
            lambda: http_statuses(lab, "deploy/product", "http://machines/", 8) == [200] * 8, description="every caller is answered again"
        )

    # Traffic management

    @pytest.mark.parametrize("caller", ["deploy/product", "machine"])
    def test_calls_are_split_by_weight_between_pods_and_machines(self, lab: Lab, caller: str) -> None:
        call = lab.call_from_pod if caller != "machine" else partial(lab.call_from_machine, lab.tested_machine)
        answers = all_of(lambda count: call("split", count), 400)
        share = sum(each.hostname in lab.machines for each in answers) / len(answers)
        print(f"{share:.0%} of the requests went to machines")
        assert LOST not in {each.hostname for each in answers}
        assert 0.08 < share < 0.32  # 20 %, six standard deviations either way

    @pytest.mark.parametrize(("caller", "server"), [("deploy/product", "machines"), ("machine", "pods")])
    def test_retries_and_timeouts_hold_for_machines(self, lab: Lab, caller: str, server: str) -> None:
        """A machine is the server, and then the caller."""
        caller = lab.tested_machine if caller == "machine" else caller
        assert set(http_statuses(lab, caller, f"http://{server}/once?codes=503:50,200:50", 40)) == {200, 503}
        assert set(http_statuses(lab, caller, f"http://{server}/again?codes=503:50,200:50", 40)) == {200}
        assert http_statuses(lab, caller, f"http://{server}/impatient?delay=3s") == [504]
        assert http_statuses(lab, caller, f"http://{server}/patient?delay=1500ms") == [200]

    # Telemetry

    def test_a_machine_logs_and_counts_calls_to_it_and_by_it(self, lab: Lab) -> None:
        before = counters(lab)
        path = f"/seen-{time.monotonic_ns()}"
        # Behind a gateway each of a caller's connections meets one machine, which may be another one.
        lab.wait_until_answered_by("pod", {lab.tested_machine}, "machines", path=f"{path}-in?delay=300ms")
        assert http_statuses(lab, lab.tested_machine, f"http://pods{path}-out", 30).count(200) == 30

        def logged() -> bool:
            journal = lab.ssh(
                lab.tested_machine, f"sudo journalctl --unit istio-vm-mesh --since -10min --output cat | grep -F '{path}'", check=False
            )
            lines = {way: [line for line in journal.splitlines() if f"{path}-{way}" in line] for way in ("in", "out")}
            return any("inbound|8080||" in line for line in lines["in"]) and any("outbound|80||pods.shop" in line for line in lines["out"])

        wait_until(logged, description="both calls are in the machine's journal")
        after = counters(lab)
        assert after["inbound|8080||"] > before["inbound|8080||"]
        outbound = f"outbound|80||{service_host('pods', 'shop', DEFAULT_DOMAIN)}"
        assert after[outbound] - before.get(outbound, 0) == 30


def counters(lab: Lab) -> dict[str, int]:
    """Envoy's requests by Service, as a Prometheus reads them on the machine."""
    address = lab.outputs()["machines"][lab.tested_machine]["address"]
    text = lab.run("curl", "--silent", "--fail", f"http://{address}:{METRICS_PORT}/stats/prometheus").stdout
    return {
        name: int(value)
        for name, value in re.findall(r'^envoy_cluster_upstream_rq_total\{cluster_name="([^"]+)"\} (\d+)', text, re.MULTILINE)
    }
