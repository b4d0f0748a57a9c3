"""The files of a machine are those of istioctl, and the tar that carries them depends on nothing else."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import yaml

from components.config.capture import Capture
from components.config.mesh import ChartValues, MeshSettings
from components.config.workload import WorkloadSettings
from components.istio import charts, manifests
from components.machines import bootstrap, files
from components.machines.bundle import Bundle, MachineFile, Owner, archive
from tests.support.samples import FACTS, PRODUCT


def test_cluster_env_is_sorted_and_quoted_as_istioctl_does() -> None:
    text = files.cluster_env(bootstrap.proxy_config(FACTS, PRODUCT, "pods"))
    assert text.splitlines() == [
        "CANONICAL_REVISION='v1'",
        "CANONICAL_SERVICE='product'",
        "ISTIO_INBOUND_PORTS='5432,8080'",
        "ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15020'",
        """ISTIO_METAJSON_LABELS='{"app":"product","service.istio.io/canonical-name":"product","service.istio.io/canonical-revision":"v1","version":"v1"}'""",
        "ISTIO_META_AUTO_REGISTER_GROUP='product'",
        "ISTIO_META_CLUSTER_ID='Kubernetes'",
        "ISTIO_META_DNS_CAPTURE='true'",
        "ISTIO_META_MESH_ID='lab'",
        "ISTIO_META_NETWORK='pods'",
        """ISTIO_META_POD_PORTS='[{"name":"http","containerPort":8080,"protocol":""},{"name":"tcp-db","containerPort":5432,"protocol":""}]'""",
        "ISTIO_META_WORKLOAD_NAME='product'",
        "ISTIO_NAMESPACE='shop'",
        "ISTIO_SERVICE='product.shop'",
        "ISTIO_SERVICE_CIDR='*'",
        "POD_NAMESPACE='shop'",
        "SERVICE_ACCOUNT='product'",
        "TRUST_DOMAIN='cluster.local'",
    ]


def test_the_proxy_configuration_holds_the_workloads_probe() -> None:
    config = yaml.safe_load(files.mesh_config(bootstrap.proxy_config(FACTS, PRODUCT, "pods")))["defaultConfig"]
    assert config["readinessProbe"] == manifests.workload_group(PRODUCT, "pods")["spec"]["probe"]
    assert config["readinessProbe"]["failureThreshold"] == 3
    assert config["discoveryAddress"] == "istiod.istio-system.svc:15012"


def test_the_stacks_mesh_configuration_reaches_the_machines() -> None:
    values = ChartValues(istiod={"meshConfig": {"defaultConfig": {"proxyMetadata": {"SECRET_TTL": "168h"}, "statusPort": 15099}}})
    custom = MeshSettings(id="lab", version="1.31.0", values=values)
    text = files.cluster_env(bootstrap.proxy_config(charts.facts(custom, "pods"), PRODUCT, "pods"))
    assert "SECRET_TTL='168h'\n" in text
    assert "ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15099'" in text


OWNER = Owner("istio-vm-mesh", "prod", "product-1", "r-1", "shop", "product")


def overrides(gateway: str = "172.31.6.2", workload: WorkloadSettings = PRODUCT, owner: Owner = OWNER) -> str:
    proxy = bootstrap.proxy_config(FACTS, workload, "far")
    return files.overrides_env(Bundle(owner, proxy, "172.31.6.130", gateway, "", "", role=workload.role))


def test_the_entry_says_who_joined_the_machine() -> None:
    labels = """ISTIO_METAJSON_LABELS='{"app":"product","istio-vm-mesh/machine":"product-1","istio-vm-mesh/registration":"r-1","""
    assert labels in overrides() and '"version":"v1"' in overrides()
    assert "METAJSON" not in overrides(owner=replace(OWNER, registration="")), "an instance group registers nothing"


