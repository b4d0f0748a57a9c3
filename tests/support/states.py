"""The size of exported states, and what a verification leaves in them."""

from __future__ import annotations

import json

from components import names
from tests.support import harness


def exported_size(exported: str) -> int:
    """Return the length of an exported state as it is printed, with paths as short as in a checkout."""
    assert exported.startswith('{\n    "version"'), "the output of the export alone"
    traced = [each["type"] for each in json.loads(exported)["deployment"]["resources"] if "stackTrace" in each]
    assert set(traced) <= {"pulumi:pulumi:Stack"}, "a program's traces are others than a test's"
    return len(exported.replace(f"{harness.ROOT}/", ""))


def call_line(caller: str, workload: str, address: str, namespace: str = "shop") -> str:
    """Return a line of evidence: an answer that a caller got of a machine."""
    identity = names.spiffe_id(names.DEFAULT_DOMAIN, namespace, workload)
    host = names.service_host(workload, namespace, names.DEFAULT_DOMAIN)
    return f"call\t{caller}\t{identity}\t{host}:80\t{address}\t{identity}\t2"
