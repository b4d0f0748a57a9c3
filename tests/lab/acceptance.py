"""What holds in every lab, whatever its networks: Istio's own machine test cases, DNS, traffic management and telemetry. docs/acceptance.md has the list.

A subclass says which lab is tested, as the fixture `mesh`. What the tests need besides the stack is applied with kubectl, as users do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.lab.environment import Call, Config, Lab, wait_for

NAMES = ("product", "product.shop", "product.shop.svc", "product.shop.svc.cluster.local")
ECHO = "istio-vm-mesh/echo:1.31.0"

CALLER = "statefulset/steady"
"""Calls while pods and machines come and go."""
# A second caller with an identity of its own, which also has a name of its own: a headless Service over a StatefulSet. And an Envoy that closes
# idle connections to its application before the echo server does, after five seconds: a call that meets such an end is lost.
STEADY = f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default}}
spec: {{inboundConnectionPool: {{http: {{idleTimeout: 3s}}}}}}
---
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
    metadata: {{labels: {{app: steady}}}}
    spec:
      serviceAccountName: steady
      containers: [{{name: steady, image: {ECHO}, imagePullPolicy: IfNotPresent, args: [--port, "8080"]}}]
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
    retries: {{attempts: 20, retryOn: 5xx}}
    route: [{{destination: {{host: {name}, port: {{number: 80}}}}}}]
  - match: [{{port: 80}}]
    retries: {{attempts: 0}}
    route: [{{destination: {{host: {name}, port: {{number: 80}}}}}}]
"""
    for name in ("machines", "pods")
)
SPLIT = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: split}
spec:
  host: split
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
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: steady-alone}
spec:
  selector: {matchLabels: {version: machines}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/steady]}}]}]
"""


def told_apart(config: Config) -> None:
    """Give pods and machines a label that policies can tell them apart by."""
    product = config["workloads"]["product"]
    product["labels"]["version"] = "machines"
    product["pods"]["labels"] = {"version": "pods"}


def told(calls: Sequence[Call]) -> str:
    """What the callers know of lost calls."""
    return "\n".join(sorted({f"{call.at - calls[0].at:.1f} s: {call.said}" for call in calls if call.by == "lost"}))


def none_lost(calls: Sequence[Call]) -> None:
    """No call was lost, and there were enough of them."""
    lost = sum(call.by == "lost" for call in calls)
    seconds = calls[-1].at - calls[0].at + 1
    print(f"{len(calls)} calls in {seconds:.0f} s, {lost} lost")
    assert not lost, f"{lost} of {len(calls)} calls were lost: {told(calls)}"
    assert len(calls) / seconds > 50


def refused(mesh: Lab, machine: str, said: str) -> None:
    """Wait until the machine's agent was told something."""
    wait_for(lambda: said in mesh.journal(machine), 15, f"the agent says {said!r}")


def statuses(mesh: Lab, caller: str, url: str, count: int = 1) -> list[int]:
    """The HTTP status of some calls by a machine, or by `deploy/…` or `statefulset/…`; 0 for one without an answer."""
    if "/" in caller:
        client = ["/usr/local/bin/client", url, "--count", str(count), "--qps", "50", "--timeout", "20s"]
        said = mesh.kubectl("exec", caller, "--container", caller.split("/")[1], "--", *client, check=False)
        found = re.findall(r"StatusCode=(\d+)", said)
    else:
        urls = " ".join([f"--output /dev/null '{url}'"] * count)
        found = mesh.ssh(caller, f"curl --silent --max-time 20 --write-out '%{{http_code}} ' {urls}", check=False).split()
    return [int(status) for status in found] + [0] * (count - len(found))


def resolves(mesh: Lab, machine: str, name: str) -> bool:
    """Whether a machine resolves a name, over UDP and over TCP."""
    ask = " && ".join(
        f"RES_OPTIONS='{options}' timeout 3 getent hosts {name} >/dev/null" for options in ("attempts:1", "use-vc attempts:1")
    )
    return mesh.ssh(machine, f"{ask} && echo yes", check=False).strip() == "yes"


