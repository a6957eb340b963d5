"""How files that may go are removed, whoever is killed meanwhile; and what comes again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicom_listener import purging
from dicom_listener.purging import Purge, put_back
from imaging_store.schema.ingest import (
    duplicate_instance,
    instance,
    removal,
    study,
)
from tests.integration.dicom_listener.kept_studies import NOW, KeptStudies, a_purge, days_ago


def be_killed_after_marking(kept: KeptStudies, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(Purge, "remove_marked", lambda _: 0)
        a_purge(kept).some()


def test_who_is_killed_after_marking_leaves_what_the_next_one_removes(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add("1.1")
    be_killed_after_marking(kept, monkeypatch)
    assert kept.purged() == {"1.1.1", "1.1.2"}
    assert len(kept.files()) == 2

    assert a_purge(kept).remove_marked() == 2

    assert kept.files() == []
    assert kept.rows(removal) == []


def test_who_is_killed_after_removing_leaves_nothing_that_stops_the_next_one(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add("1.1")
    be_killed_after_marking(kept, monkeypatch)
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


def test_what_was_kept_after_it_had_been_marked_waits_an_hour_for_being_put_back(
    kept: KeptStudies,
) -> None:
    anew, before = (kept.keep("1.1", uid, b"a") for uid in ("1.1.1", "1.1.2"))
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    now = datetime.now(UTC) + minute
    kept.write(removal, key=anew, since=now - 2 * minute)
    kept.write(removal, key=before, since=now + minute)

    assert a_purge(kept, now=now).remove_marked() == 1

    assert kept.files() == [anew]
    [row] = kept.rows(removal)
    assert row.due_at == now + hour
    assert a_purge(kept, now=now + hour - minute).remove_marked() == 0
    assert a_purge(kept, now=now + hour).remove_marked() == 1
    assert kept.files() == []


def test_what_is_kept_anew_while_it_waits_waits_again(kept_in_sqlite: KeptStudies) -> None:
    kept = kept_in_sqlite
    key = kept.keep("1.1", "1.1.1", b"a")
    now = datetime.now(UTC) + timedelta(minutes=1)
    # It was left an hour and two minutes ago, long after it had been marked.
    kept.write(removal, key=key, since=now - timedelta(days=2), due_at=now - timedelta(minutes=2))

    assert a_purge(kept, now=now).remove_marked() == 0

    assert kept.files() == [key]
    assert a_purge(kept, now=now + timedelta(hours=1)).remove_marked() == 1


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
    be_killed_after_marking(kept, monkeypatch)

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
