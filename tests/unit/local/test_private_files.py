"""Private files of a stack: readable by their user alone, named alike on every computer."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from components.local import private_files
from components.machines.scripts import remove_ssh_key
from components.names import SSH_KEY

KEY = private_files.reference("acme/mesh/lab", SSH_KEY)


def test_a_key_is_private_and_goes_with_its_resource(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for text in ("one", "two"):
        private_files.write(KEY, text)
    path = tmp_path / "istio-vm-mesh/acme/mesh/lab/ssh-key"
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(parent.stat().st_mode) for parent in list(path.parents)[:4]} == {0o700}
    assert [file.name for file in path.parent.iterdir()] == ["ssh-key"]
    for _ in range(2):
        remove_ssh_key.run(remove_ssh_key.Payload(KEY))
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [], "and no empty directory stays"


def test_all_of_a_stack_goes_and_nothing_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    other = private_files.reference("acme/mesh/other", SSH_KEY)
    for name in (KEY, other):
        private_files.write(name, "one")
    (private_files.path_of(KEY).parent / ".new-x7k2").write_text("of a write that was killed")
    for _ in range(2):
        private_files.remove_all("acme/mesh/lab")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [private_files.path_of(other)]
    assert not private_files.path_of(KEY).parent.exists()
    private_files.remove_all("acme/mesh/other")
    assert list(tmp_path.iterdir()) == [], "and no empty directory stays"


def test_the_name_of_a_file_does_not_depend_on_a_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEY == "state:acme/mesh/lab/ssh-key"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert private_files.path_of(KEY) == tmp_path / ".local/state/istio-vm-mesh/acme/mesh/lab/ssh-key"
    assert private_files.is_generated(KEY) and not private_files.is_generated("/home/me/ssh-key")
    assert not private_files.is_generated(None)
    link = private_files.reference("acme/mesh/lab", private_files.IDENTITIES, "machines", SSH_KEY)
    assert not private_files.is_generated(link), "the key of a machine that is called ssh-key"


@pytest.mark.parametrize("name", ["state:../../x", "state:a/../b", "state:a//b", "state:a/./b", "/etc/passwd", "state:a\nb"])
def test_a_name_cannot_leave_the_directory(name: str) -> None:
    with pytest.raises(ValueError, match="no reference"):
        private_files.path_of(name)


def test_a_directory_that_cannot_be_written_is_named_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(file))
    for write in (lambda: private_files.write(KEY, "x"), lambda: private_files.link(KEY, tmp_path)):
        with pytest.raises(OSError, match=r"set XDG_STATE_HOME to a directory that this user can write"):
            write()
    private_files.link(KEY, None)
