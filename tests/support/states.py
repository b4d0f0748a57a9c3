"""The size of exported states, and what a verification and Google leave in them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pulumi_gcp import compute

from components import names
from components.platforms.google.names import STACK_LABEL
from components.verification.evidence import Call
from tests.support import harness


def exported_size(exported: str) -> int:
    """Return the length of an exported state as it is printed, with paths as short as in a checkout.

    Without the trace of the stack itself, which is a test's.
    """
    assert exported.startswith('{\n    "version"'), "the output of the export alone"
    traced = [each["type"] for each in json.loads(exported)["deployment"]["resources"] if "stackTrace" in each]
    assert set(traced) <= {"pulumi:pulumi:Stack"}, "a program's traces are others than a test's"
    text = re.sub(r',\s+"stackTrace": \[.*?\n {16}\]', "", exported, flags=re.DOTALL)
    assert "stackTrace" not in text
    return len(text.replace(f"{harness.ROOT}/", ""))


def call_line(caller: str, workload: str, address: str, machine: str) -> str:
    """Return a line of evidence: an answer that a caller got of an endpoint. machine: the machine that it is; "" for a pod."""
    namespace = "shop"
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
        machine=machine,
    )
    return json.dumps({"calls": asdict(call)})


def evidence(resource: str, workload: str, machines: Sequence[str]) -> str:
    """Return what the verification of a workload prints, or the proof on one of its machines, as lines; "" for another resource."""
    addresses = {machine: f"10.11.0.{number}" for number, machine in enumerate(machines, 7)}
    if resource == names.part_name(workload, names.VERIFICATION):
        rows: list[dict[str, Any]] = []
        for machine, address in addresses.items():
            endpoint = f"{address}:80"
            entry = {"machine": machine, "entry": names.entry_name(workload, address, "pods"), "endpoint": endpoint}
            rows += [{"entries": entry}, {"plaintext": {"endpoint": endpoint, "result": "refused"}}]
        called = [call_line(f"Job verify-{workload}", workload, f"{address}:80", machine) for machine, address in addresses.items()]
        return "\n".join([*called, *map(json.dumps, rows)])
    for machine in machines:
        if resource == names.part_name(machine, names.PROOF):
            counter = {
                "how": "by-chance",
                "answers": 12,
                "kind": "counter",
                "machine": machine,
                "protocol": "http",
                "caller": f"machine {machine}",
            }
            called = [call_line(f"machine {machine}", workload, f"10.20.0.{number}:80", "") for number in range(3)]
            return "\n".join([*called, json.dumps({"calls": counter})])
    return ""


def instance(name: str, metadata: dict[str, str]) -> dict[str, Any]:
    """Return the outputs of a Compute Engine machine, all of them, as the official provider has them.

    Properties without a value are there too. `__defaults` and inputs are not.
    """
    properties = [
        each for each in inspect.signature(compute.Instance._internal_init).parameters if each not in ("self", "resource_name", "opts")
    ]
    values: dict[str, Any] = {_camel(each): "" for each in properties if not each.startswith("__")}
    zone = "https://www.googleapis.com/compute/v1/projects/my-project/zones/europe-west1-b"
    return {
        **values,
        "allowStoppingForUpdate": True,
        "bootDisk": {
            "autoDelete": True,
            "deviceName": "persistent-disk-0",
            "diskEncryptionKeyRaw": "",
            "diskEncryptionKeyRsa": "",
            "diskEncryptionKeySha256": "",
            "diskEncryptionServiceAccount": "",
            "forceAttach": False,
            "guestOsFeatures": ["UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE", "GVNIC", "SEV_CAPABLE", "SEV_LIVE_MIGRATABLE_V2"],
            "initializeParams": {
                "architecture": "X86_64",
                "enableConfidentialCompute": False,
                "image": "https://www.googleapis.com/compute/v1/projects/debian-cloud/global/images/debian-12-bookworm-v20261110",
                "labels": {},
                "provisionedIops": 0,
                "provisionedThroughput": 0,
                "resourceManagerTags": {},
                "resourcePolicies": "",
                "size": 20,
                "snapshot": "",
                "sourceImageEncryptionKey": None,
                "storagePool": "",
                "type": "pd-balanced",
            },
            "interface": "SCSI",
            "kmsKeySelfLink": "",
            "mode": "READ_WRITE",
            "source": f"{zone}/disks/test-{name}",
        },
        "cpuPlatform": "Intel Broadwell",
        "creationTimestamp": "2026-11-26T01:02:03.456-08:00",
        "currentStatus": "RUNNING",
        "effectiveLabels": {"goog-pulumi-provisioned": "true", STACK_LABEL: "test"},
        "pulumiLabels": {"goog-pulumi-provisioned": "true", STACK_LABEL: "test"},
        "labelFingerprint": "6vGxVRxTc1k=",
        "metadataFingerprint": "pYrWjYf2mNQ=",
        "tagsFingerprint": "42WmSpB8rSM=",
        "instanceId": "1234567890123456789",
        "metadata": metadata,
        "name": f"test-{name}",
        "networkInterfaces": [
            {
                "accessConfigs": [],
                "aliasIpRanges": [],
                "internalIpv6PrefixLength": 0,
                "ipv6AccessConfigs": [],
                "ipv6AccessType": "",
                "ipv6Address": "",
                "name": "nic0",
                "network": "https://www.googleapis.com/compute/v1/projects/my-project/global/networks/vpc-mesh-0123456",
                "networkAttachment": "",
                "networkIp": "10.11.0.7",
                "nicType": "",
                "queueCount": 0,
                "securityPolicy": "",
                "stackType": "IPV4_ONLY",
                "subnetwork": f"{zone.rpartition('/zones')[0]}/regions/europe-west1/subnetworks/subnet-machines-0123456",
                "subnetworkProject": "my-project",
            }
        ],
        "scheduling": {
            "automaticRestart": True,
            "availabilityDomain": 0,
            "hostErrorTimeoutSeconds": 0,
            "instanceTerminationAction": "",
            "localSsdRecoveryTimeout": None,
            "maxRunDuration": None,
            "minNodeCpus": 0,
            "nodeAffinities": [],
            "onHostMaintenance": "MIGRATE",
            "onInstanceStopAction": None,
            "preemptible": False,
            "provisioningModel": "STANDARD",
            "terminationTime": "",
        },
        "selfLink": f"{zone}/instances/test-{name}",
        "serviceAccount": {
            "email": "test-product@my-project.iam.gserviceaccount.com",
            "scopes": ["https://www.googleapis.com/auth/logging.write", "https://www.googleapis.com/auth/monitoring.write"],
        },
        "shieldedInstanceConfig": {"enableIntegrityMonitoring": True, "enableSecureBoot": True, "enableVtpm": True},
        "zone": "europe-west1-b",
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
