from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from fhir_bridge.signed_report import Decision, NotSigned
from message_contracts.case import Stage
from tests.unit.fhir_bridge.reports import (
    ADMIN,
    CLASSES,
    NOON,
    PHARMACIST,
    READING,
    a_report,
    an_override,
    doctor,
)


def test_where_the_doctor_agrees_the_finding_is_the_models() -> None:
    report = a_report()

    assert report.finding is not None
    assert report.finding.text == "Viral pneumonia"
    assert report.finding.code == CLASSES[0].code
    assert report.conclusion == "Viral pneumonia\nConsolidation, left."


def test_who_agrees_with_several_models_agrees_with_all_that_they_found() -> None:
    normal = replace(READING, model_name="other", probabilities=READING.probabilities[::-1])
    unsure = replace(READING, model_name="unsure", uncertain=True)
    report = replace(a_report(), others=(normal, unsure, READING))

    assert report.finding is not None
    assert report.finding.text == f"Viral pneumonia; {normal.finding.label}"
    assert report.finding.code is None
    same = replace(a_report(), others=(READING,)).finding
    assert same is not None
    assert same.code == CLASSES[0].code


def test_where_the_doctor_overrides_the_finding_is_the_doctors() -> None:
    report = an_override("Lung abscess")

    assert report.finding is not None
    assert report.finding.text == "Lung abscess"
    assert report.finding.code is None
    assert report.agreed_readings == ()
    assert "Viral" not in report.conclusion


def test_a_doctors_finding_that_is_a_class_of_the_model_is_coded() -> None:
    report = an_override(" bacterial PNEUMONIA ")

    assert report.finding is not None
    assert report.finding.text == "bacterial PNEUMONIA"
    assert report.finding.code == CLASSES[1].code


def test_an_uninterpretable_study_has_no_finding() -> None:
    report = a_report(doctor(Decision.UNINTERPRETABLE, notes="Motion."))

    assert report.finding is None
    assert report.conclusion == "The images cannot be interpreted.\nMotion."


def test_the_signatures_are_told_in_the_order_of_the_stages() -> None:
    assert [it.stage for it in a_report().signatures] == list(Stage)


@pytest.mark.parametrize(
    ("signature", "reading"),
    [
        pytest.param(doctor(), None, id="agreed with no reading"),
        pytest.param(doctor(), replace(READING, uncertain=True), id="agreed with Uncertain"),
        pytest.param(doctor(Decision.OVERRIDE), READING, id="override without a finding"),
        pytest.param(doctor(Decision.OVERRIDE, "X", " "), READING, id="override without notes"),
        pytest.param(doctor(Decision.UNINTERPRETABLE, "", ""), READING, id="no reason given"),
        pytest.param(replace(doctor(), decision=None), READING, id="no decision"),
        pytest.param(ADMIN, READING, id="another stage's signature"),
        pytest.param(replace(doctor(), printed_name=" "), READING, id="no printed name"),
        pytest.param(replace(doctor(), meaning=""), READING, id="no meaning"),
        pytest.param(replace(doctor(), user_id=ADMIN.user_id), READING, id="signed twice"),
        pytest.param(
            replace(doctor(), signed_at=datetime(2026, 1, 1)),  # noqa: DTZ001
            READING,
            id="a time without zone",
        ),
    ],
)
def test_what_may_not_be_signed_is_no_report(signature, reading) -> None:
    with pytest.raises(NotSigned):
        a_report(signature, reading=reading)


def test_a_signature_of_the_wrong_stage_is_refused_at_every_stage() -> None:
    with pytest.raises(NotSigned, match="pharmacist"):
        a_report(pharmacist=replace(PHARMACIST, stage=Stage.ADMIN))
    with pytest.raises(NotSigned, match="admin"):
        a_report(admin=replace(ADMIN, stage=Stage.DOCTOR, signed_at=NOON))
