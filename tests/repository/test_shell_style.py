"""Every shell script of the repository is formatted by shfmt, clean for shellcheck, and at most 100 characters wide."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WIDTH = 100


def is_shell(file: Path) -> bool:
    """Whether bash or sh runs it: by its name, or by its first line."""
    if file.suffix:
        return file.suffix == ".sh"
    first = file.read_bytes().partition(b"\n")[0]
    return first in (b"#!/usr/bin/env bash", b"#!/bin/bash", b"#!/bin/sh")


def scripts() -> list[Path]:
    places = [path for name in ("components", "scripts", "tests", ".ci") for path in (ROOT / name).rglob("*")]
    return sorted(path for path in places if path.is_file() and "__pycache__" not in path.parts and is_shell(path))


NAMES = [str(path.relative_to(ROOT)) for path in scripts()]


def test_there_are_scripts() -> None:
    assert len(NAMES) > 10


def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", "--shell=bash", "--format=gcc", *NAMES], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_shfmt_changes_nothing() -> None:
    done = subprocess.run(["shfmt", "-ln=bash", "-i=2", "-d", *NAMES], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_lines_are_short(name: str) -> None:
    lines = enumerate((ROOT / name).read_text().splitlines(), 1)
    assert [f"{number}: {line}" for number, line in lines if len(line) > WIDTH] == []
