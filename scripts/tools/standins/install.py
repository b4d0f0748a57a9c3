"""Puts plugins where the Pulumi CLI looks for them: official ones where this machine has them,
stand-ins otherwise.

    python run.py install --bin .lab/bin --home .lab/home --sdk DIRECTORY

The CLI looks for the language host and the plugin of `pulumi.dynamic` beside its own file, links
resolved, and calls them bundled. A CLI that has them keeps them. Beside any other CLI, `--bin` gets
a stand-in and two files of the Go module github.com/pulumi/pulumi/sdk/v3. They come from `--sdk`, a
directory with both, or the module's directory. Provider plugins go to
`<home>/plugins/resource-<name>-v<version>`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

RUN = Path(__file__).resolve().with_name("run.py")
PROVIDERS = {"kubernetes": "pulumi-kubernetes", "command": "pulumi-command"}
"""Provider plugins, and the SDK whose version each must have."""
LANGUAGE_HOST = "language host"

_MARK = "# Stand-in of the lab, written by standins.install."
_HOST, _EXECUTOR, _DYNAMIC = "pulumi-language-python", "pulumi-language-python-exec", "pulumi-resource-pulumi-python"
_SDK_FILES = {_EXECUTOR: "python/cmd", _DYNAMIC: "python/dist"}


def install(binaries: Path, home: Path, sdk: Callable[[], Path], homes: Sequence[Path] = ()) -> dict[str, str]:
    """Install everything; the CLI must already be in `binaries` (a file or a link). Returns what
    `in_use` returns.

    - `sdk`: returns the directory with the SDK's two files; called only where they are needed
    - `homes`: Pulumi homes in which official plugins may be, besides this user's

    Runs again at any time: what is right already stays. Raises `FileNotFoundError` if `sdk` lacks a
    file.
    """
    official_host = _official_host(binaries)
    if official_host is None:
        module = sdk()
        for name, place in _SDK_FILES.items():
            source = next((file for file in (module / name, module / place / name) if file.is_file()), None)
            if source is None:
                raise FileNotFoundError(f"{module} has no {name}: it must be the Go module github.com/pulumi/pulumi/sdk/v3")
            _write(binaries / name, source.read_text())
        _write(binaries / _HOST, _wrapper("language_host", str(binaries.absolute() / _EXECUTOR)))
    elif official_host.parent != binaries.resolve():
        for name in (_HOST, *_SDK_FILES):
            (binaries / name).unlink(missing_ok=True)
    for provider in PROVIDERS:
        executable = _plugin(home, provider)[1]
        # One that is neither missing nor a stand-in is official: linked before, or installed here
        # by `pulumi plugin install`.
        if (not executable.exists() or _is_standin(executable)) and not link(home, provider, homes):
            if not executable.exists():
                shutil.rmtree(executable.parent, ignore_errors=True)
            _write(executable, _wrapper(provider))
    return in_use(binaries, home)


def link(home: Path, provider: str, homes: Sequence[Path] = ()) -> bool:
    """Put the official plugin of this user, or of one of `homes`, into `home`, if there is one."""
    directory = _plugin(home, provider)[0]
    official = _official_provider(home, provider, homes)
    if official:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        # The CLI passes over links in place of a plugin's directory, not over those inside.
        for file in official.iterdir():
            (directory / file.name).symlink_to(file)
    return official is not None


def install_inert(home: Path, answers: Path, log: Path) -> None:
    """Put providers into `home` that create nothing (module `inert`), in place of any others.

    answers: what they answer. log: the file that names their operations.
    """
    for provider, sdk in PROVIDERS.items():
        directory, executable = _plugin(home, provider)
        shutil.rmtree(directory, ignore_errors=True)
        _write(executable, _wrapper("inert", provider, metadata.version(sdk), str(answers), str(log)))


def in_use(binaries: Path, home: Path) -> dict[str, str]:
    """For the language host and each provider "official <version>", "stand-in" or "missing"."""
    host = binaries / _HOST
    official = f"official {metadata.version('pulumi')}"
    installed = {LANGUAGE_HOST: official if _official_host(binaries) else "stand-in" if host.exists() else "missing"}
    for provider, sdk in PROVIDERS.items():
        executable = _plugin(home, provider)[1]
        if not executable.exists():
            installed[provider] = "missing"
        else:
            installed[provider] = "stand-in" if _is_standin(executable) else f"official {metadata.version(sdk)}"
    return installed


def _official_host(binaries: Path) -> Path | None:
    """The language host beside the CLI, if it is not a stand-in."""
    cli = binaries / "pulumi"
    beside = cli.resolve().parent / _HOST
    return beside if os.access(beside, os.X_OK) and not _is_standin(beside) else None


def absent(home: Path, standins: bool) -> dict[str, str]:
    """Return the versions of the providers that have no plugin in `home`, and of which this user
    has no official one either.

    `standins`: a stand-in does not count as a plugin.
    """
    names = []
    for name in PROVIDERS:
        executable = _plugin(home, name)[1]
        there = executable.exists() and not (standins and _is_standin(executable))
        if not there and not _official_provider(home, name, ()):
            names.append(name)
    return {name: metadata.version(PROVIDERS[name]) for name in names}


def _official_provider(home: Path, provider: str, homes: Sequence[Path]) -> Path | None:
    """The directory of the official plugin in the user's own Pulumi home or one of `homes`, at the
    SDK's version, completely installed.
    """
    users = [Path(chosen) for chosen in (os.environ.get("PULUMI_HOME"),) if chosen]
    for each in (*users, Path.home() / ".pulumi", *homes):
        directory, executable = _plugin(each, provider)
        complete = not directory.with_name(f"{directory.name}.partial").exists()
        if each.resolve() != home.resolve() and complete and os.access(executable, os.X_OK) and not _is_standin(executable):
            return directory
    return None


def _plugin(home: Path, provider: str) -> tuple[Path, Path]:
    directory = home.absolute() / "plugins" / f"resource-{provider}-v{metadata.version(PROVIDERS[provider])}"
    return directory, directory / f"pulumi-resource-{provider}"


def _is_standin(executable: Path) -> bool:
    with executable.open("rb") as file:
        return _MARK.encode() in file.read(200)


def _wrapper(module: str, *arguments: str) -> str:
    """A launcher that adds nothing to the environment, which local commands of the user inherit
    from the plugin.
    """
    words = [os.path.abspath(sys.executable), "-I", str(RUN), module, *arguments]
    return f'#!/bin/sh\n{_MARK}\nexec {" ".join(map(shlex.quote, words))} "$@"\n'


def _write(file: Path, text: str) -> None:
    """Write an executable in one step: a CLI that is running must never see half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_symlink() and file.is_file() and file.read_text() == text and os.access(file, os.X_OK):
        return
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(text)
    new.chmod(0o755)
    new.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description="Put Pulumi plugins where the CLI looks for them.")
    parser.add_argument("--bin", type=Path, required=True, help="the directory with the CLI")
    parser.add_argument("--home", type=Path, required=True, help="PULUMI_HOME")
    parser.add_argument(
        "--sdk", type=Path, required=True, help="the Go module github.com/pulumi/pulumi/sdk/v3, or a directory with its two files"
    )
    arguments = parser.parse_args()
    for name, what in install(arguments.bin, arguments.home, lambda: arguments.sdk).items():
        print(f"{name}: {what}")


if __name__ == "__main__":
    main()
