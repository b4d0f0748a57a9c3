"""What a scenario of this lab starts for a later one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support import virtual_machine
from tests.support.lab import Lab


@pytest.fixture(scope="session")
def boot_virtual_machine(request: pytest.FixtureRequest) -> Callable[[Lab], None]:
    """Starts the virtual machine in a lab that is up, if its scenario is among those that run: its boot takes minutes without KVM."""

    def boot(lab: Lab) -> None:
        if any(item.path.name == "test_virtual_machine.py" for item in request.session.items):
            virtual_machine.VirtualMachines(lab).make(virtual_machine.NAME)

    return boot
