"""Stack files that are wrong are refused, each for its own reason; the files of this repository are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import problems, reader

ROOT = Path(__file__).parents[2]
BROKEN: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "broken.yaml").read_text())
STACKS = sorted(file.name.split(".")[1] for file in (ROOT / "stacks").glob("Pulumi.*.yaml"))


def stack(name: str) -> dict[str, Any]:
    text = (ROOT / "stacks" / f"Pulumi.{name}.yaml").read_text()
    return {key.partition(":")[2]: value for key, value in yaml.safe_load(text)["config"].items()}


def broken(case: dict[str, Any]) -> dict[str, Any]:
    """A stack's configuration with a case's changes."""
    config = stack(case["stack"])
    changes = [*case.get("set", {}).items(), *((path, KeyError) for path in case.get("unset", []))]
    for path, value in changes:
        *parents, last = path.split("/")
        place = config
        for part in parents:
            place = place.setdefault(part, {})
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    return config


@pytest.mark.parametrize("name", STACKS)
def test_the_files_of_this_repository_are_good(name: str) -> None:
    reader.load(stack(name), reader.SECRETS & {"sshPrivateKey"})


@pytest.mark.parametrize("case", BROKEN, ids=[f"{number}-{case['stack']}" for number, case in enumerate(BROKEN, 1)])
def test_a_broken_file_is_refused_for_its_own_reason(case: dict[str, Any]) -> None:
    secrets = {"sshPrivateKey"} - set(case.get("without", []))
    with pytest.raises(problems.SettingsError) as raised:
        reader.load(broken(case), secrets)
    wanted = case["says"] if isinstance(case["says"], list) else [case["says"]]
    assert [str(problem) for problem in raised.value.problems] == wanted


def test_there_are_many_and_no_two_are_the_same() -> None:
    assert len(BROKEN) >= 60
    assert len({str((case["stack"], case.get("set"), case.get("unset"), case.get("without"))) for case in BROKEN}) == len(BROKEN)


def test_reasons_are_their_own() -> None:
    """A reason that two cases share says that one of them tests nothing new."""
    reasons = [str(case["says"]) for case in BROKEN]
    shared = {reason for reason in reasons if reasons.count(reason) > 1}
    assert len(shared) <= 2, shared
