"""Files that no row claims: found, moved aside, removed at last; and none that somebody claims."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from unittest.mock import Mock

import pytest

from dicom_listener import purging, sweeping
from dicom_listener.purging import Purging
from dicom_listener.recovered import NotRead, Recovered
from dicom_listener.recovering import recovery_of
from dicom_listener.sweeping import Sweep
from imaging_store.instances import FileInstanceStore, instance_key
from imaging_store.retention import Retention
from imaging_store.schema.ingest import instance, quarantined_instance, removal
from imaging_store.unclaimed import move_aside
from service_runtime.database import Database, DatabaseUnavailable
from tests.integration.dicom_listener.kept_studies import NOW, KeptStudies, a_purge, days_ago
from tests.integration.dicom_listener.reading_room import SITE

MONTH = Retention(timedelta(days=30), 0, 0)


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptStudies]:
    database = Database(request.getfixturevalue(request.param))
    yield KeptStudies(database, FileInstanceStore(tmp_path / "store"))
    database.close()


def sweep(
    kept: KeptStudies,
    now: datetime = NOW,
    retention: Retention = MONTH,
    recover: Callable[[Sequence[str]], Recovered] | None = None,
) -> int:
    clock = lambda: now  # noqa: E731 - it stands still
    enter = recovery_of(kept.database, kept.store, SITE, "COUNTERSIGN", clock).enter
    sweep = Sweep(kept.database, kept.store, retention, clock, recover or enter)
    return sweep.run(threading.Event())


def grow_old(kept: KeptStudies) -> None:
    """Have every file been kept two days ago."""
    then = days_ago(2).timestamp()
    for path in kept.store.root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def aside(kept: KeptStudies) -> list[str]:
    return sorted(path.name for path in (kept.store.root / "unclaimed").glob("*"))


def test_only_what_nobody_claims_is_moved_aside(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_AT_ONCE", 2)
    kept.add("1.1")
    kept.receive_duplicate("1.1", "1.1.1", NOW, b"other")
    kept.receive("1.1", "not a uid", NOW)
    kept.store.put_artifact("results/x/SC.dcm", b"capture")
    for name, outcome in [("a", None), ("b", "released")]:
        kept.store.put_artifact(f"quarantine/{name}.dcm", b"?")
        kept.store.put_artifact(f"quarantine/{name}.reason.txt", b"?")
        row = {"id": name, "key": f"quarantine/{name}.dcm", "outcome": outcome}
        kept.write(quarantined_instance, received_at=NOW, **row)
    leaving = kept.keep("1.2", "1.2.1", b"leaving")
    kept.write(removal, key=leaving, since=NOW)
    orphans = [kept.keep("1.3", "1.3.1", b"a"), kept.keep("1.1", "odd uid", b"b")]
    before = set(kept.files())
    grow_old(kept)

    assert sweep(kept) == 4

    assert before - set(kept.files()) == set(orphans)
    assert aside(kept) == sorted([*(Path(key).name for key in orphans), "b.dcm", "b.reason.txt"])
    assert not (kept.store.root / orphans[0]).parent.exists()
    assert kept.store.exists("results/x/SC.dcm")
    assert kept.store.exists("quarantine/a.reason.txt")
    assert sweep(kept) == 0


def test_what_can_be_entered_is_not_moved_aside(kept_in_sqlite: KeptStudies) -> None:
    kept = kept_in_sqlite
    kept.add("1.1")
    good, bad = kept.keep("1.3", "1.3.1", b"a"), kept.keep("1.3", "1.3.2", b"b")
    grow_old(kept)
    offered: list[str] = []

    def recover(keys: Sequence[str]) -> Recovered:
        offered.extend(keys)
        return Recovered([good], [bad], [], {})

    assert sweep(kept, recover=recover) == 1

    assert {good, bad} < set(offered)
    assert aside(kept) == [Path(bad).name]


def test_nothing_is_moved_aside_while_it_cannot_be_told_what_can_be_entered(
    kept_in_sqlite: KeptStudies,
) -> None:
    kept = kept_in_sqlite
    key = kept.keep("1.3", "1.3.1", b"a")
    grow_old(kept)

    def recover(_: Sequence[str]) -> Recovered:
        raise DatabaseUnavailable("database: away")

    with pytest.raises(DatabaseUnavailable):
        sweep(kept, recover=recover)

    assert kept.files() == [key]


def test_what_could_not_be_read_stays_and_keeps_no_other_where_it_is(
    kept_in_sqlite: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = kept_in_sqlite
    monkeypatch.setattr(sweeping, "_AT_ONCE", 1)
    keys = [kept.keep(f"1.{number}", f"1.{number}.1", b"no instance") for number in range(4)]
    grow_old(kept)
    fail = OSError(errno.EMFILE, "")
    opens = kept.store.open

    def opened(key: str) -> BinaryIO:
        if key in keys[1:3]:
            raise fail
        return opens(key)

    monkeypatch.setattr(kept.store, "open", opened)
    with pytest.raises(NotRead):
        sweep(kept)
    assert set(kept.files()) == {*keys[1:3]}

    monkeypatch.undo()
    assert sweep(kept) == 2


def test_what_a_row_says_to_be_purged_is_claimed_by_none(kept: KeptStudies) -> None:
    kept.add("1.1", count=1)
    kept.change(instance, instance.c.sop_instance_uid == "1.1.1", purged_at=NOW)
    grow_old(kept)

    assert sweep(kept) == 1


@pytest.fixture
def kept_in_sqlite(sqlite_url: str, tmp_path: Path) -> Iterator[KeptStudies]:
    database = Database(sqlite_url)
    yield KeptStudies(database, FileInstanceStore(tmp_path / "store"))
    database.close()


def test_what_is_about_to_be_entered_is_left_alone(kept_in_sqlite: KeptStudies) -> None:
    key = kept_in_sqlite.keep("1.3", "1.3.1", b"a")

    assert sweep(kept_in_sqlite, now=datetime.now(NOW.tzinfo)) == 0
    assert kept_in_sqlite.files() == [key]


def test_what_comes_again_counts_as_kept_just_now(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.keep("1.3", "1.3.1", b"a")
    grow_old(kept_in_sqlite)
    key = kept_in_sqlite.keep("1.3", "1.3.1", b"a")

    assert sweep(kept_in_sqlite, now=datetime.now(NOW.tzinfo)) == 0
    assert kept_in_sqlite.files() == [key]


def test_what_comes_again_while_it_is_moved_aside_is_kept_anew(
    kept_in_sqlite: KeptStudies,
) -> None:
    kept = kept_in_sqlite
    key = kept.keep("1.3", "1.3.1", b"a")
    grow_old(kept)
    receiving = threading.Thread(target=kept.keep, args=("1.3", "1.3.1", b"a"))

    def is_claimed(_: str) -> bool:
        # The receiver finds the file there, and waits for the sweep to end with it.
        receiving.start()
        return False

    assert move_aside(kept.store.root, key, days_ago(1), is_claimed, NOW)
    receiving.join()

    assert kept.store.read(key) == b"a"


def test_what_comes_again_as_soon_as_it_was_moved_aside_stays(
    kept_in_sqlite: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = kept_in_sqlite
    key = kept.keep("1.3", "1.3.1", b"a")
    grow_old(kept)
    rename = Path.rename

    def then_comes_again(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        kept.keep("1.3", "1.3.1", b"a")
        return moved

    monkeypatch.setattr(Path, "rename", then_comes_again)

    assert move_aside(kept.store.root, key, days_ago(1), lambda _: False, NOW)

    assert kept.store.read(key) == b"a"


def test_what_was_moved_aside_goes_after_the_retention(kept_in_sqlite: KeptStudies) -> None:
    kept = kept_in_sqlite
    kept.keep("1.3", "1.3.1", b"a")
    grow_old(kept)
    sweep(kept)

    sweep(kept, now=NOW + timedelta(days=29))
    assert len(aside(kept)) == 1
    sweep(kept, now=NOW + timedelta(days=31), retention=Retention(None, 0, 0))
    assert len(aside(kept)) == 1
    sweep(kept, now=NOW + timedelta(days=31))
    assert aside(kept) == []


def test_instance_keys_are_what_the_sweep_takes_them_for() -> None:
    key = instance_key("1.2", "1.2.3", "ab")

    assert key.startswith("instances/")
    assert key.endswith("/1.2.3-ab.dcm")
    assert "/x" in instance_key("1.2", "no uid", "ab")


def test_where_something_could_not_be_read_the_store_is_swept_again_in_an_hour(
    kept_in_sqlite: KeptStudies,
) -> None:
    now, swept_at = NOW, []

    def recover(_: Sequence[str]) -> Recovered:
        swept_at.append(now)
        return Recovered([], [], ["instances/ab/1.1/1.1.1-ab.dcm"], {})

    kept_in_sqlite.keep("1.1", "1.1.1", b"a")
    grow_old(kept_in_sqlite)
    purge = replace(a_purge(kept_in_sqlite), now=lambda: now)
    it = Purging(purge, recover)
    for minutes in range(0, 150, 15):
        now = NOW + timedelta(minutes=minutes)
        with suppress(NotRead):
            it._step(threading.Event())

    assert swept_at == [NOW + timedelta(hours=hours) for hours in range(3)]


def test_a_log_that_cannot_be_written_does_not_end_the_purge(
    kept_in_sqlite: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "")
    monkeypatch.setattr(purging, "_LOOK_AT_ROOM_S", 0.001)
    monkeypatch.setattr(purging, "log", Mock(exception=Mock(side_effect=full)))
    tried = threading.Semaphore(0)

    def recover(_: Sequence[str]) -> Recovered:
        tried.release()
        raise ZeroDivisionError

    kept_in_sqlite.keep("1.1", "1.1.1", b"a")
    grow_old(kept_in_sqlite)
    with Purging(a_purge(kept_in_sqlite), recover):
        for _ in range(2):
            assert tried.acquire(timeout=20)
