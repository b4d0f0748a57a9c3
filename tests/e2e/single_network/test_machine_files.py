"""The machine: what it was before, how it is reached, and the files that the join wrote."""

from __future__ import annotations

import base64
import json
import re
import secrets
import shlex
from pathlib import Path

import pytest
import yaml

from components.machines.scripts.join_machine import TOKEN_LIFETIME_S
from components.names import ISTIO_NAMESPACE
from tests.support.lab import Lab


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Lab:
    """The stack `lab`."""
    single_network_lab.ensure()
    return single_network_lab


def test_the_machines_image_holds_nothing_of_istio(lab: Lab) -> None:
    find = r"find / -xdev \( -iname '*istio*' -o -iname '*envoy*' -o -iname '*pilot*' \) -print; getent passwd istio-proxy; dpkg --list | grep -i istio; true"
    image = lab.resource("product-1-container")["inputs"]["triggers"][0]
    assert lab.docker("run", "--rm", "--entrypoint", "sh", image, "-c", find) == ""
    assert "istio-sidecar" not in lab.ssh("product-1", "dpkg --list")  # the join unpacked it
    outside = r"find / -xdev \( -iname '*istio*' -o -iname '*envoy*' -o -iname '*pilot*' \) -print 2>/dev/null"
    ours = (
        "/opt/istio-vm-mesh",
        "/var/lib/istio-vm-mesh",
        "/etc/systemd/system/istio-vm-mesh",
        "/etc/systemd/system/multi-user.target.wants/istio-vm-mesh",
    )
    assert [path for path in lab.ssh("product-1", f"sudo {outside}; true").splitlines() if not path.startswith(ours)] == []
    assert lab.ssh("product-1", "sudo ls -d /etc/certs /etc/istio /var/lib/istio /run/secrets/tokens; true", check=False).strip() == ""


