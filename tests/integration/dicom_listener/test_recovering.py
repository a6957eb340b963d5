"""What was answered for and not entered is entered, as if it had just come."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from unittest.mock import Mock

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import Table, delete, update
from structlog.testing import capture_logs
from typing_extensions import override

from dicom_listener import recovering
from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome
from dicom_listener.index import Answer, Board, OwnIndex
from dicom_listener.quarantine import REFUSED_BY_INDEX
from dicom_listener.reception import InstanceKeeper
from dicom_listener.recovered import NotRead
from dicom_listener.recovering import Recovering, Recovery, recovery_of
from dicom_listener.sweeping import Sweep
from imaging_store.retention import Retention
from imaging_store.schema.ingest import (
    duplicate_instance,
    early_conflict,
    instance,
    quarantined_instance,
    removal,
    study,
)
from message_contracts.ingest import StudyOpened
from message_contracts.intake import QuarantineDecided, QuarantineDecision
from service_runtime.database import DatabaseUnavailable
from service_runtime.messaging.tables import delivery, message
from tests.integration.dicom_listener.listener import (
    Listener,
    a_slice,
    associate,
    sendable,
    store,
)
from tests.integration.dicom_listener.reading_room import SITE, ReadingRoom, again, of
from tests.integration.dicom_listener.test_completing import a_rejection_of
from tests.peers.processes import wait_until

DAY = timedelta(days=1)
SETTLING_S = recovering._SETTLING_S


@pytest.fixture(autouse=True)
def none_is_living(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for none."""
    monkeypatch.setattr(recovering, "_SETTLING_S", 0)


class _Killed(BaseException):
    """The process is not there any more."""


class _Dies(OwnIndex):
    """Takes what is to be entered, and is killed before it is."""

    @override
    def take(self, _: Arrival) -> bool:
        return True

    @override
    def add(self, _: Arrival) -> Outcome:
        raise _Killed


def keep(room: ReadingRoom, *received: Dataset) -> list[str]:
    """Receive instances in a process that is killed before they are entered; return their keys."""
    before = {*room.store.root.glob("instances/**/*.dcm")}
    living = room.keeper
    room.keeper = InstanceKeeper(room.store, room.database, _Dies(room.database), room.now)
    for ds in received:
        with suppress(_Killed):
            room.arrive(ds)
    room.keeper = living
    new = {*room.store.root.glob("instances/**/*.dcm")} - before
    return sorted(str(path.relative_to(room.store.root)) for path in new)


def recovery(room: ReadingRoom, now: Callable[[], datetime] | None = None) -> Recovery:
    return recovery_of(room.database, room.store, SITE, "COUNTERSIGN", now or room.now)


def recover(room: ReadingRoom, **using: Any) -> int:
    """Recover what was kept today, by the clock that the files have."""
    return replace(recovery(room), **using).run(datetime.now(UTC) - DAY)


def forget(room: ReadingRoom, *tables: Table) -> None:
    with room.database.transaction() as transaction:
        for table in tables:
            transaction.connection.execute(delete(table))


def as_entered(row: Any) -> dict[str, Any]:
    """Return what a row says, but for when it came to be."""
    times = {"received_at", "opened_at", "pending_since", "quiet_until"}
    return {name: value for name, value in row._asdict().items() if name not in times}


def test_what_nobody_entered_is_entered_as_it_would_have_been(room: ReadingRoom) -> None:
    said = {"PatientName": "Recognizable^Patient", "AccessionNumber": "A1"}
    ds = a_slice(**said)
    keep(room, ds, of(ds, **said))

    with capture_logs() as logged:
        assert recover(room) == 2

    assert [(each["event"], each["count"]) for each in logged] == [("instances.recovered", 2)]
    assert [body.study_instance_uid for body in room.said(StudyOpened)] == [ds.StudyInstanceUID]
    recovered = as_entered(room.row(instance, sop_instance_uid=ds.SOPInstanceUID))
    of_study = as_entered(room.row(study))
    forget(room, delivery, message, instance, study)
    room.arrive(ds)
    assert recovered == as_entered(room.row(instance))
    assert of_study == as_entered(room.row(study))


def test_what_a_row_claims_is_left_alone(room: ReadingRoom) -> None:
    ds = a_slice()
    room.arrive(ds, again(ds, Rows=7))
    keep(room, ds)

    assert recover(room) == 0
    assert len(room.rows(instance)) == len(room.rows(duplicate_instance)) == 1


