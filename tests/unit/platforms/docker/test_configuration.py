"""Address ranges on a Docker engine."""

from __future__ import annotations

from components.config import load
from components.platforms.docker.configuration import docker_cidr, dynamic_cidr, machine_addresses
from tests.unit.config.test_reader import GOOD


def test_docker_addresses_of_machines_and_of_docker_do_not_meet() -> None:
    cidr = docker_cidr(load(GOOD), "pods")
    assert str(cidr) == "172.31.6.0/24"
    assert str(dynamic_cidr(cidr)) == "172.31.6.0/25"
    assert machine_addresses(cidr) == ("172.31.6.129", "172.31.6.254")
