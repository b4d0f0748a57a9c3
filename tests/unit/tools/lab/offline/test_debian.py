"""Debian packages: only what is missing is installed, nothing is started, and who cannot install is told the names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.lab.offline import debian
from tools.steps import StepError, quiet


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where apt-get only knows packages after an update; `policy-rc.d` and the installed packages are files."""
    programs = {
        "dpkg-query": f'for name in "$@"; do :; done; [ -e {tmp_path}/installed-$name ] && printf installed; exit 0',
        "dpkg": "",
        "apt-get": f"""echo "$@" >>{tmp_path}/calls
case $1 in
update) touch {tmp_path}/lists ;;
install) [ -e {tmp_path}/lists ] || exit 100; cat {debian.POLICY.name} >{tmp_path}/policy-seen
  for name in "$@"; do :; done; touch {tmp_path}/installed-$name ;;
esac""",
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(debian, "POLICY", tmp_path / "policy-rc.d")
    for name, body in programs.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def test_what_is_missing_is_installed_and_lists_are_fetched_only_when_needed(machine: Path) -> None:
    (machine / "installed-there").touch()
    step = quiet("x", machine / "log")
    debian.ensure(step, ["there", "zz-new"])
    assert [line.split()[0] for line in (machine / "calls").read_text().splitlines()] == ["install", "update", "install"]
    assert " there" not in (machine / "calls").read_text()
    debian.ensure(step, ["zz-newer"])
    assert [line.split()[0] for line in (machine / "calls").read_text().splitlines()][3:] == ["install"]
    debian.ensure(step, ["there", "zz-new", "zz-newer"])
    assert len((machine / "calls").read_text().splitlines()) == 4


def test_services_are_not_started_and_the_policy_is_taken_back(machine: Path) -> None:
    debian.ensure(quiet("x", machine / "log"), ["zz-new"])
    assert (machine / "policy-seen").read_text() == debian.POLICY_TEXT
    assert not debian.POLICY.exists()


def test_a_policy_of_the_machine_stays_and_one_left_by_a_killed_run_goes(machine: Path) -> None:
    debian.POLICY.write_text("exit 0\n")
    debian.ensure(quiet("x", machine / "log"), ["zz-new"])
    assert debian.POLICY.read_text() == "exit 0\n"
    debian.POLICY.write_text(debian.POLICY_TEXT)
    debian.ensure(quiet("x", machine / "log"), ["zz-new"])
    assert not debian.POLICY.exists()


def test_a_program_from_elsewhere_is_good_enough(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "_PATH", str(machine / "bin"))
    (machine / "bin" / "mmdebstrap").write_text("#!/bin/sh\n")
    (machine / "bin" / "mmdebstrap").chmod(0o755)
    assert debian.missing(["mmdebstrap"]) == []


def test_who_is_not_root_is_told_the_command(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(StepError) as error:
        debian.ensure(quiet("x", machine / "log"), ["zz-new"])
    assert error.value.hint == "run `sudo apt-get install --no-install-recommends zz-new`"


def test_other_systems_are_told_the_names(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "bin" / "apt-get").unlink()
    monkeypatch.setenv("PATH", f"{machine}/bin")
    with pytest.raises(StepError, match=r"programs are missing here: zz-new \(Debian's names\)"):
        debian.ensure(quiet("x", machine / "log"), ["zz-new"])