def test_what_comes_beside_a_first_one_is_told_of(room: ReadingRoom) -> None:
    ds = a_slice()
    room.arrive(ds)
    [key] = keep(room, again(ds, Rows=7))

    assert recover(room) == 1

    assert room.row(duplicate_instance).key == key


def test_what_rejects_instances_holds_their_study(room_in_sqlite: ReadingRoom) -> None:
    rejected = generate_uid()
    keep(room_in_sqlite, a_rejection_of(rejected))

    assert recover(room_in_sqlite) == 1

    assert room_in_sqlite.row(early_conflict).study_instance_uid == rejected


def test_its_sender_is_looked_up_once(room_in_sqlite: ReadingRoom) -> None:
    keep(room_in_sqlite, *(a_slice() for _ in range(3)))
    peer_of = Mock(return_value=SITE)
    rereader = replace(recovery(room_in_sqlite).rereader, peer_of=peer_of)

    assert recover(room_in_sqlite, rereader=rereader) == 3
    peer_of.assert_called_once_with("MODALITY")


def test_what_was_purged_and_came_again_since_is_put_back(room: ReadingRoom) -> None:
    ds, other = a_slice(), a_slice()
    room.arrive(ds, other)
    now = datetime.now(UTC)
    with room.database.transaction() as transaction:
        transaction.connection.execute(update(instance).values(purged_at=now))
        for row, since in zip(room.rows(instance), (now - DAY, now + DAY), strict=True):
            transaction.connection.execute(removal.insert(), {"key": row.key, "since": since})

    assert recover(room, now=lambda: datetime.now(UTC)) == 1

    [left] = room.rows(removal)
    for row in room.rows(instance):
        assert (row.purged_at is not None) == (row.key == left.key)


def test_a_clock_that_was_set_back_hides_nothing(room_in_sqlite: ReadingRoom) -> None:
    keep(room_in_sqlite, a_slice())
    behind = lambda: datetime.now(UTC) - timedelta(minutes=5)  # noqa: E731 - as it was kept

    assert recovery(room_in_sqlite, behind).run_lately() == 1


