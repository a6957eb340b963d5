"""A report with the findings of several models, which is sent in several parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

from fhir_bridge.client import EhrUnavailable, FhirClient
from fhir_bridge.signed_report import Reading, SignedReport
from message_contracts.delivery import ResourceOutcome
from tests.integration.fhir_bridge.deliveries import (
    BONES,
    FIRST,
    KINDS,
    LOOK_UPS,
    OvertakenClient,
    deliver,
    held_by,
    posts,
    the_report,
)
from tests.peers.fhir import FhirServer
from tests.unit.fhir_bridge.reports import READING, a_report, an_override


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
