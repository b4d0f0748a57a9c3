"""Requests to Istio's echo server, and what became of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

LOST = "lost"
"""Stands for the host name where a request had no answer."""
SLOW_PATH = "/?delay=300ms"
"""A path that is answered late, so that concurrent requests need connections of their own."""


class Answer(NamedTuple):
    """One answer of the echo server.

    hostname: the host that answered; `pod` for any pod, `LOST` where there was no answer.
    certificate: the client certificate that the server's proxy saw (`X-Forwarded-Client-Cert`).
    detail: what the client printed about a request that was lost.
    """

    hostname: str
    certificate: str = ""
    detail: str = ""


class Request(NamedTuple):
    """One of many requests in the background.

    started: when its batch began, at most two seconds before it (`time.monotonic`).
    answered_by: the host that answered, or `LOST`.
    detail: what the client printed about a request that was lost.
    """

    started: float
    answered_by: str
    detail: str


def parse_answers(output: str) -> list[Answer]:
    """Read every answer in the output of the echo server's client, or of curl."""
    answers, certificate = [], ""
    for name, value in re.findall(r"(Hostname=|X-Forwarded-Client-Cert:)(\S+)", output):
        if name == "Hostname=":
            answers.append(Answer("pod" if value.count("-") > 1 else value, certificate))
            certificate = ""
        else:
            certificate = value
    return answers


def is_cut(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether kubectl has cut the output of the echo server's client. Nothing is known then of a request whose lines are missing.

    The client exits with 0 once each request has a response, prints these by their numbers, and at last their count. kubectl may cut its
    output and exit with 0 all the same (kubernetes/kubernetes#124571).
    """
    return not done.returncode and not re.search(r"\bAll \d+ requests succeeded$", done.stdout, re.MULTILINE)


def statuses(done: subprocess.CompletedProcess[str], count: int) -> list[int]:
    """Return the HTTP status of each request of the echo server's client, as far as it is known; 0 for one without a response."""
    printed = [int(status) for status in re.findall(r"^\[\d+\] StatusCode=(\d+)\n", done.stdout, re.MULTILINE)]
    return printed if is_cut(done) else printed + [0] * (count - len(printed))


def lost_count(done: subprocess.CompletedProcess[str], count: int) -> int:
    """Return how many of the requests of the echo server's client had no answer, as far as it is known."""
    answered = set(re.findall(r"^\[(\d+) body\] Hostname=", done.stdout, re.MULTILINE))
    if not is_cut(done):
        return count - len(answered)
    printed = re.findall(r"^\[(\d+)(?: body)?\] ", done.stdout, re.MULTILINE)
    # The last one may have been cut before its answer.
    return len({*printed[:-1]} - answered - {*printed[-1:]})


def lost_details(done: subprocess.CompletedProcess[str], count: int) -> str:
    """Return what the echo server's client printed about the requests without an answer, which it numbers from 0."""
    answered = set(re.findall(r"^\[(\d+) body\] Hostname=", done.stdout, re.MULTILINE))
    lines = re.findall(r"^\[(\d+)(?: body)?\] (.*)$", done.stdout, re.MULTILINE)
    details = [f"{number}: {line}" for number, line in lines if number not in answered]
    summary = f"{len(answered)} of {count} answered, exit code {done.returncode}"
    # Where the client gives up, it prints why instead of answers.
    reason = [line[:300] for line in done.stdout.splitlines() if not line.startswith("[")][-2:]
    return "; ".join([*details, summary, *([] if answered else reason), *done.stderr.splitlines()[-2:]])


def describe_lost(requests: Sequence[Request]) -> str:
    """Return a line for each batch with lost requests: when it began, and what the client printed."""
    lost = {f"{each.started - requests[0].started:.1f} s: {each.detail[:1000]}" for each in requests if each.answered_by == LOST}
    return "\n".join(sorted(lost)[:20])


def lost_share(requests: Sequence[Request]) -> float:
    """Return the share of the requests that was lost, from 0 to 1."""
    return sum(each.answered_by == LOST for each in requests) / len(requests)


def assert_no_lost_requests(requests: Sequence[Request]) -> None:
    """Check that every request was answered, and that there were more than 20 a second."""
    lost = sum(each.answered_by == LOST for each in requests)
    seconds = requests[-1].started - requests[0].started + 1
    print(f"{len(requests)} requests in {seconds:.0f} s, {lost} lost")
    assert not lost, f"{lost} of {len(requests)} requests were lost: {describe_lost(requests)}"
    assert len(requests) / seconds > 20
