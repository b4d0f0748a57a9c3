"""`python -m tools.iap_tunnels`, started by `./scripts/tunnels` in the virtual environment: local ports that lead to machines without public addresses.

Pulumi's remote commands dial an address and a port, and cannot run a program instead, as ssh's ProxyCommand does. So every machine of a
stack that is reached through Identity-Aware Proxy gets a port of this computer, which follows from its name. Nothing runs behind a port until
a connection comes in: the machine need not exist yet.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress

EPILOG = """\
example: ./scripts/tunnels single-network pulumi up --stack single-network

The command's exit code is this one's. gcloud must be on PATH and logged in, with the role IAP-secured Tunnel User.
"""


def parser() -> argparse.ArgumentParser:
    """The command line; standard library only, like everything at the top of this file."""
    top = argparse.ArgumentParser(
        prog="./scripts/tunnels",
        description="Opens tunnels to a stack's machines on Google Cloud while a command runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.set_defaults(needs_lab=False)
    top.add_argument("stack", help="the stack, a file stacks/Pulumi.<stack>.yaml")
    top.add_argument("command", nargs=argparse.REMAINDER, help="what to run (nothing: print the ports)")
    return top


def machines(stack: str) -> tuple[str, dict[int, tuple[str, str]]]:
    """The stack's project, and its machines as (name, zone) by port. Raises SystemExit with a sentence for a stack file that is not good."""
    from components.config import load_file
    from components.config.problems import SettingsError
    from components.platforms.google import names

    try:
        settings = load_file(stack)
    except SettingsError as error:
        sys.exit(str(error))
    return (settings.google.project if settings.google else ""), names.iap_tunnels(settings, stack)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(ConnectionError, OSError):
        writer.close()


async def _connect(project: str, name: str, zone: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection by one gcloud, which speaks on its standard input and output."""
    arguments = ["start-iap-tunnel", name, "22", "--listen-on-stdin", f"--project={project}", f"--zone={zone}", "--verbosity=error"]
    process = await asyncio.create_subprocess_exec(
        "gcloud", "compute", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    errors = asyncio.create_task(process.stderr.read())
    there = asyncio.create_task(_pump(reader, process.stdin))
    try:
        await _pump(process.stdout, writer)
    finally:
        there.cancel()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)  # `terminate` would collect the child, whom asyncio waits for
        code = await process.wait()
        # Ended by us, or by the other side's hanging up, is no failure; a machine that is not there yet is dialled again.
        if code not in (0, -signal.SIGTERM) and (lines := (await errors).decode(errors="replace").strip().splitlines()):
            print(f"tunnel to {name}: {lines[-1][:300]}", file=sys.stderr, flush=True)


async def run(project: str, ports: dict[int, tuple[str, str]], command: Sequence[str]) -> int:
    """Listen on the ports while the command runs; returns its exit code."""
    connections: set[asyncio.Task[None]] = set()

    def serve(name: str, zone: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(_connect(project, name, zone, reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        return accept

    async with AsyncExitStack() as open_ports:
        for port, (name, zone) in ports.items():
            try:
                await open_ports.enter_async_context(await asyncio.start_server(serve(name, zone), "127.0.0.1", port))
            except OSError as error:
                print(f"port {port} for {name} is not free ({error.strerror}): is another ./scripts/tunnels running?", file=sys.stderr)
                return 1
        process = await asyncio.create_subprocess_exec(*command)
        loop = asyncio.get_running_loop()
        # Ctrl-C reaches the command from the terminal; it decides what becomes of it.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, process.terminate)
        code = await process.wait()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        return code


def main() -> int:
    arguments = parser().parse_args()
    os.environ.pop("PYTHONPATH", None)  # the launcher's; it is not meant for the command
    project, ports = machines(arguments.stack)
    if not arguments.command:
        for port, (name, zone) in sorted(ports.items(), key=lambda item: item[1]):
            print(f"127.0.0.1:{port}\t{name}\t{zone}")
        return 0
    if ports and not shutil.which("gcloud"):
        print("gcloud is not on PATH: it opens the tunnels (install Google Cloud's CLI)", file=sys.stderr)
        return 1
    if not shutil.which(arguments.command[0]):
        print(f"{arguments.command[0]} is not on PATH", file=sys.stderr)
        return 1
    return asyncio.run(run(project, ports, arguments.command))


if __name__ == "__main__":
    sys.exit(main())
