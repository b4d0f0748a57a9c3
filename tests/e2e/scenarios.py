"""The scenarios, and the order in which they share a lab. See README.md."""

from __future__ import annotations

SCENARIOS = (
    # What needs a lab from nothing.
    "single_network/test_up_from_nothing.py",
    "faults/multi_network/test_killed_up.py",
    # What changes no stack.
    "single_network/test_machine_files.py",
    "single_network/test_traffic.py",
    "single_network/test_instance_group_member.py",
    "single_network/test_repeated_up.py",
    "multi_network/test_paths.py",
    "faults/multi_network/test_gateway_failure.py",
    "multi_network/test_istio_cases.py",
    "faults/multi_network/test_verification_causes.py",
    # What changes it.
    "single_network/test_istio_cases.py",
    "single_network/test_change_in_place.py",
    "faults/single_network/test_blocked_joins.py",
    "multi_network/test_root_rotation.py",
    "multi_network/test_far_machine_life.py",
    "multi_network/test_network_without_gateway.py",
    "faults/multi_network/test_adopted_machines.py",
    "multi_network/test_existing_application.py",
    "single_network/test_existing_machines.py",
    "single_network/test_virtual_machine.py",
    # What ends it.
    "multi_network/test_default_install.py",
    "single_network/test_down.py",
)
"""All files, in the order in which they run. The order only saves updates: each file runs alone, too."""
