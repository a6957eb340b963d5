"""What is let go of, when, and in which order; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest
from sqlalchemy import text, update

from dicom_listener import purging
from dicom_listener.purging import Purge, Purging, put_back
from imaging_store.holdings import Amount, holdings
from imaging_store.instances import FileInstanceStore
from imaging_store.retention import Retention, Room
from imaging_store.schema.ingest import (
    commitment,
    committed_instance,
    conflict,
    duplicate_instance,
    instance,
    open_association,
    removal,
    study,
)
from imaging_store.schema.results import result_object
from imaging_store.schema.workflow import cases
from message_contracts.case import CaseStatus, DeliveryState
from message_contracts.identifiers import case_id_of
from service_runtime.database import Database
from tests.integration.dicom_listener.kept_studies import NOW, KeptStudies, days_ago
from tests.peers.processes import wait_until

MONTH = Retention(period=timedelta(days=30), watermark_bytes=0, reserve_bytes=0)
NEVER_ENOUGH_ROOM = Retention(period=timedelta(days=30), watermark_bytes=2**80, reserve_bytes=0)


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptStudies]:
    database = Database(request.getfixturevalue(request.param))
    yield KeptStudies(database, FileInstanceStore(tmp_path / "store"))
    database.close()


@pytest.fixture
def kept_in_sqlite(sqlite_url: str, tmp_path: Path) -> Iterator[KeptStudies]:
    database = Database(sqlite_url)
    yield KeptStudies(database, FileInstanceStore(tmp_path / "store"))
    database.close()


def a_purge(kept: KeptStudies, retention: Retention = MONTH, now: datetime = NOW) -> Purge:
    return Purge(kept.database, kept.store, retention, lambda: now)


def commit_to(kept: KeptStudies, uid: str, kept_until: datetime | None) -> None:
    asked = uuid4()
    kept.write(commitment, id=asked, transaction_uid="1.2.3", requested_at=NOW)
    kept.write(committed_instance, commitment_id=asked, sop_instance_uid=uid, kept_until=kept_until)


def test_instances_go_a_month_after_their_case_has_ended(kept: KeptStudies) -> None:
    kept.add("1.1", ended_at=days_ago(31))
    kept.add("1.2", ended_at=days_ago(29))

    gone = a_purge(kept).some()

    assert gone == Amount(2, 10)
    assert kept.purged() == {"1.1.1", "1.1.2"}
    assert [key.split("/")[2] for key in kept.files()] == ["1.2", "1.2"]
    assert {row.study_instance_uid: row.purged_at for row in kept.rows(study)} == {
        "1.1": NOW,
        "1.2": None,
    }
    assert kept.rows(removal) == []
    assert a_purge(kept).some() == Amount(0, 0)


@pytest.mark.parametrize("status", sorted(CaseStatus))
def test_only_what_nobody_has_to_act_on_goes(
    kept_in_sqlite: KeptStudies, status: CaseStatus
) -> None:
    kept_in_sqlite.add("1.1", status=status)

    gone = a_purge(kept_in_sqlite).some()

    ended = {CaseStatus.REPORT_READY, CaseStatus.REJECTED, CaseStatus.NO_MODEL}
    assert gone.instances == (2 if status in ended else 0)


@pytest.mark.parametrize("state", sorted(DeliveryState))
def test_a_report_that_was_not_delivered_keeps_its_instances(
    kept_in_sqlite: KeptStudies, state: DeliveryState
) -> None:
    kept_in_sqlite.add("1.1", delivery=state)

    gone = a_purge(kept_in_sqlite).some()

    served = {DeliveryState.DELIVERED, DeliveryState.REJECTED}
    assert gone.instances == (2 if state in served else 0)


def test_a_case_ends_when_its_last_destination_has_answered(kept: KeptStudies) -> None:
    kept.add("1.1", ended_at=days_ago(29))
    kept.change(cases, cases.c.id == case_id_of("1.1"), changed_at=days_ago(31))

    assert a_purge(kept).some() == Amount(0, 0)


def test_a_case_on_hold_keeps_its_instances(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1", on_hold=True)

    assert a_purge(kept_in_sqlite).some() == Amount(0, 0)


def test_a_version_that_was_not_taken_up_yet_keeps_the_study(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1")
    kept_in_sqlite.change(study, study.c.study_instance_uid == "1.1", version=2)

    assert a_purge(kept_in_sqlite).some() == Amount(0, 0)


def test_what_still_arrives_or_contradicts_keeps_its_study(kept: KeptStudies) -> None:
    for uid in ("1.1", "1.2", "1.3", "1.4"):
        kept.add(uid)
    kept.change(study, study.c.study_instance_uid == "1.1", pending_since=NOW)
    kept.write(
        conflict,
        id=uuid4(),
        study_instance_uid="1.2",
        known={},
        claimed={},
        differing=[],
        opened_at=NOW,
    )
    kept.write(open_association, id="a", study_instance_uid="1.3", since=NOW)

    a_purge(kept).some()

    assert kept.purged() == {"1.4.1", "1.4.2"}


def test_a_case_that_is_opened_by_hand_just_then_keeps_its_instances(
    postgresql_database_url: str, tmp_path: Path
) -> None:
    database = Database(postgresql_database_url)
    kept = KeptStudies(database, FileInstanceStore(tmp_path / "store"))
    kept.add("1.1", status=CaseStatus.NO_MODEL)
    purging_it = Thread(target=a_purge(kept).some)

    with database.transaction() as transaction:
        transaction.connection.execute(update(cases).values(status=CaseStatus.DOCTOR_VERIFIED))
        purging_it.start()
        wait_until(
            lambda: not purging_it.is_alive() or is_waiting(database),
            timeout_s=30,
            what="the purge, which looks at the case",
        )
    purging_it.join()

    assert kept.purged() == set()
    database.close()


def is_waiting(database: Database) -> bool:
    """Whether one connection to this database waits for what another holds."""
    with database.reading() as connection:
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(connection.execute(waiting).scalar())


def test_what_came_again_and_is_to_be_compared_keeps_its_study(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive_duplicate("1.99", "1.1.1", NOW - timedelta(minutes=59), b"other")

    assert a_purge(kept).some() == Amount(0, 0)
    kept.change(duplicate_instance, duplicate_instance.c.sop_instance_uid == "1.1.1", difference="")
    assert a_purge(kept).some().instances == 2


def test_what_nobody_compares_does_not_keep_its_study(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive_duplicate("1.1", "1.1.1", NOW - timedelta(minutes=61), b"other")

    assert a_purge(kept).some().instances == 2


def test_what_we_committed_to_is_kept_until_then(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive_duplicate("1.1", "1.1.1", days_ago(41), b"other")
    commit_to(kept, "1.1.1", NOW + timedelta(seconds=1))
    commit_to(kept, "1.1.2", NOW - timedelta(seconds=1))
    commit_to(kept, "1.1.2", None)

    a_purge(kept).some()

    assert kept.purged() == {"1.1.2"}
    assert len(kept.files()) == 2
    assert kept.rows(study)[0].purged_at is None
    a_purge(kept, now=NOW + timedelta(seconds=1)).some()
    assert kept.files() == []
    assert kept.rows(study)[0].purged_at is not None


def test_what_came_late_is_kept_as_long_as_what_came_first(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive("1.1", "1.1.9", days_ago(3))

    a_purge(kept).some()

    assert kept.purged() == {"1.1.1", "1.1.2"}
    a_purge(kept, now=NOW + timedelta(days=28)).some()
    assert kept.files() == []


def test_duplicates_go_with_the_study_of_the_first(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive_duplicate("1.99", "1.1.1", days_ago(41), b"of another study")

    assert a_purge(kept).some().instances == 3

    assert kept.files() == []
    assert kept.rows(duplicate_instance)[0].purged_at == NOW


def test_results_stay(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.store.put_artifact("results/x/SC.dcm", b"capture")
    kept.write(
        result_object,
        sop_instance_uid="9",
        case_id=case_id_of("1.1"),
        key="results/x/SC.dcm",
        made_at=NOW,
    )

    a_purge(kept).some()

    assert kept.store.read("results/x/SC.dcm") == b"capture"
    assert len(kept.rows(result_object)) == 1


def test_without_a_retention_nothing_ever_goes(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1", ended_at=days_ago(3000))
    purge = a_purge(kept_in_sqlite, Retention(None, watermark_bytes=2**80, reserve_bytes=0))

    assert purge.some() == purge.some_early() == Amount(0, 0)


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

    with Purging(a_purge(kept_in_sqlite, retention)):
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
        read_only.setattr(purging, "remove", lambda _, keys: dict.fromkeys(keys, OSError()))

        assert [purge.some_early().instances for _ in range(3)] == [2, 0, 0]

    later = a_purge(kept_in_sqlite, NEVER_ENOUGH_ROOM, now=NOW + timedelta(hours=1))
    later.remove_marked()
    assert later.some_early().instances == 2
    assert kept_in_sqlite.files() == []


def test_while_there_is_room_nothing_goes_before_its_time(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1", ended_at=days_ago(2))

    assert a_purge(kept_in_sqlite).some_early() == Amount(0, 0)


def test_who_is_killed_after_marking_leaves_what_the_next_one_removes(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add("1.1")
    with monkeypatch.context() as killed:
        killed.setattr(Purge, "remove_marked", lambda _: 0)
        a_purge(kept).some()
    assert kept.purged() == {"1.1.1", "1.1.2"}
    assert len(kept.files()) == 2

    assert a_purge(kept).remove_marked() == 2

    assert kept.files() == []
    assert kept.rows(removal) == []


def test_who_is_killed_after_removing_leaves_nothing_that_stops_the_next_one(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add("1.1")
    with monkeypatch.context() as killed:
        killed.setattr(Purge, "remove_marked", lambda _: 0)
        a_purge(kept).some()
    for key in kept.files():
        (kept.store.root / key).unlink()

    assert a_purge(kept).remove_marked() == 2

    assert kept.rows(removal) == []


def test_a_file_that_cannot_be_removed_does_not_keep_the_others(
    kept_in_sqlite: KeptStudies,
) -> None:
    kept_in_sqlite.add("1.1")
    stubborn = kept_in_sqlite.store.root / kept_in_sqlite.files()[0]
    stubborn.unlink()
    stubborn.mkdir()

    a_purge(kept_in_sqlite).some()

    assert len(kept_in_sqlite.rows(removal)) == 1
    stubborn.rmdir()
    assert a_purge(kept_in_sqlite).remove_marked() == 0
    assert a_purge(kept_in_sqlite, now=NOW + timedelta(hours=1)).remove_marked() == 1


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


def test_an_empty_folder_of_a_study_goes_with_its_files(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1")
    folder = (kept_in_sqlite.store.root / kept_in_sqlite.files()[0]).parent

    a_purge(kept_in_sqlite).some()

    assert not folder.exists()
    kept_in_sqlite.keep("1.1", "1.1.3", b"late")
    assert len(kept_in_sqlite.files()) == 1


def test_what_comes_again_is_kept_again(kept: KeptStudies) -> None:
    kept.add("1.1")
    digest = kept.rows(instance)[0].digest
    a_purge(kept).some()
    key = kept.keep("1.1", "1.1.1", b"1.1.1")

    is_back = put_back(kept.database, kept.store, key, ("1.1.1", digest), NOW)

    assert is_back
    assert kept.purged() == {"1.1.2"}
    assert kept.rows(study)[0].purged_at is None
    a_purge(kept).remove_marked()
    a_purge(kept).some()
    assert kept.files() == [key]
    a_purge(kept, now=NOW + timedelta(days=30)).some()
    assert kept.files() == []


def test_what_comes_again_before_its_file_has_gone_stays(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add("1.1")
    kept.receive_duplicate("1.1", "1.1.1", days_ago(41), b"other")
    rows = {row.key: row.digest for row in kept.rows(duplicate_instance)}
    [(key, digest)] = rows.items()
    with monkeypatch.context() as killed:
        killed.setattr(Purge, "remove_marked", lambda _: 0)
        a_purge(kept).some()

    assert put_back(kept.database, kept.store, key, ("1.1.1", digest), NOW)
    a_purge(kept).remove_marked()

    assert kept.files() == [key]
    assert kept.rows(duplicate_instance)[0].purged_at is None
    assert kept.purged() == {"1.1.1", "1.1.2"}


def test_what_is_not_there_is_not_said_to_be_kept(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1", count=1)
    [row] = kept_in_sqlite.rows(instance)
    a_purge(kept_in_sqlite).some()

    is_back = put_back(
        kept_in_sqlite.database, kept_in_sqlite.store, row.key, ("1.1.1", row.digest), NOW
    )

    assert not is_back
    assert kept_in_sqlite.purged() == {"1.1.1"}


def test_a_large_study_goes_piece_by_piece(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "_INSTANCES", 2)
    monkeypatch.setattr(purging, "_FILES", 1)
    kept.add("1.1", count=5)
    purge = a_purge(kept)

    pieces = [purge.some().instances for _ in range(4)]

    assert pieces == [2, 2, 1, 0]
    assert kept.files() == []


def test_the_figures_say_what_is_kept_and_what_may_go(kept: KeptStudies) -> None:
    kept.add("1.1", ended_at=days_ago(31))
    kept.add("1.2", ended_at=days_ago(29), count=3)
    kept.add("1.3", ended_at=days_ago(35), status=CaseStatus.AI_ANALYZED)
    kept.receive_duplicate("1.1", "1.1.1", days_ago(32), b"other")
    commit_to(kept, "1.3.1", NOW + timedelta(days=1))

    with kept.database.reading() as connection:
        before = holdings(connection, MONTH, NOW)
    a_purge(kept).some()
    with kept.database.reading() as connection:
        after = holdings(connection, MONTH, NOW)

    assert before.kept == Amount(8, 40)
    assert before.purgeable == Amount(3, 15)
    assert before.oldest_received_at == days_ago(36)
    assert before.next_due_at == days_ago(29) + timedelta(days=30)
    assert before.committed_instances == 1
    assert after.kept == Amount(5, 25)
    assert after.purged == Amount(3, 15)
    assert after.purgeable == Amount(0, 0)
