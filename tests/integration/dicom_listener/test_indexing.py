"""What associations send to the indexing process is entered, together, and never half."""

from __future__ import annotations

import fcntl
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from dicom_listener import index as index_module
from dicom_listener import indexing
from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome, enter
from dicom_listener.indexing import NotEntered
from dicom_listener.open_associations import open_for
from imaging_store.schema.ingest import instance, open_association
from service_runtime.database import Database, DatabaseFull, DatabaseUnavailable, Transaction
from tests.integration.dicom_listener.indexed import Installation, an_arrival, served
from tests.integration.dicom_listener.listener import Listener, a_slice, send, sendable
from tests.peers.processes import wait_until


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
