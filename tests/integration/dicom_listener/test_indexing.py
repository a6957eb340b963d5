"""What associations send to the indexing process is entered, together, and never half."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Table, select, text
from structlog.testing import capture_logs
from typing_extensions import override

from dicom_listener import index as index_module
from dicom_listener import indexing
from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome, enter
from dicom_listener.index import OwnIndex
from dicom_listener.indexing import Indexing, NotEntered, RemoteIndex
from dicom_listener.instance_header import parse_header
from dicom_listener.open_associations import OpenAssociation, open_for
from imaging_store.instances import Kept
from imaging_store.schema.ingest import instance, open_association
from service_runtime.database import Database, DatabaseFull, DatabaseUnavailable, Transaction
from tests.integration.dicom_listener.listener import Listener, a_slice, send, sendable
from tests.peers.processes import wait_until

# What PostgreSQL raises in one of the transactions that wait for each other.
_GIVEN_UP = "DO $$ BEGIN RAISE 'deadlock detected' USING ERRCODE = '40P01'; END $$"
NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)


def an_arrival(association: OpenAssociation | None = None, **attributes: Any) -> Arrival:
    sent = sendable(a_slice(**attributes))
    header = parse_header(io.BytesIO(sent.data), sent.transfer_syntax_uid)
    assert header is not None
    return Arrival(
        header=header,
        kept=Kept(f"instances/{header.sop_instance_uid}.dcm", len(sent.data), "0" * 32),
        transfer_syntax_uid=sent.transfer_syntax_uid,
        calling_ae_title="MODALITY",
        called_ae_title="COUNTERSIGN",
        issuer_of_patient_id="LOCAL",
        started="2026-07-04",
        at=NOON,
        quiet_period=timedelta(seconds=30),
        association=association,
    )


@dataclass
class Installation:
    """A database, and an indexing process's work in a thread."""

    database: Database
    remote: RemoteIndex
    own_entered: list[Arrival] = field(default_factory=list)
    is_alone: bool = False

    def rows(self, table: Table) -> Sequence[Any]:
        with self.database.reading() as connection:
            return connection.execute(select(table)).all()


class CountsOwn(OwnIndex):
    """Remembers what was entered without a message."""

    def __init__(self, database: Database, entered: list[Arrival]) -> None:
        super().__init__(database)
        self.entered = entered

    def add(self, arrival: Arrival) -> Outcome:
        self.entered.append(arrival)
        return super().add(arrival)


@contextmanager
def served(database: Database) -> Iterator[Installation]:
    listener = indexing.listen()
    address = listener.getsockname()
    over, receives = os.pipe()
    thread = Thread(target=Indexing(OwnIndex(database), listener).serve, args=(over,))
    thread.start()
    own_entered: list[Arrival] = []
    own = CountsOwn(database, own_entered)
    remote = RemoteIndex(address, own, lambda: installation.is_alone)
    installation = Installation(database, remote, own_entered)
    try:
        yield installation
    finally:
        remote.end(open_for("THIS"))
        os.close(receives)
        thread.join(timeout=30)
        assert not thread.is_alive(), "it serves although nobody receives any more"
        listener.close()
        os.close(over)


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.close()


@pytest.fixture
def installation(database: Database) -> Iterator[Installation]:
    with served(database) as installation:
        yield installation


def test_an_arrival_is_entered_once_and_found_to_be_the_same_again(
    installation: Installation,
) -> None:
    arrival = an_arrival()

    outcomes = [installation.remote.add(arrival) for _ in range(2)]

    assert outcomes == [Outcome.NEW, Outcome.SAME_AGAIN]
    (row,) = installation.rows(instance)
    assert row.sop_instance_uid == arrival.header.sop_instance_uid
    assert row.instance_number == arrival.header.instance_number


