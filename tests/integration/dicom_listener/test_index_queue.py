"""What was answered for is entered soon, together, and however often that has to be tried."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from dicom_listener import index as index_module
from dicom_listener import index_messages, index_queue
from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome, enter
from dicom_listener.index import Answer, Entry, OwnIndex
from dicom_listener.index_messages import MOST_BYTES, NotEntered, answers_message, group_of
from dicom_listener.index_queue import IndexQueue
from dicom_listener.open_associations import open_for
from imaging_store.instances import NotInStore
from imaging_store.schema.ingest import instance, open_association
from service_runtime.database import Database, DatabaseFull, DatabaseUnavailable, Transaction
from service_runtime.process import EXIT_FAILED
from tests.integration.dicom_listener.indexed import Installation, an_arrival, now, served, serving
from tests.peers.processes import wait_until

NEVER_S = 1e9
"""Of a tick: its multiples, of a clock that began when the machine did, do not come."""


@pytest.fixture(autouse=True)
def there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody be late only because the machine is slow."""
    for name in ("_LATE_S", "_ENDING_S", "_DRAINING_S"):
        monkeypatch.setattr(index_queue, name, 60.0)


@pytest.fixture
def installation(database: Database) -> Iterator[Installation]:
    with served(database) as installation:
        yield installation


def ignore(_: Arrival, __: Answer) -> None:
    """Do nothing about what was entered."""


def indexed(database: Database) -> int:
    with database.reading() as connection:
        return len(connection.execute(select(instance)).all())


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> Iterator[None]:
    """Have the index fail."""

    def fail(*_: object) -> list[Outcome]:
        raise failure

    with monkeypatch.context() as patched, capture_logs():
        patched.setattr(index_module, "enter", fail)
        yield


def test_what_was_taken_is_entered_and_what_follows_is_done(installation: Installation) -> None:
    arrival = an_arrival()

    assert installation.queue.take(arrival)

    wait_until(lambda: installation.followed, what="the answer")
    assert installation.followed == [(arrival, Outcome.NEW)]
    (row,) = installation.rows(instance)
    assert row.sop_instance_uid == arrival.header.sop_instance_uid


