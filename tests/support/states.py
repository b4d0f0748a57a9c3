"""The size of exported states, and what a verification and Google leave in them."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from typing import Any

from pulumi_gcp import compute

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
        "effectiveLabels": {"goog-pulumi-provisioned": "true", "istio-vm-mesh-stack": "test"},
        "pulumiLabels": {"goog-pulumi-provisioned": "true", "istio-vm-mesh-stack": "test"},
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
