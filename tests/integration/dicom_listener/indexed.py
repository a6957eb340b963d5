"""Arrivals, and the work of an indexing process and of a queue to it in threads."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

from sqlalchemy import Table, select

from dicom_listener import index_messages
from dicom_listener.arrival import Arrival
from dicom_listener.index import Answer, Board, OwnIndex
from dicom_listener.index_queue import IndexQueue
from dicom_listener.indexing import Indexing
from dicom_listener.instance_header import parse_header
from dicom_listener.open_associations import OpenAssociation
from imaging_store.instances import Kept
from service_runtime.database import Database
from tests.integration.dicom_listener.listener import a_slice, sendable

NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)


def now() -> datetime:
    """Return a moment after all arrivals."""
    return NOON + timedelta(hours=1)


def an_arrival(association: OpenAssociation | None = None, **attributes: Any) -> Arrival:
    """Return an instance of these attributes that has just been kept."""
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
    """A database, an indexing process's work, and a queue to it."""

    database: Database
    queue: IndexQueue
    followed: list[tuple[Arrival, Answer]]
    """What the queue told of arrivals that it had taken."""
    own_entered: list[Arrival] = field(default_factory=list)

    def rows(self, table: Table) -> Sequence[Any]:
        """All rows of a table."""
        with self.database.reading() as connection:
            return connection.execute(select(table)).all()


class CountsOwn(OwnIndex):
    """Remembers what was entered without a message."""

    def __init__(self, database: Database, entered: list[Arrival]) -> None:
        super().__init__(database)
        self.entered = entered

    def enter(self, board: Board) -> list[Answer]:
        self.entered += [each for each in board() if isinstance(each, Arrival)]
        return super().enter(board)


@contextmanager
def serving(
    database: Database, listener: socket.socket, on_new: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Have a thread enter what is sent to a listener, until nobody receives any more.

    Whoever has sent must have ended before it is left.
    """
    over, receives = os.pipe()
    thread = Thread(target=Indexing(OwnIndex(database), listener, on_new).serve, args=(over,))
    thread.start()
    try:
        yield
    finally:
        os.close(receives)
        thread.join(timeout=30)
        assert not thread.is_alive(), "it serves although nobody receives any more"
        listener.close()
        os.close(over)


@contextmanager
def served(database: Database) -> Iterator[Installation]:
    """Give an installation whose indexing is served."""
    listener = index_messages.listen()
    own_entered: list[Arrival] = []
    followed: list[tuple[Arrival, Answer]] = []
    queue = IndexQueue(
        listener.getsockname(),
        CountsOwn(database, own_entered),
        lambda arrival, answer: followed.append((arrival, answer)),
        now,
    )
    with serving(database, listener), queue:
        yield Installation(database, queue, followed, own_entered)