def test_ports_have_the_protocol_by_which_istiod_finds_them() -> None:
    ports = json.dumps([{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in sorted(PRODUCT.ports.items())])
    assert f"ISTIO_META_POD_PORTS='{ports.replace(' ', '')}'\n" in overrides()


def test_another_port_of_the_gateway_is_where_the_agent_goes_and_withdraws_from() -> None:
    proxy = bootstrap.proxy_config(FACTS, PRODUCT, "far")
    text = files.overrides_env(Bundle(OWNER, proxy, "172.31.6.130", "mesh.example.com", "", "", gateway_port=443))
    assert '"discoveryAddress": "mesh.example.com:443"' in text
    assert "GATEWAY_HOST='mesh.example.com'\nGATEWAY_PORT='443'\n" in text
    assert "GATEWAY_" not in overrides()


def test_the_agent_says_where_the_machine_is() -> None:
    """istiod copies it into the entry, and takes it for the caller's place (istio/istio: pkg/bootstrap/config.go)."""
    proxy = bootstrap.proxy_config(FACTS, PRODUCT, "far")
    for owner in (OWNER, replace(OWNER, registration="")):
        text = files.overrides_env(Bundle(owner, proxy, "172.31.6.130", "gw", "", "", locality="north/north-1"))
        assert '"istio-locality":"north/north-1"' in text and '"app":"product"' in text
    assert "istio-locality" not in overrides()


def test_nothing_of_istios_package_is_looked_for_where_others_may_have_it() -> None:
    text = overrides()
    assert '{"binaryPath": "/opt/istio-vm-mesh/current/usr/local/bin/envoy", "configPath": "./etc/istio/proxy", ' in text
    assert "ISTIO_BOOTSTRAP='/opt/istio-vm-mesh/current/var/lib/istio/envoy/envoy_bootstrap_tmpl.json'\n" in text
    assert "PROV_CERT='/var/lib/istio-vm-mesh/etc/certs'\n" in text


def test_every_port_of_a_machine_is_captured_whatever_the_group_names() -> None:
    assert "ISTIO_INBOUND_PORTS='*'\n" in overrides()


def test_metadata_servers_are_never_captured() -> None:
    assert "ISTIO_SERVICE_EXCLUDE_CIDR='169.254.0.0/16,fe80::/10'\n" in overrides()


def test_what_workload_and_machine_exclude_is_added_to_what_the_mesh_excludes() -> None:
    of_workload = Capture(exclude_inbound_ports=(9100, 5666), exclude_outbound_cidrs=("10.9.0.0/16", "fd00::/8"))
    of_machine = Capture(exclude_inbound_ports=(9100,), exclude_outbound_ports=(2049,), exclude_interfaces=("eth1",))
    proxy = bootstrap.proxy_config(FACTS, PRODUCT, "far")
    proxy["proxyMetadata"]["ISTIO_SERVICE_EXCLUDE_CIDR"] = "192.0.2.0/24"
    bundle = Bundle(OWNER, proxy, "172.31.6.130", "gateway", "", "", exclusions=bootstrap.exclusions(of_workload, of_machine))
    text = files.overrides_env(bundle)
    assert [line for line in text.splitlines() if "EXCLUDE" in line] == [
        "ISTIO_EXCLUDE_INTERFACES='eth1'",
        "ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15020,5666,9100'",
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE='2049'",
        "ISTIO_SERVICE_EXCLUDE_CIDR='192.0.2.0/24,169.254.0.0/16,fe80::/10,10.9.0.0/16,fd00::/8'",
    ]
    assert "EXCLUDE" not in files.overrides_env(replace(bundle, role="router")), "it redirects nothing"


def test_a_gateway_may_have_an_address_of_ipv6() -> None:
    assert '"discoveryAddress": "[fd00:10::250]:15012"' in overrides(gateway="fd00:10::250")


def test_the_machine_gets_configuration_and_certificates_through_the_gateway() -> None:
    text = overrides(gateway="gateway.example.internal")
    assert '"discoveryAddress": "gateway.example.internal:15012", ' in text
    assert "ISTIOD_SAN='istiod.istio-system.svc'" in text
    assert "CA_ADDR" not in text  # with it the agent ignores ISTIOD_SAN for certificate requests


def test_an_agent_drains_as_long_as_the_mesh_says_and_ends_then() -> None:
    """The application runs on, and keeps its own connections: an agent that waits for them would be killed."""

    def lines(drain: str, owner: Owner = OWNER, **metadata: str) -> list[str]:
        default = {**FACTS.default_config, "terminationDrainDuration": drain, "proxyMetadata": metadata}
        proxy = bootstrap.proxy_config(replace(FACTS, default_config=default), PRODUCT, "pods")
        text = files.overrides_env(Bundle(owner, proxy, "172.31.6.130", "gw", "", ""))
        return [line for line in text.splitlines() if "DRAIN_S" in line or "EXIT" in line or "terminationDrain" in line]

    assert lines("5s") == lines("a while") == []
    assert lines("44.5s") == ["DRAIN_S='45'"]
    drain, proxy = lines("300s")
    assert drain == "DRAIN_S='60'" and '"terminationDrainDuration": "60s"' in proxy
    drain, proxy = lines("20s", replace(OWNER, registration=""))
    assert drain == "DRAIN_S='14'" and '"terminationDrainDuration": "14s"' in proxy, "its group stops it"
    assert lines("5s", EXIT_ON_ZERO_ACTIVE_CONNECTIONS="true") == ["EXIT_ON_ZERO_ACTIVE_CONNECTIONS='false'"]


def test_the_first_probe_waits_until_envoy_is_ready() -> None:
    """The agent's own begins at once and fails, and the next is a period later."""
    (line,) = [line for line in shlex.split(overrides()) if line.startswith("PROXY_CONFIG=")]
    probe = manifests.workload_group(PRODUCT, "pods")["spec"]["probe"]
    assert json.loads(line.partition("=")[2])["readinessProbe"] == {**probe, "initialDelaySeconds": 1}


def test_a_gateways_machine_sees_its_own_network_alone() -> None:
    role, view = "PROXY_ROLE='router'\n", "ISTIO_META_REQUESTED_NETWORK_VIEW='far'\n"
    gateway = overrides(workload=PRODUCT.model_copy(update={"role": "router"}))
    assert role in gateway and view in gateway
    assert role not in overrides() and view not in overrides()


def test_a_shell_reads_values_as_they_are() -> None:
    text = overrides(gateway='it\'s $(here) \\ "there"')
    variables = dict(line.split("=", 1) for line in shlex.split(text))
    assert json.loads(variables["PROXY_CONFIG"])["discoveryAddress"] == 'it\'s $(here) \\ "there":15012'


FILES = [
    MachineFile(path="/etc/b", text="ünï\n"),
    MachineFile(path="/etc/a", text="", mode=0o600, owner="istio-proxy"),
]


def test_the_tar_depends_on_the_files_alone() -> None:
    assert archive(FILES) == archive(FILES[::-1])
    for other in (
        [FILES[0]],
        [FILES[0], replace(FILES[1], text="x")],
        [FILES[0], replace(FILES[1], mode=0o644)],
        [FILES[0], replace(FILES[1], owner="root")],
        [FILES[0], replace(FILES[1], path="/etc/c")],
    ):
        assert archive(other) != archive(FILES)


def test_the_tar_says_what_a_file_is_and_nothing_of_this_computer() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(FILES))) as tar:
        entries = {entry.name: entry for entry in tar}
    assert [*entries] == ["etc/a", "etc/b"]
    assert {(entry.mtime, entry.uid, entry.gid) for entry in entries.values()} == {(0, 0, 0)}
    assert (entries["etc/a"].uname, entries["etc/a"].gname, entries["etc/a"].mode) == ("istio-proxy", "istio-proxy", 0o600)
    assert (entries["etc/b"].uname, entries["etc/b"].gname, entries["etc/b"].mode) == ("root", "root", 0o644)


def test_tar_extracts_it(tmp_path: Path) -> None:
    subprocess.run(["tar", "--extract", "--touch", "--directory", str(tmp_path)], input=archive(FILES), check=True)
    assert (tmp_path / "etc/b").read_text() == "ünï\n"
    assert (tmp_path / "etc/b").stat().st_mtime > 0
