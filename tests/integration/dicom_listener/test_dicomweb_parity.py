"""The same checks on either way in: what C-STORE answers and does, STOW-RS answers and does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import update

from imaging_store.instances import StorageFull
from imaging_store.schema.ingest import (
    conflict,
    conflicting_instance,
    duplicate_instance,
    instance,
    quarantined_instance,
)
from message_contracts.ingest import StudyConflicted, StudyReceived, StudyUpdated
from tests.integration.dicom_listener.dicomweb_process import POSTED, body_of
from tests.integration.dicom_listener.dicomweb_room import app_before
from tests.integration.dicom_listener.dicomweb_studies import file_of
from tests.integration.dicom_listener.listener import a_slice
from tests.integration.dicom_listener.reading_room import ReadingRoom

SUCCESS, FULL, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"

Door = Callable[..., list[int]]


@pytest.fixture(params=["C-STORE", "STOW-RS", "STOW-RS of a study"])
def door(request: pytest.FixtureRequest, room_in_sqlite: ReadingRoom) -> Door:
    """Return what receives data sets, one request for all, and tells the status of each."""
    if request.param == "C-STORE":
        return room_in_sqlite.arrive
    app = app_before(room_in_sqlite)

    def post(*sent: Dataset) -> list[int]:
        path = "/dicom-web/studies"
        if request.param.endswith("of a study"):
            path += f"/{sent[0].get('StudyInstanceUID', '2.25.1')}"
        answer = asyncio.run(posted(app, path, body_of([file_of(ds) for ds in sent])))
        statuses = statuses_of(answer.json(), sent)
        assert answer.status_code == status_code_of(statuses)
        assert ("Retry-After" in answer.headers) is (answer.status_code == 503)
        return statuses

    return post


async def posted(app: FastAPI, path: str, body: bytes) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://dicomweb") as client:
        return await client.post(path, content=body, headers={"Content-Type": POSTED})


def statuses_of(model: dict[str, Any], sent: tuple[Dataset, ...]) -> list[int]:
    """Return the status of each data set, as the body of the answer tells it."""
    told = {
        item["00081155"]["Value"][0]: item.get("00081197", {"Value": [SUCCESS]})["Value"][0]
        for sequence in ("00081199", "00081198")
        for item in model.get(sequence, {}).get("Value", [])
    }
    return [told[ds.SOPInstanceUID] for ds in sent]


def status_code_of(statuses: list[int]) -> int:
    if SUCCESS in statuses:
        return 200 if set(statuses) == {SUCCESS} else 202
    return 503 if FULL in statuses else 409


def of(ds: Dataset, **changes: object) -> Dataset:
    """Draw another slice of the same series."""
    same = {name: ds[name].value for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    return a_slice(**{**same, "SOPInstanceUID": generate_uid(), **changes})


def test_what_was_purged_is_kept_again(door: Door, room_in_sqlite: ReadingRoom) -> None:
    room, ds = room_in_sqlite, a_slice()
    door(ds)
    first = room.row(instance)
    with room.database.transaction() as transaction:
        purged = update(instance).values(purged_at=datetime.now(UTC))
        transaction.connection.execute(purged)
    room.store.path(first.key).unlink()

    statuses = door(ds)

    assert statuses == [SUCCESS]
    assert room.row(instance).purged_at is None
    assert room.store.exists(first.key)
    assert room.rows(duplicate_instance) == []


def test_the_same_again_is_kept_once(door: Door, room_in_sqlite: ReadingRoom) -> None:
    room, ds = room_in_sqlite, a_slice()

    assert [*door(ds, ds), *door(ds)] == [SUCCESS] * 3
    assert len(room.rows(instance)) == 1
    assert room.rows(duplicate_instance) == []


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"PixelData": b"\1" * 128}, "content"),
        ({"AccessionNumber": "A2"}, "attributes"),
        ({"PatientID": "P2"}, "attributes"),
    ],
)
def test_other_bytes_under_the_same_uid_are_kept_beside_the_first(
    door: Door, room_in_sqlite: ReadingRoom, changes: dict[str, Any], difference: str
) -> None:
    room, ds = room_in_sqlite, a_slice()
    door(ds)
    first = room.row(instance)

    statuses = door(of(ds, SOPInstanceUID=ds.SOPInstanceUID, **changes))
    room.handle()

    beside = room.row(duplicate_instance)
    assert statuses == [SUCCESS]
    assert room.row(instance).digest == first.digest
    assert room.store.exists(first.key)
    assert room.store.exists(beside.key)
    assert beside.key != first.key
    assert beside.difference == difference
    assert len(room.rows(conflict)) == 1


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"PatientID": "P2"}, ["PatientID"]),
        ({"PatientID": ""}, ["PatientID"]),
        ({"PatientName": "Roe^Jane"}, ["PatientName"]),
    ],
)
def test_another_patient_s_is_kept_and_a_person_is_asked_once(
    door: Door, room_in_sqlite: ReadingRoom, changes: dict[str, Any], differing: list[str]
) -> None:
    room, ds = room_in_sqlite, a_slice()

    statuses = [*door(ds), *door(of(ds, **changes), of(ds, **changes))]

    assert statuses == [SUCCESS] * 3
    assert len(room.rows(instance)) == 3
    assert room.row(conflict).differing == differing
    assert len(room.rows(conflicting_instance)) == 2
    assert len(room.said(StudyConflicted)) == 1


def test_what_no_model_reads_is_kept_and_makes_no_version(
    door: Door, room_in_sqlite: ReadingRoom
) -> None:
    room, ds = room_in_sqlite, a_slice()
    door(ds)
    room.become_quiet()
    state = of(ds, SOPClassUID=PRESENTATION_STATE, Modality="PR")

    statuses = door(state)
    room.become_quiet()

    assert statuses == [SUCCESS]
    assert not room.row(instance, sop_instance_uid=state.SOPInstanceUID).makes_version
    assert len(room.said(StudyReceived)) == 1
    assert room.said(StudyUpdated) == []


def test_what_cannot_be_understood_is_in_quarantine_and_takes_no_other_with_it(
    door: Door, room_in_sqlite: ReadingRoom
) -> None:
    room, ds = room_in_sqlite, a_slice()
    nowhere = of(ds)
    del nowhere.StudyInstanceUID

    statuses = door(ds, nowhere, of(ds))

    kept = room.row(quarantined_instance)
    assert statuses == [SUCCESS, NOT_UNDERSTOOD, SUCCESS]
    assert len(room.rows(instance)) == 2
    assert kept.sop_instance_uid == nowhere.SOPInstanceUID
    assert "Study Instance UID" in kept.reason
    assert room.store.exists(kept.key)


def test_without_room_nothing_is_kept_until_there_is_some(
    door: Door, room_in_sqlite: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, ds = room_in_sqlite, a_slice()

    def full() -> None:
        raise StorageFull("full")

    with monkeypatch.context() as disk:
        disk.setattr(room.store, "require_room", full)
        statuses = door(ds, of(ds))
    left = room.rows(instance)
    again = door(ds)

    assert statuses == [FULL, FULL]
    assert left == []
    assert again == [SUCCESS]