def shares(calls: Sequence[Call], since: float) -> tuple[float, float]:
    """The share of calls that was lost before a moment, and since then."""
    parts = [call.by for call in calls if call.at < since], [call.by for call in calls if call.at >= since]
    before, after = (part.count("lost") / len(part) for part in parts)
    return before, after


@contextmanager
def without_istiod(mesh: Lab) -> Iterator[None]:
    """Run the block while the control plane is away."""
    there = ["--namespace", "istio-system"]
    mesh.kubectl("scale", "deployment/istiod", "--replicas", "0", *there)
    mesh.kubectl("delete", "pods", "--selector", "app=istiod", "--grace-period", "1", *there)
    try:
        assert not mesh.kubectl("get", "pods", "--selector", "app=istiod", "--output", "name", *there)
        yield
        assert not mesh.kubectl("get", "pods", "--selector", "app=istiod", "--output", "name", *there)
    finally:
        mesh.kubectl("scale", "deployment/istiod", "--replicas", "1", *there)
        mesh.kubectl("rollout", "status", "deployment/istiod", "--timeout", "90s", *there)
        # Its webhook is called by way of a Service, which hears of the new pod a moment later.
        answers = ["apply", "--dry-run=server", "--filename", "-"]
        wait_for(
            lambda: not mesh.run("kubectl", "--namespace", "shop", *answers, stdin=POLICY, check=False).returncode, 30, "istiod answers"
        )


