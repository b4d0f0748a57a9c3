"""Runs the `helm` program.

Credentials and values reach it through files that exist in memory only; on its command line are
names and paths.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable

from ..provider import Cancelled, Properties, ProviderError, Request
from . import objects
from .kubeconfig import Kubeconfig, memory_file

_REPORT_EVERY = 3.0
_KLOG = re.compile(r"[IWEF]\d{4} |WARNING:")
"""Lines of helm's that do not say what failed."""
_NOT_INHERITED = ("KUBECONFIG", "HELM_DEBUG", "HELM_KUBE", "HELM_NAMESPACE")


class Helm:
    """`helm` with the credentials for one cluster."""

    def __init__(self, kubeconfig: Kubeconfig) -> None:
        self._kubeconfig = kubeconfig

    def run(
        self,
        arguments: list[str],
        namespace: str,
        request: Request,
        values: Properties | None = None,
        progress: Callable[[], str] | None = None,
    ) -> str:
        """Run `helm` and give what it prints.

        `values` are those of a release. helm prints nothing while it waits. Every few seconds the
        user is shown what `progress` returns. Raises `ProviderError` with helm's message, without
        the secrets of `request`; `Cancelled` when the user interrupts, after helm has ended.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}
        with memory_file(self._kubeconfig.text(namespace)) as (_, config), memory_file(json.dumps(values)) as (_, given):
            command = ["helm", *arguments, "--namespace", namespace, "--kubeconfig", f"/dev/fd/{config}"]
            command += ["--values", f"/dev/fd/{given}"] if values is not None else []
            try:
                process = subprocess.Popen(
                    command,
                    pass_fds=(config, given),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env={**environment, "HELM_DRIVER": "secret"},
                )
            except FileNotFoundError:
                raise ProviderError("no `helm` on PATH; install Helm 3, or let `./scripts/lab tools` show which tools are in use") from None
            with request.on_cancel(process.terminate):
                while True:
                    try:
                        output, errors = process.communicate(timeout=_REPORT_EVERY)
                        break
                    except subprocess.TimeoutExpired:
                        if progress and (text := progress()):
                            request.status(objects.redacted(text, request.inputs))
        if request.cancelled:
            raise Cancelled(f"interrupted; `helm {arguments[0]} {arguments[1]}` was ended")
        if process.returncode:
            lines = [line for line in errors.splitlines() if line.strip() and not _KLOG.match(line)]
            text = objects.redacted(" ".join(lines).removeprefix("Error: "), request.inputs, request.old_inputs, request.state)
            raise ProviderError(f"helm {arguments[0]} {arguments[1]}: {text or f'exit code {process.returncode}'}")
        return output + errors
