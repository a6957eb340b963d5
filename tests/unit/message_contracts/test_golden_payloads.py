"""What is on the wire now must be readable for ever: a golden event per message and version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from message_contracts.catalogue import MESSAGES, decode, encode

GOLDEN = Path(__file__).parents[2] / "golden" / "messages"


def golden_files() -> list[Path]:
    return sorted(GOLDEN.glob("*.json"))


@pytest.mark.parametrize("event_type", MESSAGES)
def test_every_message_has_a_golden_event(event_type: str) -> None:
    name = event_type.removeprefix("org.countersign.")

    assert (GOLDEN / f"{name}.json").is_file()


@pytest.mark.parametrize("file", golden_files(), ids=lambda file: file.stem)
def test_a_golden_event_is_still_read(file: Path) -> None:
    envelope = decode(file.read_bytes())

    assert envelope.event_type == f"org.countersign.{file.stem}"


@pytest.mark.parametrize("file", golden_files(), ids=lambda file: file.stem)
def test_a_golden_event_is_still_written_the_same(file: Path) -> None:
    golden = json.loads(file.read_bytes())

    written = json.loads(encode(decode(file.read_bytes())))

    assert written == golden


@pytest.mark.parametrize("file", golden_files(), ids=lambda file: file.stem)
def test_a_newer_senders_fields_are_passed_over(file: Path) -> None:
    event = json.loads(file.read_bytes())
    event["data"]["added_later"] = {"by": "a newer version"}
    event["tracestate"] = "unknown extension"

    envelope = decode(json.dumps(event).encode())

    assert envelope == decode(file.read_bytes())


@pytest.mark.parametrize("file", golden_files(), ids=lambda file: file.stem)
def test_a_field_that_is_required_cannot_be_left_out(file: Path) -> None:
    event = json.loads(file.read_bytes())
    model = MESSAGES[event["type"]]
    required = {name for name, field in model.model_fields.items() if field.is_required()}

    assert required <= set(event["data"])
    assert set(event["data"]) == set(model.model_fields)