def test_the_join_goes_by_ssh_alone_with_the_host_key_pinned(lab: Lab) -> None:
    key = lab.exec_in_container("product-1", "cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
    of_machine = {name: each for name, each in lab.resources().items() if name.startswith("product-1-")}
    scripts = re.compile(r"prove_machine\.py|join_machine\.py")
    on_machine = {name: each["inputs"] for name, each in of_machine.items() if scripts.search(str(each["inputs"].get("create")))}
    assert {"product-1-join", "product-1-proof"} == set(on_machine)
    hops = [json.loads(inputs["stdin"])["create"]["target"]["hop"] for inputs in on_machine.values()]
    assert all(hop["host_key"].split() == key for hop in hops)
    # The container is made through Docker, as a cloud's API makes a machine, and nothing else is done through it.
    by_docker = re.compile(r"platforms/docker/scripts/|\bdocker (?!inspect)")
    assert [name for name, each in of_machine.items() if by_docker.search(json.dumps(each["inputs"]))] == ["product-1-container"]
    assert "docker exec" not in json.dumps(of_machine["product-1-container"]["inputs"])


def test_the_machines_systemd_accepts_the_units(lab: Lab) -> None:
    """With all that Debian's own units say there, not only stand-ins for them (tests/unit/machines/test_units.py)."""
    units = lab.exec_in_container("product-1", "cd /etc/systemd/system && ls -d istio-vm-mesh*.service").split()
    assert "istio-vm-mesh.service" in units
    assert lab.exec_in_container("product-1", f"systemd-analyze verify --man=no {shlex.join(units)} 2>&1") == ""


@pytest.fixture(scope="module")
def configured(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What istioctl writes for a machine of the same WorkloadGroup."""
    directory = tmp_path_factory.mktemp("istioctl")
    group = lab.kubectl("get", "workloadgroup", "product", "--output", "yaml")
    (directory / "group.yaml").write_text(group)
    lab.istioctl(
        "x", "workload", "entry", "configure", "--autoregister", "--file", str(directory / "group.yaml"), "--output", str(directory),
        "--clusterID", "Kubernetes", "--ingressIP", lab.outputs()["gateway"], "--tokenDuration", "3600",
    )  # fmt: skip
    return directory


@pytest.mark.istio_case(19)
def test_its_files_are_those_of_istioctl(lab: Lab, configured: Path) -> None:
    assert lab.ssh("product-1", "cat /var/lib/istio-vm-mesh/cluster.env") == (configured / "cluster.env").read_text()
    # The agent writes the root certificate again when istiod gives it, without the last newline.
    assert (
        lab.ssh("product-1", "sudo cat /var/lib/istio-vm-mesh/etc/certs/root-cert.pem").strip()
        == (configured / "root-cert.pem").read_text().strip()
    )
    assert yaml.safe_load(lab.ssh("product-1", "cat /var/lib/istio-vm-mesh/etc/istio/config/mesh")) == yaml.safe_load(
        (configured / "mesh.yaml").read_text()
    )


@pytest.mark.istio_case(19, 28)
def test_all_that_differs_from_istioctl_is_in_one_file(lab: Lab) -> None:
    text = lab.ssh("product-1", "cat /var/lib/istio-vm-mesh/overrides.env")
    address, gateway = lab.outputs()["machines"]["product-1"]["address"], lab.outputs()["gateway"]
    variables = dict(line.split("=", 1) for line in shlex.split(text))
    labels = json.loads(variables.pop("ISTIO_METAJSON_LABELS", "{}"))
    assert {port["protocol"] for port in json.loads(variables.pop("ISTIO_META_POD_PORTS"))} == {"TCP"}
    mesh = yaml.safe_load(lab.ssh("product-1", "cat /var/lib/istio-vm-mesh/etc/istio/config/mesh"))
    probe = mesh["defaultConfig"]["readinessProbe"]
    assert labels.get("istio-vm-mesh/machine", "product-1") == "product-1"
    assert variables == {
        "CLOUD_PLATFORM": "none",
        "INSTANCE_IP": address,
        "ISTIOD_SAN": "istiod.istio-system.svc",
        "ISTIO_BOOTSTRAP": "/opt/istio-vm-mesh/current/var/lib/istio/envoy/envoy_bootstrap_tmpl.json",
        "ISTIO_INBOUND_PORTS": "*",
        "ISTIO_SERVICE_EXCLUDE_CIDR": "169.254.0.0/16,fe80::/10",
        "OUTPUT_CERTS": "/var/lib/istio-vm-mesh/etc/certs",
        "POD_NAME": "product-1",
        "PROV_CERT": "/var/lib/istio-vm-mesh/etc/certs",
        "PROXY_ROLE": "sidecar",
        "PROXY_CONFIG": json.dumps(
            {
                "binaryPath": "/opt/istio-vm-mesh/current/usr/local/bin/envoy",
                "configPath": "./etc/istio/proxy",
                "discoveryAddress": f"{gateway}:15012",
                "readinessProbe": {**probe, "initialDelaySeconds": 1},
            },
            sort_keys=True,
        ),
    }
    assert "istiod" not in lab.ssh("product-1", "cat /etc/hosts")
    files = lab.ssh("product-1", "systemctl cat istio-vm-mesh | sed -n 's/^EnvironmentFile=//p'").split()
    probe = "-/run/istio-vm-mesh-probe.env"  # where the machine has a translated address
    assert files == ["/var/lib/istio-vm-mesh/cluster.env", "/var/lib/istio-vm-mesh/overrides.env", probe]
    assert not lab.ssh("product-1", f"cat {probe.removeprefix('-')}", check=False)


def test_the_token_is_istioctls_and_only_the_proxy_reads_it(lab: Lab, configured: Path) -> None:
    file = "/var/lib/istio-vm-mesh/var/run/secrets/tokens/istio-token"
    ours, theirs = (_claims(text) for text in (lab.ssh("product-1", f"sudo cat {file}"), (configured / "istio-token").read_text()))
    assert ours["aud"] == theirs["aud"] == ["istio-ca"]
    assert ours["sub"] == theirs["sub"] == "system:serviceaccount:shop:product"
    assert theirs["exp"] - theirs["iat"] == 3600
    assert ours["exp"] - ours["iat"] == TOKEN_LIFETIME_S, "the agent may start only after a wait for its slot"
    assert lab.ssh("product-1", f"sudo stat --format '%a %U' {file}").split() == ["600", "istio-proxy"]


def _claims(token: str) -> dict:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_the_control_plane_is_reached_through_the_gateway_alone(lab: Lab) -> None:
    connections = [line.split() for line in lab.ssh("product-1", "ss --no-header --tcp --numeric state established").splitlines()]
    peers = {tuple(each[3].rsplit(":", 1)) for each in connections}
    assert {host for host, port in peers if port in ("15010", "15012", "15014", "15017")} == {lab.outputs()["gateway"]}
    assert ("15012" in {port for _, port in peers}) and "15010" not in {port for _, port in peers}
    istiod = lab.get("pods", "--namespace", ISTIO_NAMESPACE, "--selector", "app=istiod")["items"][0]["status"]["podIP"]
    assert istiod not in {host for host, _ in peers}


def test_nothing_secret_is_in_the_machines_log(lab: Lab) -> None:
    journal = lab.ssh("product-1", "sudo journalctl --no-pager --output cat")
    assert "sudo" in journal
    assert not [what for what, text in lab.secrets().items() if text in journal]


def test_no_other_user_can_read_a_secret_on_a_machine(lab: Lab) -> None:
    planted, places = secrets.token_hex(16), ["/etc", "/var", "/run", "/tmp", "/home", "/root", "/opt"]
    lab.exec_in_container("product-1", f"echo {planted} >/var/tmp/planted")
    texts = "\n".join([planted, *lab.secrets().values()])
    grep = ["grep", "--recursive", "--files-with-matches", "--no-messages", "--devices=skip", "--fixed-strings", "--file=/dev/stdin"]
    machine = lab.container("product-1")
    output = lab.docker(
        "exec",
        "--interactive",
        "--user",
        "nobody",
        machine,
        *grep,
        *places,
        check=False,
        stdin=texts,
    )
    lab.exec_in_container("product-1", "rm /var/tmp/planted")
    assert output.split() == ["/var/tmp/planted"]