def test_what_comes_at_one_time_shares_a_commit(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []

    def entered(transaction: Transaction, arrivals: Sequence[Arrival]) -> list[Outcome]:
        groups.append(len(arrivals))
        return enter(transaction, arrivals)

    monkeypatch.setattr(index_module, "enter", entered)
    monkeypatch.setattr(index_queue, "_TICK_S", NEVER_S)
    database = Database(sqlite_url)
    arrivals = [an_arrival() for _ in range(20)]
    with served(database) as installation:
        for arrival in arrivals:
            assert installation.queue.take(arrival)
    assert groups == [20]
    database.close()


def test_who_is_entered_first_is_told_what_it_was(installation: Installation) -> None:
    arrival = an_arrival()

    outcomes = [installation.queue.add(arrival) for _ in range(2)]

    assert outcomes == [Outcome.NEW, Outcome.SAME_AGAIN]
    assert not installation.followed


def test_at_the_end_of_an_association_all_of_it_is_entered_and_nothing_held_open(
    installation: Installation,
) -> None:
    association = open_for("MODALITY")
    for _ in range(5):
        assert installation.queue.take(an_arrival(association))

    installation.queue.end(association)

    assert len(installation.rows(instance)) == 5
    assert not installation.rows(open_association)


def test_an_association_holds_open_what_it_has_sent_to_last(installation: Installation) -> None:
    association = open_for("MODALITY")

    for uid in ("1.2", "1.2", "1.3"):
        installation.queue.add(an_arrival(association, StudyInstanceUID=uid))
        (row,) = installation.rows(open_association)
        assert (row.id, row.study_instance_uid) == (association.id, uid)
        assert association.study_instance_uid == uid


def test_at_the_end_of_a_process_all_is_entered(database: Database) -> None:
    with served(database) as installation:
        for _ in range(3):
            assert installation.queue.take(an_arrival())

    assert indexed(database) == 3


def test_what_is_too_large_for_a_message_is_entered_without_one(
    installation: Installation,
) -> None:
    arrival = an_arrival()
    header = arrival.header._replace(
        shared=arrival.header.shared._replace(study_description="x" * MOST_BYTES)
    )
    association = open_for("MODALITY")
    large = arrival._replace(header=header, association=association)
    others = [an_arrival() for _ in range(3)]

    for each in (others[0], large, *others[1:]):
        assert installation.queue.take(each)
    installation.queue.end(association)

    assert installation.own_entered == [large]
    assert [answer for _, answer in installation.followed] == [Outcome.NEW] * 4
    assert len(installation.rows(instance)) == 4
    assert not installation.rows(open_association)


@pytest.mark.parametrize(
    ("failure", "heard"),
    [
        (DatabaseFull("database: no room"), DatabaseFull),
        (DatabaseUnavailable("database: away"), DatabaseUnavailable),
        (ValueError("what a patient is called"), NotEntered),
    ],
)
def test_while_the_index_fails_nobody_is_answered_before_being_entered(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    heard: type[Exception],
) -> None:
    with failing(monkeypatch, failure):
        with pytest.raises(heard) as told:
            installation.queue.add(an_arrival())
        wait_until(lambda: not installation.queue.take(an_arrival()), what="the queue to notice")

    assert type(told.value) is heard
    assert "patient" not in str(told.value)
    assert installation.queue.add(an_arrival()) is Outcome.NEW
    wait_until(lambda: installation.queue.take(an_arrival()), what="the queue to be trusted again")


def test_what_was_answered_for_is_entered_when_the_database_is_back(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_queue, "_LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(index_queue, "_TICK_S", NEVER_S)
    arrivals = [an_arrival() for _ in range(3)]
    tries = 0

    def away(*_: object) -> list[Outcome]:
        nonlocal tries
        tries += 1
        raise DatabaseUnavailable("database: away")

    with monkeypatch.context() as patched, capture_logs():
        patched.setattr(index_module, "enter", away)
        for arrival in arrivals:
            assert installation.queue.take(arrival)
        with pytest.raises(DatabaseUnavailable):
            installation.queue.add(an_arrival())
        wait_until(lambda: tries > 5, what="some tries")
        assert not installation.followed
        monkeypatch.setattr(index_queue, "_LATE_S", 0.0)
        before = tries
        # One group may have been on its way.
        wait_until(lambda: tries > before + 2, what="tries of what is late")

    wait_until(lambda: len(installation.followed) == 3, what="the answers")
    # As of now: their study waits for others that come as late.
    late = [arrival._replace(at=now()) for arrival in arrivals]
    assert [arrival for arrival, _ in installation.followed] == late
    assert len(installation.rows(instance)) == 3


def test_nobody_waits_behind_what_cannot_be_entered(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_queue, "_TICK_S", NEVER_S)
    association = open_for("MODALITY")
    with failing(monkeypatch, DatabaseUnavailable("database: away")):
        for _ in range(5):
            assert installation.queue.take(an_arrival(association))
        monkeypatch.setattr(index_queue, "_GROUP", 2)
        with pytest.raises(DatabaseUnavailable):
            installation.queue.add(an_arrival())
        installation.queue.end(association)

    installation.queue.close()
    assert len(installation.rows(instance)) == 5
    assert not installation.rows(open_association)


def test_what_the_index_refuses_is_told_and_not_tried_again(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrival = an_arrival()
    with failing(monkeypatch, ValueError("what a patient is called")):
        assert installation.queue.take(arrival)
        wait_until(lambda: installation.followed, what="the answer")

    assert installation.queue.add(an_arrival()) is Outcome.NEW
    ((told_of, answer),) = installation.followed
    assert told_of == arrival
    assert isinstance(answer, NotEntered)
    assert str(answer) == "ValueError"


def test_what_could_not_follow_is_tried_again_and_keeps_nobody_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_queue, "_LONGEST_PAUSE_S", 0.01)
    answers: list[Answer] = []
    may_follow = False

    def follow(_: Arrival, answer: Answer) -> None:
        answers.append(answer)
        if not may_follow:
            raise OSError(errno.EIO, "Input/output error")

    listener = index_messages.listen()
    queue = IndexQueue(listener.getsockname(), OwnIndex(database), follow, now)
    with serving(database, listener), capture_logs(), queue:
        assert queue.take(an_arrival())
        wait_until(lambda: len(answers) > 3, what="some tries")
        assert queue.take(an_arrival())
        assert queue.add(an_arrival()) is Outcome.NEW
        tried = len(answers)
        may_follow = True
        wait_until(lambda: len(answers) >= tried + 2, what="both")

    assert set(answers) == {Outcome.NEW}
    assert indexed(database) == 3


def test_who_waits_for_long_or_is_one_of_many_has_others_entered_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = index_messages.listen()
    queue = IndexQueue(listener.getsockname(), OwnIndex(database), ignore, now)
    with queue:
        assert queue.take(an_arrival())
        connection, _ = listener.accept()
        # It has the first one, and says nothing.
        first = group_of(connection.recv(MOST_BYTES))
        monkeypatch.setattr(index_queue, "_MOST_WAITING", 1)
        assert queue.take(an_arrival())
        assert not queue.take(an_arrival())
        monkeypatch.setattr(index_queue, "_MOST_WAITING", 1000)
        assert queue.take(an_arrival())
        monkeypatch.setattr(index_queue, "_LATE_S", 0.0)
        assert not queue.take(an_arrival())
        monkeypatch.setattr(index_queue, "_LATE_S", 60.0)
        assert queue.take(an_arrival())

        connection.send(answers_message([Outcome.NEW] * len(first)))
        rest = group_of(connection.recv(MOST_BYTES))
        connection.send(answers_message([Outcome.NEW] * len(rest)))
    assert (len(first), len(rest)) == (1, 3)
    listener.close()
    connection.close()


def test_who_gets_no_answer_sends_again(database: Database) -> None:
    listener = index_messages.listen()
    followed: list[Answer] = []
    queue = IndexQueue(
        listener.getsockname(), OwnIndex(database), lambda _, answer: followed.append(answer), now
    )
    arrival = an_arrival()
    with queue, capture_logs():
        assert queue.take(arrival)
        connection, _ = listener.accept()
        assert connection.recv(MOST_BYTES)
        # It had entered it, and died before it could say so.
        OwnIndex(database).add(arrival)
        connection.close()
        with serving(database, listener):
            wait_until(lambda: followed, what="the answer")
            queue.close()

    assert followed == [Outcome.SAME_AGAIN]
    assert indexed(database) == 1


def test_an_association_that_outlives_the_indexing_process_holds_nothing_open_either(
    database: Database,
) -> None:
    listener = index_messages.listen()
    queue = IndexQueue(listener.getsockname(), OwnIndex(database), ignore, now)
    association = open_for("MODALITY")
    with queue, capture_logs():
        assert queue.take(an_arrival(association))
        connection, _ = listener.accept()
        connection.send(
            answers_message(OwnIndex(database).enter(lambda: group_of(connection.recv(MOST_BYTES))))
        )
        wait_until(lambda: association.study_instance_uid, what="the answer")
        connection.close()
        with serving(database, listener):
            queue.end(association)
            queue.close()

    with database.reading() as reading:
        assert not reading.execute(select(open_association)).all()


def test_where_nobody_enters_anything_who_waits_is_told_to_send_again(database: Database) -> None:
    listener = index_messages.listen()
    address = listener.getsockname()
    listener.close()

    with (
        IndexQueue(address, OwnIndex(database), ignore, now) as queue,
        capture_logs(),
        pytest.raises(DatabaseUnavailable),
    ):
        queue.add(an_arrival())


def test_who_is_answered_too_late_asks_once_and_tells_anew_what_is_held_open(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_queue, "_ANSWER_S", 0.1)
    association = open_for("MODALITY")
    association.study_instance_uid = "1.2"
    listener = index_messages.listen()

    with (
        IndexQueue(listener.getsockname(), OwnIndex(database), ignore, now) as queue,
        capture_logs(),
    ):
        with pytest.raises(DatabaseUnavailable):
            queue.add(an_arrival(association))
        wait_until(lambda: not association.study_instance_uid, what="the queue to give up")

    listener.setblocking(False)
    listener.accept()[0].close()
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()


def test_a_process_ends_though_the_index_stays_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_queue, "_DRAINING_S", 0.05)
    monkeypatch.setattr(index_queue, "_LONGEST_PAUSE_S", 0.01)
    # Its thread is waited for so much longer than it drains.
    monkeypatch.setattr(index_queue, "_SHORTEST_PAUSE_S", 60.0)
    listener = index_messages.listen()
    queue = IndexQueue(listener.getsockname(), OwnIndex(database), ignore, now)
    with capture_logs() as logged, queue:
        assert queue.take(an_arrival())
        connection, _ = listener.accept()
        assert connection.recv(MOST_BYTES)
        listener.close()
        connection.close()

    assert {"event": "index.given_up", "count": 1, "log_level": "error"} in logged


def test_every_process_that_begins_is_told_of(database: Database) -> None:
    new: list[None] = []
    listener = index_messages.listen()
    with serving(database, listener, lambda: new.append(None)):
        for _ in range(2):
            with IndexQueue(listener.getsockname(), OwnIndex(database), ignore, now):
                pass

    assert len(new) == 2


def test_while_much_waits_the_database_is_still_told_to_be_full(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_queue, "_TICK_S", NEVER_S)
    monkeypatch.setattr(index_queue, "_LONGEST_PAUSE_S", 0.01)
    with failing(monkeypatch, DatabaseFull("database: no room")):
        for _ in range(3):
            assert installation.queue.take(an_arrival())
        monkeypatch.setattr(index_queue, "_GROUP", 2)
        for _ in range(3):
            with pytest.raises(DatabaseFull):
                installation.queue.add(an_arrival())


def test_what_is_entered_after_the_end_of_its_association_holds_nothing_open(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_queue, "_LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(index_queue, "_TICK_S", NEVER_S)
    association = open_for("MODALITY")
    asked = installation.queue._entered
    groups: list[int] = []

    def entered(entries: Sequence[Entry]) -> Sequence[Answer]:
        groups.append(len(entries))
        if len(groups) > 1:
            return asked(entries)
        # As where each was entered in a transaction of its own, and the first of them failed.
        return [DatabaseUnavailable("database: away"), *asked(entries[1:])]

    monkeypatch.setattr(installation.queue, "_entered", entered)
    with capture_logs():
        assert installation.queue.take(an_arrival(association))
        installation.queue.end(association)
        wait_until(lambda: installation.followed, what="the arrival")
    installation.queue.close()

    assert groups[0] == 2
    assert not installation.rows(open_association)


def test_what_is_gone_is_not_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def follow(_: Arrival, __: Answer) -> None:
        nonlocal tries
        tries += 1
        raise NotInStore("nothing is kept under it")

    listener = index_messages.listen()
    with (
        serving(database, listener),
        capture_logs(),
        IndexQueue(listener.getsockname(), OwnIndex(database), follow, now) as queue,
    ):
        assert queue.take(an_arrival())
        wait_until(lambda: tries, what="the answer")
        assert queue.add(an_arrival()) is Outcome.NEW

    assert tries == 1


def test_a_process_ends_in_time_though_the_index_hangs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_queue, "_DRAINING_S", 0.05)
    listener = index_messages.listen()
    queue = IndexQueue(listener.getsockname(), OwnIndex(database), ignore, now)
    with capture_logs() as logged, queue:
        assert queue.take(an_arrival())
        connection, _ = listener.accept()
        assert connection.recv(MOST_BYTES)

    assert {"event": "index.given_up", "log_level": "error"} in logged
    connection.close()
    listener.close()


def test_a_process_whose_queue_has_failed_ends() -> None:
    code = """
import sys
from dicom_listener.index_queue import IndexQueue
from dicom_listener.open_associations import open_for
sys.stderr.close()  # nothing can be logged any more
sys.stdout.close()
queue = IndexQueue(b"", None, None, None)
queue._entered = None
with queue:
    queue.end(open_for("MODALITY"))
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)

    assert ended.returncode == EXIT_FAILED