def test_who_comes_while_another_process_writes_shares_one_commit(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(sqlite_url)
    groups: list[int] = []

    def entered(transaction: Transaction, arrivals: Sequence[Arrival]) -> list[Outcome]:
        groups.append(len(arrivals))
        return enter(transaction, arrivals)

    monkeypatch.setattr(index_module, "enter", entered)
    about_to_send: list[object] = []
    dump = pickle.dumps

    def dumps(arrival: Arrival, protocol: int) -> bytes:
        about_to_send.append(arrival)
        return dump(arrival, protocol)

    monkeypatch.setattr(indexing.pickle, "dumps", dumps)
    with served(database) as installation, ThreadPoolExecutor(5) as senders:

        def send_and_leave(arrival: Arrival) -> Outcome:
            try:
                return installation.remote.add(arrival)
            finally:
                installation.remote.end(open_for("X"))

        with database._lock_path.open("w") as writing:
            # An open file has the lock, as a transaction of another process does.
            fcntl.flock(writing, fcntl.LOCK_EX)
            outcomes = [senders.submit(send_and_leave, an_arrival()) for _ in range(5)]
            wait_until(lambda: len(about_to_send) == 5, what="all to send")
        assert {each.result() for each in outcomes} == {Outcome.NEW}
    assert sum(groups) == 5
    # The last of them may have come a moment too late.
    assert max(groups) >= 4
    database.close()


def test_an_association_that_has_ended_holds_nothing_open(installation: Installation) -> None:
    association = open_for("MODALITY")

    installation.remote.add(an_arrival(association))
    held = [row.id for row in installation.rows(open_association)]
    installation.remote.end(association)

    assert held == [association.id]
    wait_until(lambda: not installation.rows(open_association), what="the row to be gone")


def test_an_association_holds_open_what_it_has_sent_to_last(installation: Installation) -> None:
    association = open_for("MODALITY")

    for uid in ("1.2", "1.2", "1.3"):
        installation.remote.add(an_arrival(association, StudyInstanceUID=uid))
        (row,) = installation.rows(open_association)
        assert (row.id, row.study_instance_uid) == (association.id, uid)


def test_what_is_too_large_for_a_message_is_entered_without_one(
    installation: Installation,
) -> None:
    arrival = an_arrival()
    header = arrival.header._replace(study_description="x" * indexing.MOST_BYTES)
    association = open_for("MODALITY")
    large = arrival._replace(header=header, association=association)

    assert installation.remote.add(large) is Outcome.NEW

    assert installation.own_entered == [large]
    assert len(installation.rows(instance)) == 1
    assert len(installation.rows(open_association)) == 1
    installation.remote.end(association)
    assert not installation.rows(open_association)


@pytest.mark.parametrize("alone", [(0, 1), (1, 0), (0, 1, 0), (1, 0, 1)])
def test_who_is_alone_enters_by_itself_and_at_the_end_holds_nothing_open(
    installation: Installation, alone: tuple[int, ...]
) -> None:
    association = open_for("MODALITY")

    for number, is_alone in enumerate(alone):
        installation.is_alone = bool(is_alone)
        arrival = an_arrival(association, StudyInstanceUID=f"1.{number}")
        assert installation.remote.add(arrival) is Outcome.NEW
        (row,) = installation.rows(open_association)
        assert (row.id, row.study_instance_uid) == (association.id, f"1.{number}")
    assert len(installation.own_entered) == sum(alone)
    installation.remote.end(association)

    wait_until(lambda: not installation.rows(open_association), what="the row to be gone")
    assert len(installation.rows(instance)) == len(alone)


def test_what_is_held_open_by_itself_is_let_go_of_though_the_other_process_refused_before(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[Outcome]:
        raise ValueError("no such row")

    association = open_for("MODALITY")
    with monkeypatch.context() as refusing:
        refusing.setattr(index_module, "enter", refuse)
        with pytest.raises(NotEntered):
            installation.remote.add(an_arrival(association))
    installation.is_alone = True
    installation.remote.add(an_arrival(association))
    assert installation.rows(open_association)

    installation.remote.end(association)

    assert not installation.rows(open_association)


def test_who_gets_no_answer_asks_again(database: Database) -> None:
    listener = indexing.listen()
    remote = RemoteIndex(listener.getsockname(), OwnIndex(database))
    over, receives = os.pipe()
    arrival = an_arrival()
    with ThreadPoolExecutor(1) as sender:
        outcome = sender.submit(remote.add, arrival)
        connection, _ = listener.accept()
        assert connection.recv(indexing.MOST_BYTES)
        # It had entered it, and died before it could say so.
        OwnIndex(database).add(arrival)
        connection.close()
        serving = Thread(target=Indexing(OwnIndex(database), listener).serve, args=(over,))
        serving.start()
        assert outcome.result(timeout=30) is Outcome.SAME_AGAIN
        sender.submit(remote.end, open_for("X"))
    os.close(receives)
    serving.join(timeout=30)
    listener.close()
    with database.reading() as connection_:
        assert len(connection_.execute(select(instance)).all()) == 1


def test_an_association_that_outlives_the_indexing_process_holds_nothing_open_either(
    database: Database,
) -> None:
    listener = indexing.listen()
    remote = RemoteIndex(listener.getsockname(), OwnIndex(database))
    association = open_for("MODALITY")
    arrival = an_arrival(association)
    with ThreadPoolExecutor(1) as sender:
        outcome = sender.submit(remote.add, arrival)
        connection, _ = listener.accept()
        OwnIndex(database).add(pickle.loads(connection.recv(indexing.MOST_BYTES)))
        connection.send(bytes([Outcome.NEW.value]))
        assert outcome.result(timeout=30) is Outcome.NEW
        connection.close()
        sender.submit(remote.end, association).result(timeout=30)
    listener.close()
    with database.reading() as reading:
        assert not reading.execute(select(open_association)).all()


def test_who_cannot_be_answered_is_told_to_send_again(database: Database) -> None:
    listener = indexing.listen()
    address = listener.getsockname()
    listener.close()

    with pytest.raises(DatabaseUnavailable):
        RemoteIndex(address, OwnIndex(database)).add(an_arrival())


def test_who_waits_too_long_does_not_ask_twice(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_ANSWER_S", 0.1)
    arrival = an_arrival(open_for("MODALITY"))
    assert arrival.association is not None
    arrival.association.study_instance_uid = arrival.header.study_instance_uid
    listener = indexing.listen()

    with pytest.raises(DatabaseUnavailable):
        RemoteIndex(listener.getsockname(), OwnIndex(database)).add(arrival)

    # Once it sees the connection closed, the other end lets go of the study.
    assert arrival.association.study_instance_uid == ""
    listener.setblocking(False)
    listener.accept()[0].close()
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()


def test_however_many_connect_at_once_all_are_served(database: Database) -> None:
    listener = indexing.listen()
    over, receives = os.pipe()
    for _ in range(sys.getrecursionlimit()):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(listener.getsockname())
    serving = Thread(target=Indexing(OwnIndex(database), listener).serve, args=(over,))
    serving.start()
    remote = RemoteIndex(listener.getsockname(), OwnIndex(database))
    try:
        assert remote.add(an_arrival()) is Outcome.NEW
    finally:
        remote.end(open_for("X"))
        os.close(receives)
        serving.join(timeout=30)
        listener.close()


class Full(socket.socket):
    """A listening socket of a process that has no descriptor left, for a while."""

    left = 2 * sys.getrecursionlimit()

    @override
    def accept(self) -> tuple[socket.socket, Any]:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_who_cannot_be_accepted_now_is_accepted_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_WAIT_AFTER_ERROR_S", 0)
    listener = indexing.listen()
    full = Full(listener.family, listener.type, fileno=listener.detach())
    over, receives = os.pipe()
    serving = Thread(target=Indexing(OwnIndex(database), full).serve, args=(over,))
    serving.start()
    remote = RemoteIndex(full.getsockname(), OwnIndex(database))
    try:
        with capture_logs():
            assert remote.add(an_arrival()) is Outcome.NEW
    finally:
        remote.end(open_for("X"))
        os.close(receives)
        serving.join(timeout=30)
        full.close()


def test_an_association_that_could_not_be_let_go_is_told_of(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(index_module, "let_go", fail)
    association = open_for("MODALITY")
    association.study_instance_uid = "1.2"

    with capture_logs() as logged:
        OwnIndex(database).end(association)

    assert [each["event"] for each in logged] == ["association.left_open"]


@pytest.mark.parametrize(
    ("failure", "heard"),
    [
        (DatabaseFull("database: no room"), DatabaseFull),
        (DatabaseUnavailable("database: away"), DatabaseUnavailable),
        (ValueError("what a patient is called"), NotEntered),
    ],
)
def test_a_failure_is_told_as_what_it_is_and_without_its_text(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    heard: type[Exception],
) -> None:
    def fail(*_: object) -> list[Outcome]:
        raise failure

    monkeypatch.setattr(index_module, "enter", fail)

    with pytest.raises(heard) as told:
        installation.remote.add(an_arrival())

    assert type(told.value) is heard
    assert "patient" not in str(told.value)


def test_one_that_the_database_refuses_takes_no_other_with_it(database: Database) -> None:
    good, bad = an_arrival(), an_arrival()
    bad = bad._replace(at=NOON.replace(tzinfo=None))

    answers = OwnIndex(database).enter(lambda: [good, bad, good])

    assert answers[0] is Outcome.NEW
    assert isinstance(answers[1], Exception)
    assert answers[2] is Outcome.SAME_AGAIN


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_nobody_else_is_listened_to(database: Database) -> None:
    with served(database) as installation:
        code = (
            "import os, socket, sys; os.setuid(65534);"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
            f"s.connect({installation.remote._address!r});"
            "s.settimeout(30); print(s.recv(10))"
        )
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
    assert told.stdout.strip() == "b''"


def test_whichever_process_dies_everything_goes_on(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener()
    indexing_process = listener.children[-2]
    assert send(listener.port, [sendable(a_slice())]) == [0]

    os.kill(indexing_process, 9)

    assert send(listener.port, [sendable(a_slice()) for _ in range(3)]) == [0, 0, 0]
    assert len(listener.rows(instance)) == 4
    assert indexing_process not in listener.living_children()


def test_the_socket_is_no_file() -> None:
    listener = indexing.listen()

    assert listener.family == socket.AF_UNIX
    assert listener.getsockname().startswith(b"\0")
    listener.close()


def test_a_group_that_is_given_up_for_another_transaction_is_entered_after_it(
    postgresql_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(postgresql_database_url)
    tries = 0

    def entered(transaction: Transaction, arrivals: Sequence[Arrival]) -> list[Outcome]:
        nonlocal tries
        tries += 1
        if tries == 1:
            transaction.connection.execute(text(_GIVEN_UP))
        return enter(transaction, arrivals)

    monkeypatch.setattr(index_module, "enter", entered)
    group = [an_arrival() for _ in range(2)]

    assert OwnIndex(database).enter(lambda: group) == [Outcome.NEW] * 2
    assert tries == 2
    database.close()
