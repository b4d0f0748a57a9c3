"""The size of exported states, and what a verification leaves in them."""

from __future__ import annotations

import json
from dataclasses import asdict

from components import names
from components.verification.evidence import Call
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
    call = Call(
        service=names.service_host(workload, namespace, names.DEFAULT_DOMAIN),
        port=80,
        protocol="http",
        caller=caller,
        caller_identity=identity,
        network="pods",
        endpoint=address,
        calls=2,
        answers=2,
        status={"200": 2},
        peer=identity,
        machine=caller.removeprefix("machine "),
    )
    return json.dumps({"calls": asdict(call)})
