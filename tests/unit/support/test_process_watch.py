"""What the watch over processes sees."""

from __future__ import annotations

import subprocess
import time

from tests.support.process_watch import SIZE, ProcessWatch


def test_command_lines_and_environments_are_seen_from_end_to_end() -> None:
    long = "x" * SIZE
    with ProcessWatch() as watch:
        process = subprocess.Popen(["/bin/sleep", "60.4711"], env={"LONG": long, "LAST": "the end"})
        while not any(b"LAST=the end" in each for each in watch.seen.copy()):
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert b"/bin/sleep\x0060.4711\0" in watch.seen
    assert any(f"LONG={long}\0LAST=the end\0".encode() in each for each in watch.seen)
