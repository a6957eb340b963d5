"""What is counted of a model is what it has answered and what doctors have signed."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update
from typing_extensions import override

from imaging_store.model_registry import registered_models
from imaging_store.schema.results import model
from message_contracts.case import CaseStatus
from message_contracts.inference import InputSummary
from service_runtime.database import Database, DatabaseUnavailable
from tests.workflow_journey import NOON, Ward, a_model
from workflow_engine.commands import Verification, verify_as_doctor
from workflow_engine.figures import Shift
from workflow_engine.model_monitoring import ANOTHER, UNINTERPRETABLE, ModelReport, report
from workflow_engine.signing import Decision
from workflow_engine.watched_time import WINDOW
from workflow_engine.watching import Watching

LATER = NOON + timedelta(days=1)


def report_of(database: Database, since: datetime = NOON, until: datetime = LATER) -> ModelReport:
    with database.reading() as connection:
        [chest] = [each for each in registered_models(connection) if each.reference.name == "chest"]
        return report(connection, chest, since, until)


def ask(ward: Ward, number: int) -> str:
    uid = f"2.25.{number}"
    ward.receive(uid)
    ward.opened(uid)
    ward.complete(uid)
    return uid


def given_at(distance: float) -> InputSummary:
    return InputSummary(
        picture_count=1, brightness=100 + 10 * distance, contrast=50, domain_distance=distance
    )


def answered(ward: Ward, number: int, probability: float = 0.9, distance: float = 1) -> str:
    uid = ask(ward, number)
    said = ward.completed(uid, probability=probability)
    ward.deliver(said.model_copy(update={"given": given_at(distance)}))
    return uid


def refused(ward: Ward, number: int, distance: float = 9) -> str:
    uid = ask(ward, number)
    said = {"is_refusal": True, "reason": "Not a chest.", "given": given_at(distance)}
    ward.deliver(ward.failed(uid).model_copy(update=said))
    return uid


def test_answers_are_counted_by_what_they_say(ward: Ward, database: Database) -> None:
    answered(ward, 1, 0.9)
    answered(ward, 2, 0.95)
    answered(ward, 3, 0.55)
    refused(ward, 4)
    ward.deliver(ward.failed(ask(ward, 5)))
    ask(ward, 6)

    found = report_of(database)

    assert (found.answered, found.read, found.uncertain) == (5, 3, 1)
    assert (found.refused, found.failed) == (1, 1)
    assert found.findings == {"Bacterial pneumonia": 2, "Normal": 0, "Uncertain": 1}
    assert found.confidence == (0, 0, 0, 0, 0, 1, 0, 0, 1, 1)
    assert found.refusal_rate is not None
    assert (found.refusal_rate.count, found.refusal_rate.of) == (1, 4)
    assert found.brightness is not None
    assert found.brightness.mean == pytest.approx((3 * 110 + 190) / 4)
    assert found.contrast is not None
    assert found.contrast.standard_deviation == 0


def test_the_window_is_by_when_the_model_answered(ward: Ward, database: Database) -> None:
    answered(ward, 1)
    between = ward.now + timedelta(microseconds=1)
    answered(ward, 2)

    assert report_of(database, until=between).answered == 1
    assert report_of(database, since=between).answered == 1


def test_doctors_agree_override_and_cannot_interpret(ward: Ward, database: Database) -> None:
    ward.verified(answered(ward, 1))
    ward.verified(answered(ward, 2), Decision.OVERRIDE)
    ward.verified(answered(ward, 3), Decision.UNINTERPRETABLE)
    for number, words in ((4, " bacterial PNEUMONIA "), (5, "Normal")):
        verify_as_doctor(
            ward.desk,
            ward.request(answered(ward, number), "doctor"),
            Verification(Decision.OVERRIDE, words, "Seen."),
        )
    answered(ward, 6)

    found = report_of(database)

    assert found.signed == 5
    pneumonia, normal = found.by_class
    assert (pneumonia.accepted, pneumonia.overridden, pneumonia.uninterpretable) == (2, 2, 1)
    assert (normal.accepted, normal.agreement) == (0, None)
    assert found.agreement is not None
    assert (found.agreement.count, found.agreement.of) == (2, 4)
    told = {(each.found, each.signed): each.count for each in found.signed_as}
    assert told == {
        ("Bacterial pneumonia", "Bacterial pneumonia"): 2,
        ("Bacterial pneumonia", ANOTHER): 1,
        ("Bacterial pneumonia", "Normal"): 1,
        ("Bacterial pneumonia", UNINTERPRETABLE): 1,
    }
    # What a doctor wrote is the patient's.
    assert "Effusion" not in found.model_dump_json()


def test_a_class_is_known_by_its_words_whatever_its_letters(ward: Ward, database: Database) -> None:
    with database.transaction() as transaction:
        [row] = transaction.connection.execute(model.select()).all()
        pneumonia, normal = row.description["classes"]
        classes = [pneumonia, normal | {"label": "Épanchement"}]
        described = row.description | {"classes": classes}
        transaction.connection.execute(update(model).values(description=described))
    for number, words in enumerate(("Épanchement", " épanchement ", "ÉPANCHEMENT"), start=1):
        verify_as_doctor(
            ward.desk,
            ward.request(answered(ward, number), "doctor"),
            Verification(Decision.OVERRIDE, words, "Seen."),
        )

    told = {(each.found, each.signed): each.count for each in report_of(database).signed_as}

    assert told == {("Bacterial pneumonia", "Épanchement"): 3}


def test_what_was_uncertain_is_nothing_to_agree_with(ward: Ward, database: Database) -> None:
    ward.verified(answered(ward, 1, 0.55), Decision.OVERRIDE)

    found = report_of(database)

    assert found.agreement is None
    assert [(each.found, each.signed) for each in found.signed_as] == [("Uncertain", ANOTHER)]


def test_who_agrees_with_another_model_says_so_of_the_uncertain_one_too(
    ward: Ward, database: Database
) -> None:
    ward.register(a_model("bones"))
    uid = answered(ward, 1, 0.55)
    ward.deliver(ward.completed(uid, described="bones"))
    ward.verified(uid)

    found = report_of(database)

    assert [(each.found, each.signed) for each in found.signed_as] == [
        ("Uncertain", "Bacterial pneumonia")
    ]


def test_a_signature_that_was_taken_back_does_not_count(ward: Ward, database: Database) -> None:
    uid = answered(ward, 1)
    ward.verified(uid)
    ward.receive(uid, 2)
    ward.complete(uid, 2)

    assert report_of(database).signed == 0


def test_without_usual_distances_no_drift_is_known(ward: Ward, database: Database) -> None:
    answered(ward, 1)

    found = report_of(database)

    assert found.drift is None
    assert found.no_drift_known is not None


@pytest.fixture
def with_domain(ward: Ward, database: Database) -> Ward:
    usual = {"picture_count": 1000, "deciles": [each / 10 for each in range(1, 10)]}
    with database.transaction() as transaction:
        [row] = transaction.connection.execute(model.select()).all()
        described = row.description | {"domain": {"usual": usual}}
        transaction.connection.execute(update(model).values(description=described))
    return ward


def test_distances_are_held_against_the_usual_ones(with_domain: Ward, database: Database) -> None:
    for number in range(1, 11):
        answered(with_domain, number, distance=number / 10 - 0.05)

    found = report_of(database).drift

    assert found is not None
    assert found.parts == (1,) * 10
    assert (found.psi, found.shift) == (0, Shift.NONE)


def test_refused_studies_are_inputs_too(with_domain: Ward, database: Database) -> None:
    for number in range(1, 31):
        refused(with_domain, number)

    found = report_of(database).drift

    assert found is not None
    assert found.parts[-1] == found.compared == 30
    assert found.shift is Shift.LARGE


def value_of(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"model": "chest", "version": "1.0.0"} | labels)


def test_the_same_is_told_as_metrics(with_domain: Ward, database: Database) -> None:
    answered(with_domain, 1)
    with_domain.verified("2.25.1")
    refused(with_domain, 2)
    now = [LATER]
    watching = Watching(database, lambda: now[0])

    watching.renew()

    assert value_of("countersign_model_results", outcome="finding") == 1
    assert value_of("countersign_model_results", outcome="refused") == 1
    assert value_of("countersign_model_findings", label="Bacterial pneumonia") == 1
    assert value_of("countersign_model_confidence", at_most="0.8") == 0
    assert value_of("countersign_model_confidence", at_most="1") == 1
    assert (
        value_of("countersign_model_signed", label="Bacterial pneumonia", verdict="accepted") == 1
    )
    psi = value_of("countersign_model_input_psi")
    assert psi is not None
    assert psi > 0

    now = [LATER + 2 * WINDOW]
    watching.renew()

    assert value_of("countersign_model_results", outcome="refused") == 0


def test_a_model_that_cannot_be_counted_takes_no_others_figures_with_it(
    ward: Ward, database: Database
) -> None:
    # Whose figures are told first is not said: one before it and one after it.
    for name in ("aorta", "zygoma"):
        ward.register(a_model(name))
    with database.transaction() as transaction:
        transaction.connection.execute(
            update(model).where(model.c.name == "chest").values(description={"classes": [{}]})
        )
    before = value_of("countersign_model_renewed_timestamp_seconds")
    now = LATER + 3 * WINDOW

    Watching(database, lambda: now).renew()

    for name in ("aorta", "zygoma"):
        renewed = value_of("countersign_model_renewed_timestamp_seconds", model=name)
        assert renewed == now.timestamp()
    assert value_of("countersign_model_renewed_timestamp_seconds") == before


class Pauses(threading.Event):
    """Tells to stop in the third pause, and how long each was to be."""

    def __init__(self) -> None:
        super().__init__()
        self.of_s: list[float | None] = []

    @override
    def wait(self, timeout: float | None = None) -> bool:
        self.of_s.append(timeout)
        if len(self.of_s) == 3:
            self.set()
        return self.is_set()


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), DatabaseUnavailable("away")])
def test_watching_goes_on_after_an_error(database: Database, error: Exception) -> None:
    renewals = []

    class Failing(Watching):
        @override
        def renew(self) -> None:
            renewals.append(LATER)
            if len(renewals) == 1:
                raise error

    Failing(database, lambda: LATER).work(Pauses())

    assert len(renewals) == 3


def test_counting_takes_no_more_than_a_hundredth_of_the_time(database: Database) -> None:
    pauses = Pauses()
    clock_s = iter([0, 2, 1000, 1006, 2000, 2060])

    Watching(database, lambda: LATER, lambda: next(clock_s)).work(pauses)

    assert pauses.of_s == [300, 600, 6000]


def test_a_count_that_fails_after_a_minute_is_not_soon_tried_again(database: Database) -> None:
    class Failing(Watching):
        @override
        def renew(self) -> None:
            raise DatabaseUnavailable("away")

    pauses = Pauses()
    clock_s = iter([0, 2, 1000, 1060, 2000, 2001])

    Failing(database, lambda: LATER, lambda: next(clock_s)).work(pauses)

    assert pauses.of_s == [300, 6000, 300]


def test_a_refusal_is_told_from_a_failure(ward: Ward, database: Database) -> None:
    refused(ward, 1)

    assert ward.case("2.25.1").status is CaseStatus.AI_FAILED
    assert report_of(database).refused == 1


def test_what_failed_and_is_then_refused_is_a_refusal(ward: Ward, database: Database) -> None:
    uid = ask(ward, 1)
    ward.deliver(ward.failed(uid))

    said = {"is_refusal": True, "reason": "Not a chest."}
    ward.deliver(ward.failed(uid).model_copy(update=said))

    found = report_of(database)
    assert (found.refused, found.failed) == (1, 0)
    assert ward.case(uid).status is CaseStatus.AI_FAILED
