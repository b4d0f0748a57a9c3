"""A join that takes a slot, as a process: `python -m tests.support.slot_join FILE`.

It writes a JSON line to standard output for each step, with the time of the system's own clock.
Times of `slots` are shortened.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
import types
from dataclasses import dataclass
from pathlib import Path

from components.local import scripting
from components.machines.scripts import slots
from components.machines.scripts.slot_decision import SlotRequest

MARK_S = 0.5
TIMES = {"RENEWAL_S": 0.5, "MARK_S": MARK_S, "LOOK_S": (0.1, 0.3)}


@dataclass(frozen=True)
class Payload:
    """A join.

    kubeconfig: a path. hold_s: for how long it holds its slot, at least.
    until: a path; it holds its slot until that file is there.
    clock_s: by how many seconds its clock is wrong.
    passed: a path; the file has the seconds that have passed for this process. "": they pass by themselves.
    cause: by what it fails, while it holds its slot; None where it succeeds.
    expiry_s, patience_s: times of `slots` that a test waits for; by default a busy computer keeps them.
    """

    kubeconfig: str
    namespace: str
    machine: str
    update: str = "an-update"
    hold_s: float = 0
    until: str = ""
    clock_s: float = 0
    passed: str = ""
    cause: str | None = None
    expiry_s: float = 600
    patience_s: float = 600


class Kubectl:
    """kubectl that counts its calls, and prints each as a step."""

    def __init__(self, kubeconfig: str) -> None:
        self.calls: list[str] = []
        self._kubeconfig = kubeconfig

    def call(self, *words: str, stdin: bytes = b"", timeout_s: float | None = None) -> scripting.Done:
        self.calls.append(words[0])
        write("call")
        command = ["kubectl", "--kubeconfig", self._kubeconfig, *words]
        return scripting.call(command, stdin=stdin, timeout_s=timeout_s)


def write(step: str, **values: object) -> None:
    line = json.dumps({"step": step, "time": time.monotonic(), **values})
    sys.stdout.write(f"{line}\n")  # at once: a holder has two threads
    sys.stdout.flush()


def request_of(payload: Payload) -> SlotRequest:
    return SlotRequest(payload.namespace, "product", payload.machine, f"r-{payload.machine}", f"product-{payload.machine}", payload.update)


def run(payload: Payload) -> None:
    for name, value in {**TIMES, "EXPIRY_S": payload.expiry_s, "PATIENCE_S": payload.patience_s}.items():
        setattr(slots, name, value)

    def wrong_time() -> time.struct_time:
        return time.gmtime(time.time() + payload.clock_s)

    setattr(slots, "gmtime", wrong_time)  # noqa: B010
    if payload.passed:
        setattr(slots, "monotonic", lambda: float(Path(payload.passed).read_text()))  # noqa: B010
    kubectl, request = Kubectl(payload.kubeconfig), request_of(payload)
    with slots.slot(kubectl, request, lambda line: print(line, file=sys.stderr, flush=True)):
        write("begin")
        threading.Event().wait(payload.hold_s)
        while payload.until and not Path(payload.until).exists():
            time.sleep(0.05)
        if payload.cause is not None:
            slots.halt(kubectl, request, payload.cause)
        write("end")
        if payload.cause is not None:
            raise scripting.Failed(payload.cause)
    write("done", calls=kubectl.calls)


if __name__ == "__main__":
    sys.stdin = io.StringIO(Path(sys.argv[1]).read_text())
    module = types.SimpleNamespace(Payload=Payload, run=run)
    scripting.main(module, "create")  # type: ignore[arg-type]
