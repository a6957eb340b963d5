from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_bridge.client import _retry_after_s, issues_of

NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("120", 120),
        ("Wed, 04 Mar 2026 12:01:00 GMT", 60),
        pytest.param("Wed, 04 Mar 2026 11:59:00 GMT", 0, id="a time that has passed"),
        pytest.param("99999999", 86_400, id="a day at most"),
        ("soon", 0),
        ("-5", 0),
        (None, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, wait_s: float) -> None:
    assert _retry_after_s(value, NOW) == wait_s


def _outcome(**issue: Any) -> dict[str, Any]:
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "invalid"} | issue],
    }


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (_outcome(expression=["Patient.name[0].family"]), ["invalid at Patient.name[0].family"]),
        (_outcome(location=["Bundle.entry[3].resource"]), ["invalid at Bundle.entry[3].resource"]),
        (_outcome(diagnostics="Mustermann"), ["invalid"]),
        (_outcome(details={"text": "Mustermann"}), ["invalid"]),
        (_outcome(expression=["Patient.where(name = 'Mustermann')"]), ["invalid"]),
        (_outcome(code="Mustermann, Erika"), ["unknown"]),
        (_outcome(severity="warning"), []),
        ({"resourceType": "Bundle"}, []),
        ("Mustermann", []),
    ],
)
def test_of_a_refusal_only_type_and_place_are_told(outcome: object, told: list[str]) -> None:
    assert [str(issue) for issue in issues_of(outcome)] == told
