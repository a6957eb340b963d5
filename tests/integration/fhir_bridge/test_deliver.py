"""Delivery to a real FHIR server: any number of tries leave one report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from fhir_bridge.bundle import SentBundle, transaction
from fhir_bridge.client import EhrRefused, EhrUnavailable, FhirClient
from fhir_bridge.deliver import to_folder, to_server
from fhir_bridge.signed_report import Reading, SignedReport
from message_contracts.delivery import ResourceOutcome
from tests.peers.fhir import FhirServer
from tests.peers.processes import free_port
from tests.unit.fhir_bridge.reports import PATIENT, READING, SITE, SYSTEMS, a_report, an_override

PDF = b"%PDF-1.7 a report"
KINDS = {
    "Patient": 1,
    "ImagingStudy": 1,
    "Device": 1,
    "Observation": 1,
    "DiagnosticReport": 1,
    "DocumentReference": 1,
    "Provenance": 2,
}


LOOK_UPS = 3
"""What is looked up of a report with one finding: report, finding and document."""


@pytest.fixture
def client(ehr: FhirServer) -> Iterator[FhirClient]:
    client = FhirClient(ehr.url, timeout_s=20)
    yield client
    client.close()


def bundle_of(report: SignedReport) -> SentBundle:
    return transaction(report, SITE, PDF, SYSTEMS)


def deliver(client: FhirClient, report: SignedReport) -> tuple[ResourceOutcome, ...]:
    return to_server(client, report, bundle_of(report))


def held_by(ehr: FhirServer) -> dict[str, int]:
    return {kind: len(ehr.search(kind, _count="1000")) for kind in KINDS}


def posts(ehr: FhirServer) -> int:
    return sum(asked["method"] == "POST" for asked in ehr.requests())


def the_report(ehr: FhirServer) -> dict[str, Any]:
    [report] = ehr.search("DiagnosticReport")
    return report


def test_a_report_is_delivered_whole_with_its_references(
    ehr: FhirServer, client: FhirClient
) -> None:
    outcomes = deliver(client, a_report())

    assert held_by(ehr) == KINDS
    assert Counter(it.resource_type for it in outcomes) == KINDS
    assert {it.status for it in outcomes} == {"201"}
    report = the_report(ehr)
    assert report["status"] == "final"
    ids = {it.resource_type: it.server_id for it in outcomes}
    assert report["id"] == ids["DiagnosticReport"]
    assert report["subject"]["reference"] == f"Patient/{ids['Patient']}"
    assert report["result"][0]["reference"] == f"Observation/{ids['Observation']}"
    assert report["imagingStudy"][0]["reference"] == f"ImagingStudy/{ids['ImagingStudy']}"


def test_delivered_again_nothing_is_made_twice_and_nothing_is_written(
    ehr: FhirServer, client: FhirClient
) -> None:
    first = deliver(client, a_report())

    again = deliver(client, a_report())

    assert held_by(ehr) == KINDS
    assert posts(ehr) == 1
    assert len(ehr.history(the_report(ehr))) == 1
    by_kind = {(it.resource_type, it.server_id) for it in first}
    assert {(it.resource_type, it.server_id) for it in again} == by_kind


def test_the_same_transaction_posted_twice_makes_nothing_twice(
    ehr: FhirServer, client: FhirClient
) -> None:
    bundle = bundle_of(a_report()).resource
    client.transact(bundle)

    outcomes = client.transact(bundle)

    assert held_by(ehr) == KINDS
    assert {it.status for it in outcomes} == {"200"}


def test_a_reply_lost_after_the_commit_leaves_one_report(
    ehr: FhirServer, client: FhirClient
) -> None:
    ehr.lose_next_reply(skip=LOOK_UPS)

    with pytest.raises(EhrUnavailable, match="no answer"):
        deliver(client, a_report())
    outcomes = deliver(client, a_report())

    assert held_by(ehr) == KINDS
    assert posts(ehr) == 1
    assert Counter(it.resource_type for it in outcomes) == KINDS
    assert all(it.server_id for it in outcomes)


def test_a_later_version_updates_the_same_report(ehr: FhirServer, client: FhirClient) -> None:
    deliver(client, a_report())
    first = the_report(ehr)

    deliver(client, a_report(version=2, amends=True))

    second = the_report(ehr)
    assert second["id"] == first["id"]
    assert second["status"] == "amended"
    assert [it["status"] for it in ehr.history(second)] == ["amended", "final"]
    # A Provenance tells of one event: each version has its own.
    assert held_by(ehr) == KINDS | {"Provenance": 4}


def test_when_the_doctor_changes_their_mind_the_models_finding_does_not_stay(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report())

    amended = an_override("Lung abscess")
    amended = a_report(amended.doctor, version=2, amends=True)
    deliver(client, amended)

    [observation] = ehr.search("Observation")
    assert observation["valueCodeableConcept"]["text"] == "Lung abscess"
    assert "component" not in observation
    assert "device" not in observation


def test_an_earlier_version_that_comes_late_overwrites_nothing(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report(version=2, amends=True))
    before = the_report(ehr)

    [outcome] = deliver(client, a_report())

    assert the_report(ehr) == before
    assert outcome.status == "200 superseded by version 2"
    assert outcome.server_id == before["id"]


def test_the_patient_that_the_ehr_has_is_used_and_left_as_it_is(
    ehr: FhirServer, client: FhirClient
) -> None:
    identifier = {"system": SYSTEMS["HOSP"], "value": PATIENT.patient_id}
    known = ehr.post(
        {"resourceType": "Patient", "identifier": [identifier], "birthDate": "1901-01-01"}
    )

    deliver(client, a_report())

    assert ehr.search("Patient") == [known]
    assert the_report(ehr)["subject"]["reference"] == f"Patient/{known['id']}"


def test_a_refusal_says_what_and_quotes_nothing(ehr: FhirServer, client: FhirClient) -> None:
    bundle = bundle_of(a_report()).resource
    bundle["entry"][4]["resource"]["status"] = "secret-of-the-patient"

    with pytest.raises(EhrRefused) as refusal:
        client.transact(bundle)

    assert "422" in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert "DiagnosticReport" in refusal.value.answer or "Bundle" in refusal.value.answer
    blamed = {it.resource_type: it.status for it in refusal.value.outcomes}
    assert len(refusal.value.outcomes) == 8
    assert "secret" not in str(blamed)
    assert held_by(ehr) == dict.fromkeys(KINDS, 0)


def test_the_outcome_of_a_refusal_is_told_per_resource(ehr: FhirServer, client: FhirClient) -> None:
    issue = {
        "severity": "error",
        "code": "required",
        "expression": ["DiagnosticReport.code"],
        "diagnostics": "Mustermann has no code",
    }
    ehr.answer_next(422, body={"resourceType": "OperationOutcome", "issue": [issue]})

    with pytest.raises(EhrRefused) as refusal:
        client.transact(bundle_of(a_report()).resource)

    assert str(refusal.value) == "the EHR refused with 422: required at DiagnosticReport.code"
    statuses = {it.resource_type: it.status for it in refusal.value.outcomes}
    assert statuses["DiagnosticReport"] == "422 required at DiagnosticReport.code"
    assert statuses["Patient"] == "not stored"
    assert "Mustermann" in refusal.value.answer


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 412, 413, 415, 422])
def test_a_hopeless_answer_is_not_tried_again(
    ehr: FhirServer, client: FhirClient, status: int
) -> None:
    ehr.answer_next(status)

    with pytest.raises(EhrRefused, match=str(status)):
        client.transact(bundle_of(a_report()).resource)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_an_answer_that_may_pass_is_tried_again(
    ehr: FhirServer, client: FhirClient, status: int
) -> None:
    ehr.answer_next(status)

    with pytest.raises(EhrUnavailable, match=str(status)):
        deliver(client, a_report())
    deliver(client, a_report())

    assert held_by(ehr) == KINDS


def test_an_ehr_that_asks_to_wait_is_left_alone(ehr: FhirServer, client: FhirClient) -> None:
    ehr.answer_next(503, headers={"Retry-After": "3600"})

    with pytest.raises(EhrUnavailable, match="503"):
        deliver(client, a_report())
    with pytest.raises(EhrUnavailable, match="left alone"):
        deliver(client, a_report())

    assert len(ehr.requests()) == 1


def test_an_ehr_that_is_away_is_tried_again() -> None:
    client = FhirClient(f"http://127.0.0.1:{free_port()}", timeout_s=5)

    with pytest.raises(EhrUnavailable, match="ConnectError"):
        deliver(client, a_report())
    client.close()


def test_a_page_that_is_not_fhir_is_not_taken_for_an_answer(
    ehr: FhirServer, client: FhirClient
) -> None:
    ehr.answer_next(200, body={"login": "please"})

    with pytest.raises(EhrUnavailable, match="not a FHIR Bundle"):
        deliver(client, a_report())


def test_a_transaction_done_in_part_is_not_taken_for_done(
    ehr: FhirServer, client: FhirClient
) -> None:
    ehr.treat_transactions_as_batches()
    bundle = bundle_of(a_report()).resource
    bundle["entry"][5]["resource"]["content"][0]["attachment"]["size"] = 0.5

    with pytest.raises(EhrRefused, match="part of the transaction only: DocumentReference 400"):
        client.transact(bundle)


def test_what_a_partial_delivery_left_out_is_made_good(ehr: FhirServer, client: FhirClient) -> None:
    bundle = bundle_of(a_report()).resource
    client.transact(bundle | {"entry": bundle["entry"][:5]})

    deliver(client, a_report())

    assert held_by(ehr) == KINDS


def test_two_reports_of_one_case_are_for_a_person_to_merge(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report())
    twin = the_report(ehr)
    del twin["id"]
    ehr.post(twin)

    with pytest.raises(EhrRefused, match="2 DiagnosticReport"):
        deliver(client, a_report())


def test_a_report_changed_while_we_look_is_looked_at_again(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report())
    ehr.answer_next(200, body={"resourceType": "Bundle", "type": "searchset", "entry": [
        {"resource": the_report(ehr) | {"meta": {"versionId": "stale"}}}
    ]})  # fmt: skip

    with pytest.raises(EhrUnavailable, match="has changed"):
        deliver(client, a_report(version=2, amends=True))
    deliver(client, a_report(version=2, amends=True))

    assert the_report(ehr)["status"] == "amended"


def test_without_an_ehr_bundle_and_pdf_lie_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "ehr-outbox"
    report = a_report()

    first = to_folder(folder, report, bundle_of(report), PDF)
    again = to_folder(folder, report, bundle_of(report), PDF)

    assert first == again
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".pdf"]
    [bundle] = folder.glob("*.json")
    assert json.loads(bundle.read_bytes()) == bundle_of(report).resource
    assert bundle.with_suffix(".pdf").read_bytes() == PDF


def test_a_folder_that_cannot_be_written_to_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "ehr-outbox").write_text("a file")

    with pytest.raises(EhrUnavailable, match="ehr-outbox"):
        to_folder(tmp_path / "ehr-outbox", a_report(), bundle_of(a_report()), PDF)


BONES = replace(READING, model_name="bones", device_uid="2.25.9")


def test_the_findings_of_several_models_are_one_report(ehr: FhirServer, client: FhirClient) -> None:
    report = replace(a_report(), others=(BONES,))

    outcomes = deliver(client, report)
    again = deliver(client, report)

    expected = KINDS | {"Device": 2, "Observation": 2, "Provenance": 3}
    assert held_by(ehr) == expected
    assert Counter(it.resource_type for it in outcomes) == expected
    assert Counter(it.resource_type for it in again) == expected
    results = [it["reference"] for it in the_report(ehr)["result"]]
    assert set(results) == {f"Observation/{it['id']}" for it in ehr.search("Observation")}


def test_a_finding_that_is_stood_behind_no_more_does_not_stay(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, replace(a_report(), others=(BONES,)))

    deliver(client, replace(an_override(), version=2, amends=True, withdrawn=("bones",)))

    held = {it["status"]: it for it in ehr.search("Observation")}
    assert held.keys() == {"amended", "entered-in-error"}
    assert "valueCodeableConcept" not in held["entered-in-error"]
    [result] = the_report(ehr)["result"]
    assert result["reference"] == f"Observation/{held['amended']['id']}"


class SilentClient(FhirClient):
    """A client of an EHR that does not tell where it has put things: R4 lets it."""

    @override
    def transact(self, bundle: dict[str, Any]) -> tuple[ResourceOutcome, ...]:
        outcomes = super().transact(bundle)
        return tuple(each.model_copy(update={"server_id": None}) for each in outcomes)


@pytest.mark.parametrize("others", [(), (BONES,)])
def test_every_resource_is_told_once_where_the_ehr_does_not_say_where_it_is(
    ehr: FhirServer, others: tuple[Reading, ...]
) -> None:
    client = SilentClient(ehr.url, timeout_s=20)

    outcomes = deliver(client, replace(a_report(), others=others))
    client.close()

    assert Counter(it.resource_type for it in outcomes) == held_by(ehr)


class OvertakenClient(FhirClient):
    """A client that another delivery overtakes just before it sends its first or a later part."""

    def __init__(self, url: str, *, before: int, overtake: Callable[[], object]) -> None:
        super().__init__(url, timeout_s=20)
        self._parts = 0
        self._before = before
        self._overtake = overtake

    @override
    def transact(self, bundle: dict[str, Any]) -> tuple[ResourceOutcome, ...]:
        self._parts += 1
        if self._parts == self._before:
            self._overtake()
        return super().transact(bundle)


FIRST = replace(a_report(), others=(BONES,))
SECOND = replace(a_report(version=2, amends=True), others=(BONES,))
THIRD = replace(an_override(), version=3, amends=True, withdrawn=("bones",))


@pytest.mark.parametrize("held", [FIRST, None])
@pytest.mark.parametrize("before", [1, 2])
def test_a_version_that_is_overtaken_while_it_is_sent_overwrites_nothing(
    ehr: FhirServer, client: FhirClient, held: SignedReport | None, before: int
) -> None:
    if held is not None:
        deliver(client, held)
    late = OvertakenClient(ehr.url, before=before, overtake=lambda: deliver(client, THIRD))

    with pytest.raises(EhrUnavailable):
        deliver(late, SECOND)
    [outcome] = deliver(late, SECOND)
    late.close()

    assert outcome.status == "200 superseded by version 3"
    texts = {it.get("valueCodeableConcept", {}).get("text") for it in ehr.search("Observation")}
    assert texts <= {"Lung abscess", None}
    report = the_report(ehr)
    assert report["conclusion"].startswith("Lung abscess")
    assert len(report["result"]) == 1


def test_a_report_is_there_before_its_further_findings_and_names_what_is_there(
    ehr: FhirServer, client: FhirClient
) -> None:
    ehr.lose_next_reply(skip=LOOK_UPS + 1)

    with pytest.raises(EhrUnavailable):
        deliver(client, FIRST)
    assert [it["reference"] for it in the_report(ehr)["result"]] == [
        f"Observation/{it['id']}" for it in ehr.search("Observation")
    ]

    outcomes = deliver(client, FIRST)
    assert len(the_report(ehr)["result"]) == 2
    assert Counter(it.resource_type for it in outcomes) == held_by(ehr)


def test_a_report_that_lost_a_finding_between_two_tries_gets_it_back(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, FIRST)
    short = the_report(ehr)
    both, short["result"] = short["result"], short["result"][:1]
    ehr.put(short)

    deliver(client, FIRST)

    assert the_report(ehr)["result"] == both


def test_what_was_stored_before_a_refusal_is_told_as_stored(
    ehr: FhirServer, client: FhirClient
) -> None:
    refusing = OvertakenClient(ehr.url, before=2, overtake=lambda: ehr.answer_next(422))

    with pytest.raises(EhrRefused) as refusal:
        deliver(refusing, FIRST)
    refusing.close()

    told = Counter((it.resource_type, it.status) for it in refusal.value.outcomes)
    assert {kind: count for (kind, status), count in told.items() if status == "201"} == KINDS
    missing = {kind: count for (kind, status), count in told.items() if status == "not stored"}
    assert missing == {"Device": 1, "Observation": 1, "Provenance": 1}
    assert held_by(ehr) == KINDS


def test_without_transactions_what_has_changed_is_not_overwritten_and_is_looked_at_again(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report())
    ehr.treat_transactions_as_batches()
    third = replace(an_override(), version=3, amends=True)
    late = OvertakenClient(ehr.url, before=1, overtake=lambda: deliver(client, third))

    with pytest.raises(EhrUnavailable, match="412"):
        deliver(late, a_report(version=2, amends=True))
    late.close()

    [finding] = ehr.search("Observation")
    assert finding["valueCodeableConcept"]["text"] == "Lung abscess"


def test_a_finding_that_never_came_is_not_put_into_the_chart_as_an_error(
    ehr: FhirServer, client: FhirClient
) -> None:
    names = ("bones", "brain", "chest", "skull")
    report = replace(an_override(), version=2, amends=True, withdrawn=names)

    outcomes = deliver(client, report)
    written = posts(ehr)
    again = deliver(client, report)

    assert [it["status"] for it in ehr.search("Observation")] == ["amended"]
    assert Counter(it.resource_type for it in outcomes) == {
        kind: count for kind, count in held_by(ehr).items() if count
    }
    assert len(again) == len(outcomes)
    assert posts(ehr) == written == 1


def test_of_findings_that_are_withdrawn_only_those_that_came_are_marked(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, FIRST)

    deliver(client, replace(THIRD, withdrawn=("bones", "brain")))

    assert sorted(it["status"] for it in ehr.search("Observation")) == [
        "amended",
        "entered-in-error",
    ]


SEVERAL = replace(
    a_report(),
    others=tuple(
        replace(READING, model_name=name, device_uid=f"2.25.{number}")
        for number, name in enumerate(("bones", "brain", "chest"), 9)
    ),
)
"""It is sent in four parts."""


class LaggingClient(FhirClient):
    """A client of an EHR that refuses some parts, and whose search catches up between tries only.

    A read by id shows what has been written (R4 http §3.1.0.1.2).
    """

    def __init__(self, url: str, *, lags: bool, refused: frozenset[int]) -> None:
        super().__init__(url, timeout_s=20)
        self._lags = lags
        self._refused = refused
        self._parts = 0
        self._answers: dict[str, list[dict[str, Any]]] = {}

    def catch_up(self) -> None:
        self._answers.clear()

    @override
    def search(self, query: str) -> list[dict[str, Any]]:
        answer = super().search(query)
        return self._answers.setdefault(query, answer) if self._lags else answer

    @override
    def transact(self, bundle: dict[str, Any]) -> tuple[ResourceOutcome, ...]:
        self._parts += 1
        if self._parts in self._refused:
            raise EhrUnavailable("the EHR answered 503")
        return super().transact(bundle)


@pytest.mark.parametrize("lags", [False, True])
@pytest.mark.parametrize("refused", [(), (3, 5), (2, 3)])
def test_a_retry_goes_on_where_the_one_before_ended(
    ehr: FhirServer, refused: tuple[int, ...], lags: bool
) -> None:
    client = LaggingClient(ehr.url, lags=lags, refused=frozenset(refused))

    for _ in refused:
        with pytest.raises(EhrUnavailable, match="503"):
            deliver(client, SEVERAL)
        client.catch_up()
    outcomes = deliver(client, SEVERAL)
    client.close()

    report = the_report(ehr)
    # Newest first: it never gets shorter, and no part is sent again that is there.
    assert [len(it["result"]) for it in ehr.history(report)] == [4, 3, 2, 1]
    assert {it["reference"] for it in report["result"]} == {
        f"Observation/{it['id']}" for it in ehr.search("Observation")
    }
    assert Counter(it.resource_type for it in outcomes) == held_by(ehr)
    told = {f"{it.resource_type}/{it.server_id}" for it in outcomes}
    assert len(told) == len(outcomes)


def test_what_is_missing_of_an_early_part_is_made_good_and_the_report_stays_whole(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, SEVERAL)
    whole = held_by(ehr)
    event = next(it for it in ehr.search("Provenance") if it["target"][0]["reference"] in {
        each["reference"] for each in the_report(ehr)["result"][:1]
    })  # fmt: skip
    ehr.delete(event)

    deliver(client, SEVERAL)

    assert held_by(ehr) == whole
    assert {len(it["result"]) for it in ehr.history(the_report(ehr))[:-3]} == {4}


def test_a_report_is_not_cut_back_to_the_findings_that_a_search_finds(
    ehr: FhirServer, client: FhirClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(client, SEVERAL)
    before = the_report(ehr)
    search = client.search

    with monkeypatch.context() as lagging:
        lagging.setattr(
            client, "search", lambda query: [] if "Observation" in query else search(query)
        )
        with pytest.raises(EhrUnavailable, match="does not find yet"):
            deliver(client, SEVERAL)
    deliver(client, SEVERAL)

    assert the_report(ehr) == before


def test_a_report_that_is_taken_away_between_two_parts_is_looked_up_again(
    ehr: FhirServer, client: FhirClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = client.read

    def after_it_was_deleted(reference: str) -> dict[str, Any] | None:
        ehr.delete(the_report(ehr))
        return read(reference)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(client, "read", after_it_was_deleted)
        with pytest.raises(EhrUnavailable, match="between the parts"):
            deliver(client, FIRST)
    deliver(client, FIRST)

    assert len(the_report(ehr)["result"]) == 2
