"""Which worker runs which tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tests.support.scheduling import Scheduler


class Worker:
    """A worker of pytest-xdist that writes down the tests that it gets."""

    shutting_down = False
    gateway = SimpleNamespace(id="worker")

    def __init__(self, collection: list[str]) -> None:
        self.collection, self.tests = collection, list[str]()

    def send_runtest_some(self, indices: list[int]) -> None:
        self.tests += [self.collection[index] for index in indices]

    def shutdown(self) -> None:
        self.shutting_down = True


def test_each_lab_has_a_worker_while_others_run_the_other_tests() -> None:
    first = [f"tests/e2e/single_network/test_traffic.py::test_{number}" for number in range(3)]
    second = [f"tests/e2e/faults/multi_network/test_killed_up.py::test_{number}" for number in range(3)]
    second.append("tests/e2e/multi_network/test_paths.py::test_it")
    others = [f"tests/unit/test_{name}.py::test_{number}" for name in "ab" for number in range(3)]
    collection = [*first, *second, *others]
    config = SimpleNamespace(getvalue=lambda name: ["4*popen"], option=SimpleNamespace(loadscopereorder=False))
    scheduler = Scheduler(cast(Any, config))
    workers = [Worker(collection) for _ in range(4)]
    for worker in workers:
        scheduler.add_node(cast(Any, worker))
        scheduler.add_node_collection(cast(Any, worker), collection)
    scheduler.schedule()
    assert [worker.tests for worker in workers] == [first, second, others[:3], others[3:]]
