"""The cache never serves what is half-written or damaged, and knows by its key when something else is asked for."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tools.lab import paths
from tools.lab.offline import cache


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISTIO_VM_MESH_CACHE", str(tmp_path / "cache"))
    return tmp_path


KEY = cache.Key.of("thing", "v1", ["flags"])


def _make(directory: Path) -> None:
    (directory / "bin").mkdir()
    (directory / "bin" / "thing").write_text("whole")


def _never(directory: Path) -> None:
    raise AssertionError("made again")


def test_an_entry_is_made_once() -> None:
    assert cache.find(KEY) is None
    directory = cache.ensure(KEY, _make)
    assert (directory / "bin" / "thing").read_text() == "whole"
    assert cache.ensure(KEY, _never) == directory == cache.find(KEY)


def test_an_entry_whose_making_failed_is_not_used() -> None:
    def half(directory: Path) -> None:
        (directory / "thing").write_text("ha")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        cache.ensure(KEY, half)
    assert cache.find(KEY) is None
    assert not KEY.directory.exists()
    cache.ensure(KEY, _make)


def test_what_a_killed_run_left_is_not_part_of_the_next_entry() -> None:
    left = cache.paths.cache() / ".unfinished" / f"{KEY.name}-{KEY.version}-{KEY.inputs}"
    left.mkdir(parents=True)
    (left / "garbage").touch()
    assert not (cache.ensure(KEY, _make) / "garbage").exists()


@pytest.mark.parametrize("damage", ["truncated", "removed", "marker", "no marker"])
def test_a_damaged_entry_is_made_again(damage: str) -> None:
    directory = cache.ensure(KEY, _make)
    if damage == "truncated":
        (directory / "bin" / "thing").write_text("")
    elif damage == "removed":
        (directory / "bin" / "thing").unlink()
    elif damage == "marker":
        (directory / cache.MARKER).write_text('{"bin/th')
    else:
        (directory / cache.MARKER).unlink()
    assert cache.find(KEY) is None
    assert (cache.ensure(KEY, _make) / "bin" / "thing").read_text() == "whole"


def test_two_runs_make_an_entry_once() -> None:
    runs: list[int] = []
    notes: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        begun.set()
        go_on.wait()
        runs.append(1)
        _make(directory)

    def waiting(text: str) -> None:
        notes.append(text)
        go_on.set()

    first = threading.Thread(target=lambda: cache.ensure(KEY, slow))
    first.start()
    begun.wait()
    second = threading.Thread(target=lambda: cache.ensure(KEY, slow, waiting))
    second.start()
    first.join()
    second.join()
    assert runs == [1]
    assert set(notes) == {"waiting for another run that makes thing"}


def test_every_input_changes_the_key(tmp_path: Path) -> None:
    file = tmp_path / "go.mod"
    file.write_text("one")
    keys = {cache.digest([file, "-s", {"a": 1}])}
    file.write_text("two")
    keys.add(cache.digest([file, "-s", {"a": 1}]))
    file.chmod(0o755)
    keys.add(cache.digest([file, "-s", {"a": 1}]))
    keys.add(cache.digest([file, "-w", {"a": 1}]))
    keys.add(cache.digest([file, "-w", {"a": 2}]))
    keys.add(cache.digest([tmp_path, "-w", {"a": 2}]))
    assert len(keys) == 6
    assert cache.Key.of("thing", "v2", []).directory != cache.Key.of("thing", "v1", []).directory


def test_purge_removes_everything_and_says_how_much() -> None:
    cache.ensure(KEY, lambda directory: (directory / "large").write_bytes(b"x" * 100_000))
    layer = paths.cache() / cache.ENGINE_DATA / "overlay2" / "layer"
    layer.parent.mkdir(parents=True)
    layer.write_bytes(b"x" * 50_000)
    assert cache.purge() >= 150_000
    assert not paths.cache().exists()
    assert cache.purge() == 0


def test_purge_does_not_count_what_it_could_not_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.ensure(KEY, lambda directory: (directory / "large").write_bytes(b"x" * 100_000))
    monkeypatch.setattr(cache.shutil, "rmtree", lambda path, ignore_errors: None)  # as of a mount that is busy
    assert cache.purge() < 100_000


@pytest.mark.parametrize("variable", ["ISTIO_VM_MESH_CACHE", "XDG_CACHE_HOME"])
def test_purge_keeps_what_others_have(variable: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable may name a directory with a life of its own, such as the disk of all data."""
    monkeypatch.delenv("ISTIO_VM_MESH_CACHE")
    monkeypatch.setenv(variable, str(place))
    strangers = [
        place / "photos" / "wedding.raw",
        place / "docker" / "volumes" / "data",
        place / "dockerd.log",
        paths.cache() / "notes.txt",
        paths.cache() / "thing" / "v1" / "by-hand",
        paths.cache() / KEY.name / "mine",
    ]
    for stranger in strangers:
        stranger.parent.mkdir(parents=True, exist_ok=True)
        stranger.write_text("theirs")
    (place / "link").symlink_to(place / "photos")
    cache.ensure(KEY, _make)
    cache.purge()
    assert cache.find(KEY) is None
    assert [stranger for stranger in strangers if not stranger.exists()] == []
    assert (place / "link").is_symlink()
