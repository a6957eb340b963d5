"""What goes before its time where room is short, and no more than that."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dicom_listener import purging
from dicom_listener.purging import Purging
from dicom_listener.recovered import Recovered
from imaging_store.holdings import Amount
from imaging_store.removal import Left
from imaging_store.retention import Retention, Room
from imaging_store.schema.ingest import (
    removal,
)
from message_contracts.case import CaseStatus
from tests.integration.dicom_listener.kept_studies import (
    NEVER_ENOUGH_ROOM,
    NOW,
    KeptStudies,
    a_purge,
    days_ago,
)
from tests.peers.processes import wait_until


def test_when_room_is_short_what_ended_first_goes_first(kept: KeptStudies) -> None:
    kept.add("1.1", ended_at=days_ago(2))
    kept.add("1.2", ended_at=days_ago(3))
    kept.add("1.3", ended_at=days_ago(4), status=CaseStatus.NO_MODEL)
    kept.add("1.4", ended_at=days_ago(5), status=CaseStatus.DOCTOR_VERIFIED)
    purge = a_purge(kept, NEVER_ENOUGH_ROOM)

    assert purge.some_early().instances == 2
    assert kept.purged() == {"1.2.1", "1.2.2"}
    assert purge.some_early().instances == 2
    assert kept.purged() == {"1.2.1", "1.2.2", "1.1.1", "1.1.2"}
    assert purge.some_early() == Amount(0, 0)


def test_room_that_comes_back_late_costs_no_more_than_was_short(
    kept_in_sqlite: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        kept_in_sqlite.add(f"1.{number}", ended_at=days_ago(5 - number))
    retention = Retention(timedelta(days=30), watermark_bytes=100, reserve_bytes=0)
    monkeypatch.setattr(purging, "room_of", lambda _: Room(free_bytes=88, total_bytes=1000))

    with Purging(a_purge(kept_in_sqlite, retention), lambda _: Recovered([], [], [], {})):
        wait_until(lambda: len(kept_in_sqlite.purged()) >= 4, what="the purge")

    assert kept_in_sqlite.purged() == {"1.1.1", "1.1.2", "1.2.1", "1.2.2"}


def test_where_files_cannot_be_removed_no_more_are_given_up(
    kept_in_sqlite: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "_FILES", 2)
    kept_in_sqlite.add("1.1", ended_at=days_ago(4))
    kept_in_sqlite.add("1.2", ended_at=days_ago(3))
    purge = a_purge(kept_in_sqlite, NEVER_ENOUGH_ROOM)
    with monkeypatch.context() as read_only:
        read_only.setattr(
            purging,
            "remove_marked",
            lambda _, marked, __: Left(dict.fromkeys(marked, OSError()), []),
        )

        assert [purge.some_early().instances for _ in range(3)] == [2, 0, 0]

    later = a_purge(kept_in_sqlite, NEVER_ENOUGH_ROOM, now=NOW + timedelta(hours=1))
    later.remove_marked()
    assert later.some_early().instances == 2
    assert kept_in_sqlite.files() == []


def test_while_there_is_room_nothing_goes_before_its_time(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1", ended_at=days_ago(2))

    assert a_purge(kept_in_sqlite).some_early() == Amount(0, 0)


def test_files_that_cannot_be_removed_stand_before_no_other(
    kept_in_sqlite: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "_FILES", 2)
    kept_in_sqlite.add("1.1", count=5, ended_at=days_ago(50))
    stubborn = [kept_in_sqlite.store.root / key for key in kept_in_sqlite.files()[:3]]
    for path in stubborn:
        path.unlink()
        path.mkdir()

    a_purge(kept_in_sqlite).some()

    assert all(path.is_dir() for path in stubborn)
    assert len(kept_in_sqlite.rows(removal)) == 3
    # Nor do they stop the purge from making room with others, an hour later.
    kept_in_sqlite.add("1.2", ended_at=days_ago(2))
    later = a_purge(kept_in_sqlite, NEVER_ENOUGH_ROOM, now=NOW + timedelta(hours=2))
    assert later.some_early().instances == 2
    assert [each for each in kept_in_sqlite.files() if "/1.2/" in each] == []
