"""An indexing process that is away, late or besieged: who sends asks again, and never twice."""

from __future__ import annotations

import errno
import pickle
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs
from typing_extensions import override

from dicom_listener import indexing
from dicom_listener.arrivals import Outcome
from dicom_listener.index import OwnIndex
from dicom_listener.indexing import RemoteIndex
from dicom_listener.open_associations import open_for
from imaging_store.schema.ingest import instance, open_association
from service_runtime.database import Database, DatabaseUnavailable
from tests.integration.dicom_listener.indexed import an_arrival, serving


@contextmanager
def ended_at_last(remote: RemoteIndex) -> Iterator[None]:
    try:
        yield
    finally:
        remote.end(open_for("X"))


def test_who_gets_no_answer_asks_again(database: Database) -> None:
    listener = indexing.listen()
    remote = RemoteIndex(listener.getsockname(), OwnIndex(database))
    arrival = an_arrival()
    with ThreadPoolExecutor(1) as sender:
        outcome = sender.submit(remote.add, arrival)
        connection, _ = listener.accept()
        assert connection.recv(indexing.MOST_BYTES)
        # It had entered it, and died before it could say so.
        OwnIndex(database).add(arrival)
        connection.close()
        with serving(database, listener):
            assert outcome.result(timeout=30) is Outcome.SAME_AGAIN
            sender.submit(remote.end, open_for("X")).result(timeout=30)
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
    for _ in range(sys.getrecursionlimit()):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(listener.getsockname())
    remote = RemoteIndex(listener.getsockname(), OwnIndex(database))
    with serving(database, listener), ended_at_last(remote):
        assert remote.add(an_arrival()) is Outcome.NEW


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
    remote = RemoteIndex(full.getsockname(), OwnIndex(database))
    with capture_logs(), serving(database, full), ended_at_last(remote):
        assert remote.add(an_arrival()) is Outcome.NEW
