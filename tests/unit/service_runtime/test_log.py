from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from service_runtime.errors import TransientError
from service_runtime.telemetry import log

PATIENT = "DOE^JANE"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    text = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers, root.level)
    log.configure("tests", "info", text)
    yield text
    root.handlers, root.level = before[0], before[1]
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_service_time_level_and_the_allowed_keys(stream: io.StringIO) -> None:
    structlog.get_logger().info("study.received", study_instance_uid="1.2.3", instance_count=4)

    [line] = lines(stream)
    assert line["event"] == "study.received"
    assert line["service"] == "tests"
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")
    assert (line["study_instance_uid"], line["instance_count"]) == ("1.2.3", 4)


def test_a_key_that_is_not_in_the_list_is_dropped_and_counted(stream: io.StringIO) -> None:
    structlog.get_logger().info("study.received", patient_name=PATIENT, accession_number="A1")

    [line] = lines(stream)
    assert PATIENT not in stream.getvalue()
    assert line["dropped_keys"] == 2


def test_an_event_that_is_a_sentence_is_not_told(stream: io.StringIO) -> None:
    structlog.get_logger().warning(f"no study of {PATIENT}")

    assert PATIENT not in stream.getvalue()
    assert lines(stream)[0]["event"] == "log.unnamed"


def test_an_object_is_told_by_its_class_only(stream: io.StringIO) -> None:
    class Patient:
        def __str__(self) -> str:
            return PATIENT

    structlog.get_logger().info("case.opened", reason=Patient(), faults=[Patient(), "size"])

    [line] = lines(stream)
    assert line["reason"] == "Patient"
    assert line["faults"] == ["Patient", "size"]


def test_an_exception_shows_class_and_place_and_no_text_and_no_variables(
    stream: io.StringIO,
) -> None:
    def fail(patient_name: str) -> None:
        raise KeyError(patient_name)

    try:
        fail(PATIENT)
    except KeyError:
        structlog.get_logger().exception("case.failed")

    [line] = lines(stream)
    assert PATIENT not in stream.getvalue()
    assert line["error"].startswith("KeyError at ")
    assert line["where"][-1].endswith(" fail")


def test_the_text_of_an_error_of_ours_is_told(stream: io.StringIO) -> None:
    structlog.get_logger().warning("peer.away", exc_info=TransientError("peer: no answer"))

    assert lines(stream)[0]["error"] == "peer: no answer"


def test_a_library_is_named_and_not_quoted(stream: io.StringIO) -> None:
    logging.getLogger("somebody.elses").warning("cannot read %s", PATIENT)

    [line] = lines(stream)
    assert PATIENT not in stream.getvalue()
    assert line["event"] == "library.message"
    assert line["logger"] == "somebody.elses"


def test_what_is_bound_is_in_every_line_of_the_block_and_in_none_after(
    stream: io.StringIO,
) -> None:
    with log.bound(correlation_id="c-1"):
        structlog.get_logger().info("message.handled")
    structlog.get_logger().info("service.stopped")

    inside, outside = lines(stream)
    assert inside["correlation_id"] == "c-1"
    assert "correlation_id" not in outside


def test_less_than_the_level_is_not_written(stream: io.StringIO) -> None:
    structlog.get_logger().debug("message.handled")

    assert stream.getvalue() == ""


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda key: key not in log.ALLOWED_KEYS),
        st.text() | st.integers() | st.lists(st.text()),
    )
)
def test_no_key_outside_the_list_ever_passes(values: dict[str, object]) -> None:
    kept = log.only_allowed(None, "info", {"event": "any.event", **values})

    assert set(kept) <= {"event", "dropped_keys"}
    assert kept.get("dropped_keys", 0) == len(values)


def test_ids_pass_and_long_text_is_cut() -> None:
    number = UUID(int=1)

    kept = log.only_allowed(None, "info", {"event": "e", "case_id": number, "reason": "x" * 9000})

    assert kept["case_id"] == str(number)
    assert len(kept["reason"]) == log.MAX_TEXT
