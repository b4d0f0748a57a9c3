"""A script reaches bash as root through any login shell, whole, and ends when its time is over."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from components import shell
from components.local import openssh
from tests.support.scripts import LIBRARY, add_program

SHELLS = ("sh", "bash", "dash", "zsh", "fish", "tcsh")
LINES = 3000
LONG_SCRIPT = "n=0\n" + f"n=$((n + 1)) # {'x' * 60}\n" * LINES + 'echo "$n lines by $(id -u)"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home, and programs of a machine where that user is not root but runs sudo."""
    programs = tmp_path / "bin"
    add_program(programs, "id", 'case $1 in -un) echo admin ;; *) echo "${UID_NOW:-1000}" ;; esac')
    add_program(programs, "sudo", '[ "$1" = -n ] || exit 2; shift; UID_NOW=0 exec "$@"')
    return tmp_path


def log_in(home: Path, login_shell: str, text: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run a text as sshd does: the login shell gets the command, and the text on a pipe."""
    return subprocess.run(
        [login_shell, "-c", openssh.COMMAND],
        input=text,
        env={"HOME": str(home), "PATH": path or f"{home}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("login_shell", SHELLS)
def test_a_long_script_arrives_whole_and_as_root(home: Path, login_shell: str) -> None:
    assert len(LONG_SCRIPT) > 200_000
    done = log_in(home, login_shell, shell.run_as_root(LONG_SCRIPT))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{LINES} lines by 0\n", "")


def test_a_script_that_is_cut_off_runs_nothing(home: Path) -> None:
    text = shell.run_as_root(f"touch {home}/ran\n{LONG_SCRIPT}")
    done = log_in(home, "bash", text[: len(text) // 2])
    assert done.returncode and not (home / "ran").exists()


def test_what_follows_a_script_is_left_to_it(home: Path) -> None:
    """Answers to its questions, whatever its letters are."""
    done = log_in(home, "bash", shell.run_as_root("# ünï—code\nread -r answer\necho $answer\n") + "yes\n")
    assert done.stdout == "yes\n"


@pytest.mark.parametrize("login_shell", SHELLS)
def test_the_scripts_status_is_the_commands(home: Path, login_shell: str) -> None:
    assert log_in(home, login_shell, shell.run_as_root("exit 7\n")).returncode == 7


def test_root_needs_no_sudo(home: Path) -> None:
    add_program(home / "bin", "id", "echo 0")
    add_program(home / "bin", "sudo", "exit 9")
    assert log_in(home, "bash", shell.run_as_root("echo on\n")).stdout == "on\n"


def test_a_user_without_sudo_reads_what_to_do(home: Path) -> None:
    add_program(home / "bin", "sudo", 'echo "sudo: a password is required" >&2; exit 1')
    done = log_in(home, "bash", shell.run_as_root("echo on\n"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(
        "install sudo and let admin run it without a password and a terminal (!requiretty) and start programs (!noexec), or connect as root\n"
    )


def test_a_sudo_that_lets_no_program_start_another_is_named(home: Path) -> None:
    """With `Defaults noexec`."""
    add_program(home / "bin", "sudo", 'case "$2 $3" in "true "*) ;; *) echo "Permission denied" >&2; exit 126 ;; esac')
    assert "start programs (!noexec)" in log_in(home, "bash", shell.run_as_root("echo on\n")).stderr


def test_a_script_is_independent_of_its_users_environment(home: Path) -> None:
    """Of variables that are read-only, of a PATH without sbin, and of a mask for new files."""
    (home / "profile").write_text("readonly TMOUT=1 HISTFILE=/dev/null\nexport TMOUT\numask 077\n")
    library = LIBRARY.read_text() + "clean_environment\n"
    script = f"{library}sleep 1.5\nread -r answer\necho $answer ${{TMOUT:-none}} $PATH\n"
    text = f"BASH_ENV={home}/profile exec bash -s\n{shell.run_as_root(script)}yes\n"
    done = log_in(home, "bash", text)
    assert done.stdout == "yes none /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", done.stderr


def test_when_the_time_is_over_children_end_too(home: Path) -> None:
    """The call returns when the last process has closed its output, so the child has ended."""
    done = log_in(home, "sh", shell.run_as_root("sleep 3600 & wait\necho on\n", time_limit_s=0.2))
    assert (done.returncode, done.stdout) == (124, "")


@pytest.mark.parametrize("text", ["it's", "a\nb", "$(touch /tmp/x) `id`", "ünï—code", "", '"\\', "-n"])
def test_any_text_survives_in_a_variable(text: str) -> None:
    program = shell.assignments({"VALUE": text}) + 'printf %s "$VALUE"'
    done = subprocess.run(["bash", "-s"], input=program.encode(), capture_output=True, check=True)
    assert done.stdout.decode() == text