class Acceptance:
    """The tests; `mesh` is the lab, up."""

    @pytest.fixture(scope="class")
    @classmethod
    def more(cls, mesh: Lab) -> Iterator[None]:
        """What the tests need besides the stack; and on every machine a second echo server, for HTTP/2 and HTTPS."""
        apply(mesh, STEADY + SERVICES + ROUTES + SPLIT)
        key = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=machines -keyout /tmp/key -out /tmp/crt 2>/dev/null; chmod a+r /tmp/key"
        server = "/usr/local/bin/echo-server --port 8081 --port 8443 --tls 8443 --crt /tmp/crt --key /tmp/key --grpc 7071 --tcp 9091"
        for machine in sorted(mesh.machines):
            mesh.ssh(machine, f"sudo sh -c '{key}; systemd-run --quiet --collect --unit more --uid application {server}'")
        mesh.kubectl("rollout", "status", "statefulset/steady", "--timeout", "60s")
        yield
        for machine in sorted(mesh.machines):
            mesh.ssh(machine, "sudo systemctl stop more", check=False)
        for text in (POLICY, STEADY + SERVICES + ROUTES + SPLIT):
            mesh.run("kubectl", "--namespace", "shop", "delete", "--ignore-not-found", "--filename", "-", stdin=text, check=False)

    # Connectivity

    @pytest.mark.parametrize("name", NAMES)
    def test_pod_and_machine_call_each_other_by_name(self, mesh: Lab, name: str) -> None:
        for caller in ("pod", mesh.tested):
            mesh.meets(caller, mesh.everybody, name)

    @pytest.mark.usefixtures("more")
    def test_a_machine_calls_a_headless_service_and_a_pod_of_a_statefulset_by_its_name(self, mesh: Lab) -> None:
        # A headless Service stands for its pods' own addresses, which no gateway passes on: the caller is in the pods' network.
        urls = [f"http://{name}:8080/" for name in ("headless.shop", "steady-0.headless.shop.svc.cluster.local")]
        wait_for(lambda: [statuses(mesh, "product-1", url) for url in urls] == [[200], [200]], 10, "both names answer")

    @pytest.mark.usefixtures("more")
    @pytest.mark.parametrize(
        "url", ["http://protocols", "http://protocols:8081", "grpc://protocols:7070", "tcp://protocols:9090", "https://protocols:8443"]
    )
    def test_a_pod_calls_machines_by_every_protocol(self, mesh: Lab, url: str) -> None:
        client = ["/usr/local/bin/client", url, "--count", "8", "--timeout", "10s", "--new-connection-per-request"]
        client += ["--http2"] if url.endswith("8081") else ["--insecure-skip-verify"] if url.startswith("https") else []

        def answered() -> bool:
            said = mesh.kubectl("exec", "deploy/product", "--container", "product", "--", *client, check=False)
            # Not by each of them: what keeps one connection meets one machine behind a gateway.
            found = re.findall(r"Hostname=(\S+)", said)
            return len(found) == 8 and mesh.machines.issuperset(found)

        wait_for(answered, 20, f"machines answer {url}")

    # Registration

    def test_an_agent_that_stops_is_gone_without_a_lost_call_and_back_within_5_seconds(self, mesh: Lab) -> None:
        machine = mesh.tested
        entry = mesh.outputs()["machines"][machine]["entry"]
        with mesh.traffic() as calls:
            started = time.monotonic()
            mesh.ssh(machine, "sudo systemctl stop istio")
            wait_for(lambda: mesh.health(entry) is None, 5, "the WorkloadEntry is gone")
            gone, without = time.monotonic() - started, time.monotonic()
            # The machine stays reachable, and ordinary names resolve: nothing is captured any more.
            assert resolves(mesh, machine, mesh.ordinary)
            assert (
                mesh.ssh(machine, "sudo sh -c 'iptables-save; iptables-legacy-save; iptables-nft-save' | grep ISTIO || echo none").strip()
                == "none"
            )
            mesh.ssh(machine, "sudo systemctl start istio")
            back = wait_for(lambda: mesh.health(entry) == "True", 5, "the WorkloadEntry is Healthy")
            mesh.meets("pod", {machine}, seconds=10)
        before, after = shares(calls, without)
        print(f"gone after {gone:.1f} s, Healthy after {back:.1f} s; lost {before:.1%}, then {after:.1%}")
        assert gone < 22  # twice the grace and two seconds
        assert before == after == 0, told(calls)

    def test_a_failing_probe_takes_the_machine_out_and_a_passing_one_back_in(self, mesh: Lab) -> None:
        machine = mesh.tested
        entry = mesh.outputs()["machines"][machine]["entry"]
        with mesh.traffic() as calls:
            mesh.ssh(machine, "sudo systemctl kill --signal KILL echo && sudo systemctl stop echo")
            out = wait_for(lambda: mesh.health(entry) == "False", 15, "the WorkloadEntry is unhealthy")
            wait_for(lambda: machine not in {each.hostname for each in mesh.from_pod(count=40)}, 3, "the machine is not called")
            without = time.monotonic()
            mesh.ssh(machine, "sudo systemctl start echo")
            back = wait_for(lambda: mesh.health(entry) == "True", 15, "the WorkloadEntry is Healthy")
            mesh.meets("pod", mesh.everybody)
        before, after = shares(calls, without)
        print(f"out after {out:.1f} s, back after {back:.1f} s; lost {before:.1%}, then {after:.1%}")
        # Until the probe has failed often enough, callers see the machine's own share fail: Istio repeats no answer 503.
        assert after == 0, told([call for call in calls if call.at >= without])

    def test_an_entry_has_the_groups_labels_and_ports_and_the_machines_network(self, mesh: Lab) -> None:
        group = mesh.get("workloadgroup", "product")["spec"]
        machine = mesh.outputs()["machines"][mesh.tested]
        entry = mesh.get("workloadentry", machine["entry"])
        spec = entry["spec"]
        assert spec["labels"].items() >= group["metadata"]["labels"].items()
        assert spec["labels"]["service.istio.io/canonical-revision"] == "machines"  # the proxy's own, from the label `version`
        assert (spec["ports"], spec["serviceAccount"]) == (group["template"]["ports"], "product")
        assert (spec["address"], entry["metadata"]["name"]) == (machine["address"], f"product-{machine['address']}-{spec['network']}")
        assert spec["network"] == ("pods" if mesh.tested == "product-1" else "far")

    def test_istiod_registers_nobody_but_the_workload_itself(self, mesh: Lab) -> None:
        """A service account of another name, one of another namespace, and no token at all; the agent has no certificate yet each time."""
        machine = mesh.tested
        entry = mesh.outputs()["machines"][machine]["entry"]
        kept = "/var/lib/istio/envoy/istio-token"
        mesh.ssh(
            machine,
            f"sudo sh -c 'cp -a {kept} /root/token; cp -a /etc/certs /root/certs; systemctl mask --runtime istio; systemctl kill --signal KILL istio'",
        )
        mesh.kubectl("delete", "workloadentry", entry)
        mesh.kubectl("create", "serviceaccount", "other", check=False)
        try:
            for account, namespace, said in (
                ("other", "shop", "no identities"),
                ("default", "default", "no identities"),
                ("", "", "Unauthenticated"),
            ):
                token = mesh.kubectl("create", "token", account, "--namespace", namespace, "--audience", "istio-ca") if account else "none"
                write = f"umask 077; cat >{kept}; chown istio-proxy {kept}; rm -f /etc/certs/key.pem /etc/certs/cert-chain.pem"
                mesh.ssh(machine, f"echo {token.strip()} | sudo sh -c '{write}; systemctl unmask --runtime istio; systemctl restart istio'")
                refused(mesh, machine, said)
                assert mesh.health(entry) is None
                mesh.ssh(machine, "sudo sh -c 'systemctl mask --runtime istio; systemctl kill --signal KILL istio'")
        finally:
            mesh.ssh(
                machine,
                f"sudo sh -c 'mv /root/token {kept}; rm -rf /etc/certs; mv /root/certs /etc/certs; systemctl unmask --runtime istio; systemctl restart istio'",
            )
            mesh.kubectl("delete", "serviceaccount", "other")
        wait_for(lambda: mesh.health(entry) == "True", 20, "the machine is back with its own certificate")

    # DNS, and istiod away

    def test_without_istiod_calls_and_names_go_on_after_a_reboot_names_too(self, mesh: Lab) -> None:
        machine = mesh.tested
        for name in (mesh.ordinary, *NAMES):
            assert resolves(mesh, machine, name), f"{name} does not resolve"
        with without_istiod(mesh):
            for name in (mesh.ordinary, *NAMES):
                assert resolves(mesh, machine, name), f"{name} does not resolve without istiod"
            for caller in ("pod", machine):
                mesh.meets(caller, mesh.everybody)
            mesh.docker("restart", f"istio-vm-mesh-{mesh.stack}-{machine}")
            up = f"systemctl is-active --quiet istio && getent hosts {mesh.ordinary} && echo up"
            wait_for(lambda: "up" in mesh.ssh(machine, up, check=False).split(), 30, "the machine has booted")
            assert resolves(mesh, machine, mesh.ordinary), "names do not resolve on a machine that booted without istiod"
            assert "ISTIO_OUTPUT" in mesh.inside(machine, "iptables-save")
            assert not mesh.ready(machine)
        controller = "istio.io/workloadController"
        [istiod] = mesh.get("pods", "--selector", "app=istiod", "--namespace", "istio-system")["items"]
        name = istiod["metadata"]["name"]
        entries = lambda: mesh.get("workloadentries")["items"]  # noqa: E731
        back = wait_for(
            lambda: {each["metadata"]["annotations"][controller] for each in entries()} == {name}, 60, "machines are connected again"
        )
        print(f"connected {back:.1f} s after istiod was back")
        wait_for(lambda: all(resolves(mesh, machine, each) for each in (mesh.ordinary, *NAMES)), 20, "names resolve")
        mesh.meets(machine, mesh.everybody)

    # Policy

    def test_nobody_outside_the_mesh_is_answered(self, mesh: Lab) -> None:
        """As the verification says, of every machine and pod, or of the gateways before them."""
        evidence = mesh.outputs()["verification"]["product"]
        assert {each["result"] for each in evidence["plaintext"]} == {"refused"}
        called = {each["endpoint"] for each in evidence["plaintext"]}
        # All that the verification found: far machines by their gateways. What was on its way out may have answered its calls too.
        machines, pods = evidence["entries"], evidence["pods"]
        near = {each["endpoint"] for each in machines if each["entry"].endswith("-pods")}
        assert machines and called >= near | {f"{each['address']}:8080" for each in pods if each["ready"]}
        assert len(near) == len(machines) or any(endpoint.endswith(":15443") for endpoint in called)

    @pytest.mark.usefixtures("more")
    def test_a_machine_answers_who_a_policy_allows_and_nobody_else(self, mesh: Lab) -> None:
        apply(mesh, POLICY)
        wait_for(lambda: statuses(mesh, "deploy/product", "http://machines/", 8) == [403] * 8, 15, "another caller is refused")
        assert statuses(mesh, "statefulset/steady", "http://machines/", 8) == [200] * 8
        mesh.kubectl("delete", "authorizationpolicy", "steady-alone")
        wait_for(lambda: statuses(mesh, "deploy/product", "http://machines/", 8) == [200] * 8, 15, "everybody is answered again")

    # Traffic management

    @pytest.mark.usefixtures("more")
    @pytest.mark.parametrize("caller", ["deploy/product", "machine"])
    def test_calls_are_split_by_weight_between_pods_and_machines(self, mesh: Lab, caller: str) -> None:
        answers = mesh.from_pod("split", 200) if caller != "machine" else mesh.from_machine(mesh.tested, "split", 200)
        share = sum(each.hostname in mesh.machines for each in answers) / 200
        print(f"{share:.0%} of the calls went to machines")
        assert "lost" not in {each.hostname for each in answers}
        assert 0.08 < share < 0.35  # 20 %, four standard deviations either way

    @pytest.mark.usefixtures("more")
    @pytest.mark.parametrize(("caller", "server"), [("deploy/product", "machines"), ("machine", "pods")])
    def test_retries_and_timeouts_hold_for_machines(self, mesh: Lab, caller: str, server: str) -> None:
        """A machine is the server, and then the caller."""
        caller = mesh.tested if caller == "machine" else caller
        assert set(statuses(mesh, caller, f"http://{server}/once?codes=503:50,200:50", 40)) == {200, 503}
        assert set(statuses(mesh, caller, f"http://{server}/again?codes=503:50,200:50", 40)) == {200}
        assert statuses(mesh, caller, f"http://{server}/impatient?delay=3s") == [504]
        assert statuses(mesh, caller, f"http://{server}/patient?delay=1500ms") == [200]

    # Telemetry

    @pytest.mark.usefixtures("more")
    def test_a_machine_logs_and_counts_calls_to_it_and_by_it(self, mesh: Lab) -> None:
        before = counters(mesh)
        path = f"/seen-{time.monotonic_ns()}"
        assert statuses(mesh, "deploy/product", f"http://machines{path}-in", 30).count(200) == 30
        assert statuses(mesh, mesh.tested, f"http://pods{path}-out", 30).count(200) == 30

        def logged() -> bool:
            journal = mesh.ssh(mesh.tested, f"sudo journalctl --unit istio --since -1min --output cat | grep -F '{path}'", check=False)
            lines = {way: [line for line in journal.splitlines() if f"{path}-{way}" in line] for way in ("in", "out")}
            return any("inbound|8080||" in line for line in lines["in"]) and any("outbound|80||pods.shop" in line for line in lines["out"])

        wait_for(logged, 15, "both calls are in the machine's journal")
        after = counters(mesh)
        assert after["inbound|8080||"] > before["inbound|8080||"]
        assert after["outbound|80||pods.shop.svc.cluster.local"] - before.get("outbound|80||pods.shop.svc.cluster.local", 0) == 30


def apply(mesh: Lab, text: str) -> None:
    """Apply manifests in the namespace of the application."""
    mesh.run("kubectl", "--namespace", "shop", "apply", "--filename", "-", stdin=text)


def counters(mesh: Lab) -> dict[str, int]:
    """Envoy's requests by Service, as a Prometheus reads them on the machine."""
    address = mesh.outputs()["machines"][mesh.tested]["address"]
    text = mesh.run("curl", "--silent", "--fail", f"http://{address}:15090/stats/prometheus").stdout
    return {
        name: int(value)
        for name, value in re.findall(r'^envoy_cluster_upstream_rq_total\{cluster_name="([^"]+)"\} (\d+)', text, re.MULTILINE)
    }
