"""A real firewalld: what it drops of the mesh's connections, and how it is opened and closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from components.names import STATUS_PORT
from tests.support.firewalld import firewalld
from tests.support.host import ADDRESS, Host, started_host

PORTS = json.dumps([{"name": "http", "containerPort": 8080, "protocol": "TCP"}], separators=(",", ":"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host behind firewalld, whose load balancer calls the agent's health check. Its zone admits SSH alone."""
    with started_host(tmp_path_factory.mktemp("host"), "nft") as host, firewalld(host):
        environment = {**host.environment, "INSTANCE_IP": ADDRESS[4], "ISTIO_META_POD_PORTS": PORTS, "HEALTH_CHECKED": "1"}
        yield replace(host, environment=environment)


def reached(host: Host) -> tuple[str, str, str]:
    """What a neighbour reaches at the application's port, at SSH's, and at the health check's. firewalld rejects the others."""
    return host.answer(), host.answer(22), host.answer(STATUS_PORT)


def test_firewalld_is_reported_opened_and_closed(host: Host) -> None:
    before = host.run("firewall-cmd --list-all; nft --stateless list table inet firewalld")
    assert reached(host) == ("", "ssh", "")
    drops = f"firewalld nft inet/firewalld filter_INPUT {STATUS_PORT} {STATUS_PORT}\n"
    assert host.run('filters | dropped "$(needed)"') == drops, "what is redirected is let in"
    host.environment["FIREWALL"] = "manage"
    output = host.run("locked turn_on; locked turn_dns_on")
    assert f"opened the firewall (firewalld) for port {STATUS_PORT}" in output
    assert reached(host) == ("agent", "ssh", "health")
    assert host.run("firewall-cmd --list-ports") == f"{STATUS_PORT}/tcp\n"
    assert host.run("firewall-cmd --permanent --list-ports") == "\n", "no file of firewalld is changed"
    host.run("firewall-cmd --reload")
    assert reached(host) == ("", "ssh", ""), "a reload takes what was opened at run time, and all rules of iptables"
    assert "opened the firewall (firewalld)" in host.run("locked repair")
    assert reached(host) == ("agent", "ssh", "health")
    host.run("locked turn_off")
    assert reached(host) == ("", "ssh", "")
    assert host.run("firewall-cmd --list-all; nft --stateless list table inet firewalld") == before


def test_the_command_that_a_join_prints_opens_firewalld(host: Host) -> None:
    line = host.run('filters | dropped "$(needed)"').split()
    command = host.run(f"opening {' '.join(line)}")
    assert command == f"firewall-cmd --permanent --add-port={STATUS_PORT}/tcp && firewall-cmd --reload\n"
    host.run(command)
    assert (host.answer(STATUS_PORT), host.run('filters | dropped "$(needed)"')) == ("health", "")
    host.run(command.replace("--add-port", "--remove-port"))
