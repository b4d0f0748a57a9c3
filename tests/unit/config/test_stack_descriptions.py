"""Every key of a stack file is described, by words of its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic.fields import FieldInfo

from components.config.problems import keys_of
from components.config.record import Record
from components.config.stack import Settings

SCHEMA: dict[str, Any] = Settings.model_json_schema()
# What an optional key says of its absence.
ABSENCE = ("Default", "default", "Without", "Required", "Leave it out", "leave it out")


def records(record: type[Record]) -> set[type[Record]]:
    """Return a record and all records below it."""
    below = (each for each in Record.__subclasses__() if each.__name__ in SCHEMA["$defs"])
    return {record, *below}


FIELDS: dict[str, FieldInfo] = {
    f"{record.__name__}.{field.alias}": field
    for record in records(Settings)
    for field in record.model_fields.values()
    if field.alias in keys_of(record)
}


def test_no_record_is_left_out() -> None:
    names = {name.partition(".")[0] for name in FIELDS}
    assert names == {"Settings", *SCHEMA["$defs"]}
    assert len(FIELDS) > 120


def test_every_key_is_described_in_at_least_six_words() -> None:
    short = [name for name, field in FIELDS.items() if len((field.description or "").split()) < 6]
    assert short == []


def test_every_optional_key_says_what_happens_without_it() -> None:
    optional = {
        name: field.description or "" for name, field in FIELDS.items() if not field.is_required()
    }
    assert [
        name for name, text in optional.items() if not any(word in text for word in ABSENCE)
    ] == []


def test_no_two_keys_share_a_description() -> None:
    counted = Counter(field.description for field in FIELDS.values())
    shared = {text for text, count in counted.items() if count > 1}
    assert [name for name, field in FIELDS.items() if field.description in shared] == []


def test_every_record_is_described() -> None:
    for name, record in SCHEMA["$defs"].items():
        assert len(record["description"].split()) >= 6, name
