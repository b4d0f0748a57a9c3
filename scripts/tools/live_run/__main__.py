"""`python -m tools.live_run`, started by `./scripts/live-run` in the virtual environment."""

from __future__ import annotations

import datetime
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import cli, prerequisites
from .google import Google, GoogleError
from .report import Summary, text
from .rows import read
from .runner import Run

if TYPE_CHECKING:
    from components.config.stack import Settings

HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Stack:
    """A stack on Google Cloud. file: its configuration.

    monthly: US dollars a month. unpriced: what is not in it, because its price is not known.
    """

    name: str
    file: Path
    settings: Settings
    monthly: float
    unpriced: Sequence[str] = ()

    @property
    def project(self) -> str:
        """The project."""
        assert self.settings.google
        return self.settings.google.project

    def price(self, hours: float) -> str:
        """Return what hours cost, and what is not in it."""
        without = f" and without {', '.join(self.unpriced)}" if self.unpriced else ""
        return f"{self.monthly / HOURS_A_MONTH * hours:.2f} US dollars, at list prices{without}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a live run, and return its exit code."""
    os.environ.pop("PYTHONPATH", None)  # the launcher's; rows call Pulumi, which runs Python
    options = cli.parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    stack = _stack(options.stack)
    if isinstance(stack, str):
        print(stack, file=sys.stderr)
        return 2
    try:
        return _run(stack, options.check, options.down, options.yes, options.report)
    except KeyboardInterrupt:
        print("\nInterrupted: nothing was created.", file=sys.stderr)
        return cli.INTERRUPTED


def _run(stack: Stack, check: bool, down: bool, yes: bool, report: Path | None) -> int:
    if not down and not _is_fit(stack):
        return cli.UNFIT
    if check:
        return cli.AS_EXPECTED
    verb = "delete" if down else "create, and delete,"
    if not yes and not _confirmed(f"This will {verb} all of {stack.name} in {stack.project}", stack):
        print("Nothing was done: confirm with --yes.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        kubeconfig = Path(directory) / "kubeconfig"
        return _rows(stack, down, kubeconfig, report or Path(f"live-run-{stack.name}.md"))


def _rows(stack: Stack, only_down: bool, kubeconfig: Path, report: Path) -> int:
    began, start = datetime.datetime.now().strftime("%Y-%m-%d %H:%M"), time.monotonic()

    def write() -> None:
        cost = stack.price((time.monotonic() - start) / 3600)
        summary = Summary(stack=stack.name, project=stack.project, began=began, cost=cost, left=run.left)
        report.write_text(text(summary, run.results))

    variables = {**os.environ, **_variables(stack), "KUBECONFIG": str(kubeconfig)}
    run = Run(read(stack.name), variables, _show, write, stack.file)
    interrupted = is_down = False
    run.remember()
    try:
        if not only_down:
            run.up()
    except KeyboardInterrupt:
        interrupted = True
        _show("\nInterrupted: the stack is taken down.")
    finally:  # whatever happened, nothing must go on costing
        is_down = run.down()
    write()
    cost = stack.price((time.monotonic() - start) / 3600)
    _show(f"\nReport: {report}. Cost so far: about {cost}.")
    if not is_down:
        _show(f"Something may be left, and costs: ./scripts/live-run {stack.name} --down")
        return cli.NOT_DOWN
    if interrupted:
        return cli.INTERRUPTED
    return cli.SURPRISE if run.surprise else cli.AS_EXPECTED


def _show(line: str) -> None:
    print(line, flush=True)


def _confirmed(question: str, stack: Stack) -> bool:
    if not sys.stdin.isatty():
        return False
    print(f"{question}. An hour costs about {stack.price(1)}.")
    return input(f"Type the stack's name to go on ({stack.name}): ").strip() == stack.name


def _stack(name: str) -> Stack | str:
    """Return a stack, or why it is none that can be run."""
    from components.config import load_file, reader
    from components.config.problems import SettingsError
    from tools import costs

    if name not in reader.stacks():
        return reader.no_file(name)
    try:
        settings = load_file(name)
    except SettingsError as error:
        return str(error)
    if settings.google is None:
        return f"{name} is not on Google Cloud: it has no `google`"
    return Stack(name, reader.file_of(name), settings, costs.monthly(settings), costs.unpriced(settings))


def _variables(stack: Stack) -> dict[str, str]:
    """Return the variables of a stack for the commands of rows."""
    from components.config.google import GkeCluster
    from components.platforms.google import names

    google, cluster = stack.settings.google, stack.settings.cluster
    assert google
    zone = cluster.zone if isinstance(cluster, GkeCluster) else None
    zones = _zones(stack)
    return {
        "STACK": stack.name,
        "PROJECT": google.project,
        "REGION": google.region,
        "ZONE": zones[0] if zones else f"{google.region}-b",
        "CLUSTER": names.cluster_name(stack.name),
        "LOCATION": zone or google.region,
    }


def _zones(stack: Stack) -> list[str]:
    from components.config.google import GkeCluster

    zones: set[str] = set()
    for machine in stack.settings.google_machines.values():
        zones |= {zone for zone in (getattr(machine, "zone", None), *getattr(machine, "zones", ())) if zone}
    cluster = stack.settings.cluster
    if isinstance(cluster, GkeCluster) and cluster.zone:
        zones.add(cluster.zone)
    return sorted(zones)


def _is_fit(stack: Stack) -> bool:
    """Check the prerequisites, print what lacks, and return whether a run can succeed."""
    from tools.google_model import declared

    google = stack.settings.google
    assert google
    _show(f"Checking the project {google.project} for {stack.name} ...")
    findings = list(prerequisites.programs(os.environ.get("PATH", os.defpath)))
    if not findings:
        findings = list(prerequisites.is_empty(stack.name, os.environ))
        wanted = prerequisites.Wanted(
            live_run=read(stack.name),
            cloud=declared.cloud(stack.name),
            region=google.region,
            zones=_zones(stack),
        )
        try:
            findings += prerequisites.check(Google.of_gcloud(google.project, os.environ), wanted)
        except GoogleError as error:
            findings.append(prerequisites.Finding(f"{error}: gcloud auth login"))
    for finding in findings:
        print(f"- {finding.text}{'' if finding.blocks else ' (look at it)'}", file=sys.stderr)
    blocks = any(finding.blocks for finding in findings)
    _show("These must be mended first." if blocks else "The prerequisites are met.")
    return not blocks


if __name__ == "__main__":
    sys.exit(main())
