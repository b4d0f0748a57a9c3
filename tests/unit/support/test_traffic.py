"""What counts as a request that was lost, and its status, by the output of the echo server's client through `kubectl exec`."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.traffic import lost_count, statuses

ANSWERED = "[{0}] Url=http://product/\n[{0}] StatusCode=200\n[{0} body] Hostname=product-1\n"
REFUSED = "[{0}] Url=http://product/\n[{0}] StatusCode=503\n[{0} body] upstream connect error\n"
END = "2026-11-26T05:00:00.000000Z\tinfo\tAll 4 requests succeeded\n"


def output(*responses: str, end: str = END) -> str:
    return "".join(text.format(number) for number, text in enumerate(responses)) + end


@pytest.mark.parametrize(
    ("status", "stdout", "lost"),
    [
        (0, output(*[ANSWERED] * 4), 0),
        (0, output(ANSWERED, REFUSED, ANSWERED, ANSWERED), 1),
        (0, output(*[REFUSED] * 4), 4),
        (1, "error\tError 2/4 requests had errors; first error: connection refused\n", 4),
        (1, "", 4),
        # kubectl cut the output of a client that had all answers.
        (0, output(ANSWERED, ANSWERED, end=""), 0),
        (0, output(ANSWERED, ANSWERED, end="[2] Url=http://product/\n[2] Stat"), 0),
        (0, "", 0),
        # What it printed before the cut counts.
        (0, output(REFUSED, ANSWERED, end="[2] Url=http://product/\n"), 1),
        (1, output(ANSWERED, ANSWERED, end=""), 2),
    ],
)
def test_only_what_had_no_answer_is_lost(status: int, stdout: str, lost: int) -> None:
    assert lost_count(subprocess.CompletedProcess([], status, stdout, ""), 4) == lost


@pytest.mark.parametrize(
    ("status", "stdout", "codes"),
    [
        (0, output(ANSWERED, REFUSED, ANSWERED, ANSWERED), [200, 503, 200, 200]),
        (1, "error\tError 4/4 requests had errors; first error: connection refused\n", [0] * 4),
        (1, output(ANSWERED, end=""), [200, 0, 0, 0]),
        # kubectl cut the output.
        (0, output(ANSWERED, REFUSED, end="[2] Url=http://product/\n[2] StatusCode=20"), [200, 503]),
        (0, "", []),
    ],
)
def test_a_request_of_which_nothing_is_known_has_no_status(status: int, stdout: str, codes: list[int]) -> None:
    assert statuses(subprocess.CompletedProcess([], status, stdout, ""), 4) == codes