def test_what_the_living_enter_meanwhile_is_theirs(
    room_in_sqlite: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = room_in_sqlite
    ds, dead = a_slice(), a_slice()
    keep(room, ds, dead)
    waited: list[float] = []

    class Stopping(threading.Event):
        @override
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            room.arrive(ds)
            return False

    monkeypatch.setattr(recovering, "_SETTLING_S", SETTLING_S)

    assert recovery(room).run(datetime.now(UTC) - DAY, Stopping()) == 1

    assert waited == [SETTLING_S]
    assert room.row(instance, sop_instance_uid=dead.SOPInstanceUID)


def test_one_that_cannot_be_read_just_now_is_tried_again_and_keeps_no_other(
    room_in_sqlite: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = room_in_sqlite
    monkeypatch.setattr(recovering, "_AT_ONCE", 1)
    _, bad, _ = keep(room, a_slice(), a_slice(), a_slice())
    opens = room.store.open

    def opened(key: str) -> BinaryIO:
        if key == bad:
            raise OSError(errno.EIO, "")
        return opens(key)

    with monkeypatch.context() as failing:
        failing.setattr(room.store, "open", opened)
        with pytest.raises(NotRead):
            recover(room)
    assert len(room.rows(instance)) == 2

    assert recover(room) == 1
    assert room.row(instance, key=bad)


def test_one_that_cannot_be_put_in_quarantine_just_now_is_tried_again(
    room_in_sqlite: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = room_in_sqlite
    bad = a_slice()
    keep(room, bad)
    refuses = _Refuses(room, bad.SOPInstanceUID)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "")

    with monkeypatch.context() as failing:
        failing.setattr(recovering, "set_aside", fails)
        with pytest.raises(NotRead):
            recover(room, index=refuses)

    recover(room, index=refuses)
    assert room.row(quarantined_instance, sop_instance_uid=bad.SOPInstanceUID)


def test_where_reading_fails_as_nobody_foresaw_it_stays_for_good(
    room_in_sqlite: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    [key] = keep(room_in_sqlite, a_slice())
    monkeypatch.setattr(recovering, "skip_file_meta", Mock(side_effect=ZeroDivisionError))

    assert recovery(room_in_sqlite).enter([key]) == ([], [], [], {})


def test_one_that_is_no_instance_of_ours_keeps_no_other(room_in_sqlite: ReadingRoom) -> None:
    room = room_in_sqlite
    name = "Recognizable^Patient"
    folder, good = map(room.store.path, keep(room, a_slice(), a_slice(PatientName=name)))
    folder.unlink()
    folder.mkdir()
    digest = good.stem.rpartition("-")[2]
    shutil.copyfile(good, good.with_name(f"1.2.3-{digest}.dcm"))
    shutil.copyfile(good, good.with_name(f"{name}.dcm"))

    with capture_logs() as logged:
        assert recover(room) == 1

    assert room.store.path(room.row(instance).key) == good
    assert [each["event"] for each in logged].count("instance.not_recovered") == 2
    assert name not in str(logged)


def test_the_sweep_enters_what_was_purged_and_came_again_long_ago(room: ReadingRoom) -> None:
    ds = a_slice()
    room.arrive(ds)
    now = datetime.now(UTC)
    key = room.row(instance).key
    with room.database.transaction() as transaction:
        transaction.connection.execute(update(instance).values(purged_at=now - 5 * DAY))
        transaction.connection.execute(removal.insert(), {"key": key, "since": now - 5 * DAY})
    then = (now - 2 * DAY).timestamp()
    os.utime(room.store.path(key), (then, then))
    clock = lambda: datetime.now(UTC)  # noqa: E731 - that the file has
    enter = recovery(room, clock).enter
    sweep = Sweep(room.database, room.store, Retention(None, 0, 0), clock, enter)

    assert sweep.run(threading.Event()) == 0

    assert room.row(instance).purged_at is None
    assert room.rows(removal) == []


def test_an_index_that_is_older_than_the_store_is_brought_up_to_date(room: ReadingRoom) -> None:
    room.arrive(a_slice(), a_slice())
    before = {row.sop_instance_uid: row.key for row in room.rows(instance)}
    # As in a backup that is older than these two.
    forget(room, instance, study)
    now = datetime.now(UTC) + 2 * DAY
    retention = Retention(None, 0, 0)
    sweep = Sweep(room.database, room.store, retention, lambda: now, recovery(room).enter)

    assert sweep.run(threading.Event()) == 0

    assert {row.sop_instance_uid: row.key for row in room.rows(instance)} == before
    assert not (room.store.root / "unclaimed").exists()


class _Refuses(OwnIndex):
    """Does not take one instance."""

    def __init__(self, room: ReadingRoom, sop_instance_uid: str) -> None:
        super().__init__(room.database)
        self._refused = sop_instance_uid

    @override
    def enter(self, board: Board) -> list[Answer]:
        group = board()
        good = [each for each in group if not self._is_refused(each)]
        answers = iter(super().enter(lambda: good))
        return [
            ValueError("Recognizable^Patient") if self._is_refused(each) else next(answers)
            for each in group
        ]

    def _is_refused(self, entry: object) -> bool:
        return isinstance(entry, Arrival) and entry.header.sop_instance_uid == self._refused


def test_what_the_index_refuses_goes_to_quarantine_and_keeps_no_other(room: ReadingRoom) -> None:
    good, bad = a_slice(), a_slice()
    keep(room, bad, good)
    now = lambda: datetime.now(UTC) + DAY  # noqa: E731 - the files were kept before

    assert recover(room, index=_Refuses(room, bad.SOPInstanceUID), now=now) == 1

    assert room.row(instance).sop_instance_uid == good.SOPInstanceUID
    kept = room.row(quarantined_instance)
    assert (kept.sop_instance_uid, kept.reason) == (bad.SOPInstanceUID, REFUSED_BY_INDEX)
    assert room.store.read(kept.key).endswith(sendable(bad).data)
    assert recover(room) == 0
    room.send(
        QuarantineDecided(
            quarantined_instance_id=kept.id,
            decision=QuarantineDecision.RELEASE,
            decided_by="ada",
        )
    )
    room.handle()
    assert room.row(instance, sop_instance_uid=bad.SOPInstanceUID)


class _Away(OwnIndex):
    @override
    def enter(self, board: Board) -> list[Answer]:
        return [DatabaseUnavailable("database: away") for _ in board()]


def test_while_the_database_is_away_nothing_is_concluded(room_in_sqlite: ReadingRoom) -> None:
    keep(room_in_sqlite, a_slice())

    with pytest.raises(DatabaseUnavailable):
        recover(room_in_sqlite, index=_Away(room_in_sqlite.database))

    assert recover(room_in_sqlite) == 1


def test_what_was_answered_for_is_entered_when_everybody_was_killed(listener: Listener) -> None:
    sent = sendable(a_slice())
    *_, indexing, _ = listener.children
    os.kill(indexing, signal.SIGSTOP)
    association = associate(listener.port, (sent.sop_class_uid, sent.transfer_syntax_uid))

    response = store(association, sent)
    for child in listener.children:
        os.kill(child, signal.SIGKILL)

    assert response is not None
    assert response.Status == 0x0000
    [row] = wait_until(lambda: listener.rows(instance), what="the instance")
    assert row.sop_instance_uid == sent.sop_instance_uid
    wait_until(lambda: listener.rows(study)[0].version == 1, what="its study, complete")
    wait_until(lambda: "instances.recovered" in listener.log, what="a log line")
    association.kill()


class _Watched:
    """Stands for a recovery, and says what it was asked for."""

    def __init__(self, *errors: Exception) -> None:
        self.asked: list[datetime] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._errors = list(errors)
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        # The machine's clock may be set back between two looks at it.
        self._now += timedelta(seconds=1)
        return self._now

    def run(self, since: datetime, _: threading.Event) -> int:
        self.asked.append(since)
        self.goes_on.wait()
        if self._errors:
            raise self._errors.pop(0)
        return 0

    def wait_for(self, times: int) -> None:
        wait_until(lambda: len(self.asked) >= times, what=f"{times} recoveries")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TOGETHER_S", "_LOOK_S", "_SHORTEST_DELAY_S", "_LONGEST_DELAY_S"):
        monkeypatch.setattr(recovering, name, 0.001)


@pytest.mark.usefixtures("at_once")
def test_it_looks_whenever_it_is_told_to() -> None:
    watched = _Watched()
    started_at = watched.now()
    with Recovering(watched) as it:  # type: ignore[arg-type]
        watched.wait_for(1)
        told_at = watched.now()
        it.look()
        watched.wait_for(2)

    [since, again_since] = watched.asked
    assert started_at < since + DAY < told_at < again_since + DAY


@pytest.mark.usefixtures("at_once")
def test_what_is_told_while_it_looks_is_looked_at_once_more_and_only_once() -> None:
    watched = _Watched()
    watched.goes_on.clear()
    with Recovering(watched) as it:  # type: ignore[arg-type]
        it.look()
        watched.wait_for(1)
        for _ in range(4):
            it.look()
        told_at = watched.now()
        it.look()
        watched.goes_on.set()
        watched.wait_for(2)

    assert len(watched.asked) == 2
    assert watched.asked[1] + DAY < told_at


@pytest.mark.usefixtures("at_once")
def test_it_tries_until_it_is_done_whatever_happens() -> None:
    watched = _Watched(DatabaseUnavailable("database: away"), ZeroDivisionError("unforeseen"))
    with capture_logs() as logged, Recovering(watched):  # type: ignore[arg-type]
        watched.wait_for(3)

    assert [each["event"] for each in logged] == ["recovering.delayed", "recovering.failed"]
    assert len({*watched.asked}) == 1


@pytest.mark.usefixtures("at_once")
def test_a_log_that_cannot_be_written_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "")
    monkeypatch.setattr(recovering.log, "warning", Mock(side_effect=full), raising=False)
    monkeypatch.setattr(recovering.log, "exception", Mock(side_effect=full), raising=False)
    watched = _Watched(DatabaseUnavailable("database: away"), ZeroDivisionError("unforeseen"))

    with Recovering(watched):  # type: ignore[arg-type]
        watched.wait_for(3)


@pytest.mark.usefixtures("at_once")
def test_it_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovering, "_ENDING_S", 0.01)
    watched = _Watched()
    watched.goes_on.clear()

    with Recovering(watched):  # type: ignore[arg-type]
        watched.wait_for(1)

    watched.goes_on.set()


def test_those_who_tell_together_are_heard_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovering, "_LOOK_S", 0.001)
    monkeypatch.setattr(recovering, "_TOGETHER_S", 3600)
    watched = _Watched()

    with Recovering(watched) as it:  # type: ignore[arg-type]
        it.look()

    assert watched.asked == []
