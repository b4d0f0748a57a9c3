"""What the watch over processes sees."""

from __future__ import annotations

import subprocess

from tests.support.process_watch import SIZE, ProcessWatch
from tests.support.waiting import wait_until


def test_command_lines_and_environments_are_seen_from_end_to_end() -> None:
    long = "x" * SIZE
    with ProcessWatch() as watch:
        process = subprocess.Popen(["/bin/sleep", "600.4711"], env={"LONG": long, "LAST": "the end"})
        try:
            wait_until(lambda: any(b"LAST=the end" in each for each in watch.seen.copy()))
        finally:
            process.kill()
            process.wait()
    assert b"/bin/sleep\x00600.4711\0" in watch.seen
    assert any(f"LONG={long}\0LAST=the end\0".encode() in each for each in watch.seen)
