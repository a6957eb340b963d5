"""One data set on its way from the association to the store and the index."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select

from dicom_listener.announcer import Announcer
from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome
from dicom_listener.c_store import StoreRequest
from dicom_listener.completion import Limits
from dicom_listener.index import OwnIndex
from dicom_listener.instance_header import PREFIX_BYTES, InstanceHeader, parse_header
from dicom_listener.keeping import Reception
from dicom_listener.peers import Peer
from dicom_listener.reception import InstanceKeeper
from dicom_listener.sender import Sender
from imaging_store.instances import FileInstanceStore, FileSink
from imaging_store.schema.ingest import early_conflict, instance, study
from service_runtime.database import Database, DatabaseUnavailable
from tests.integration.dicom_listener.listener import Sendable, a_slice, sendable
from tests.integration.dicom_listener.reading_room import ReadingRoom
from tests.integration.dicom_listener.test_completing import a_rejection_of


class Clock:
    """Says what time it is, as long as a test says nothing else."""

    def __init__(self) -> None:
        self.now = datetime(2026, 7, 4, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def a_radiograph(uid: str, table_bytes: int) -> Sendable:
    table = Dataset()
    table.LUTDescriptor = [table_bytes // 2, 0, 16]
    table.add_new("LUTData", "OW", bytes(table_bytes))
    return sendable(
        a_slice(
            StudyInstanceUID=uid, Modality="DX", VOILUTSequence=[table], PixelData=bytes(99_000)
        )
    )


@pytest.mark.parametrize("table_bytes", [100, 130_000], ids=["short header", "long header"])
def test_a_study_waits_for_a_transfer_as_long_as_something_comes(
    sqlite_url: str, tmp_path: Path, table_bytes: int
) -> None:
    clock = Clock()
    database, store = Database(sqlite_url), FileInstanceStore(tmp_path / "store")
    keeper = InstanceKeeper(store, database, OwnIndex(database), clock)
    sender = Sender(Peer("CT1", timedelta(seconds=30), "", UTC), "COUNTERSIGN", None)
    uid = generate_uid()

    def begin(size_bytes: int | None = None) -> Reception:
        sent = a_radiograph(uid, table_bytes)
        request = StoreRequest(1, sent.sop_class_uid, sent.sop_instance_uid, has_data_set=True)
        reception = keeper(request, sent.transfer_syntax_uid, sender)
        reception.write(memoryview(sent.data)[:size_bytes])
        return reception

    def version() -> int:
        Announcer(database, Limits(timedelta(), timedelta(hours=4))).look(clock.now)
        with database.reading() as connection:
            return connection.execute(select(study.c.version)).scalar_one()

    assert begin().finish().status == 0x0000
    clock.advance(27)
    reception = begin(80_000)
    versions = set()
    for _ in range(60):
        clock.advance(2)
        reception.write(memoryview(bytes(100)))
        versions.add(version())
    reception.abandon()

    assert versions == {0}
    clock.advance(30)
    assert version() == 1
    # Nothing waits any more: a transfer that takes long prolongs nothing.
    reception = begin(80_000)
    clock.advance(2)
    reception.write(memoryview(bytes(100)))
    with database.reading() as connection:
        assert connection.execute(select(study.c.quiet_until)).scalar_one() is None
    reception.abandon()
    database.close()


@pytest.mark.parametrize("piece_bytes", [1_000, 20_000, 70_000, 1_000_000])
@pytest.mark.parametrize("table_bytes", [100, 30_000, 130_000])
def test_a_header_is_read_in_whatever_pieces_it_comes(
    room_in_sqlite: ReadingRoom,
    monkeypatch: pytest.MonkeyPatch,
    piece_bytes: int,
    table_bytes: int,
) -> None:
    room, sent = room_in_sqlite, a_radiograph("1.2.3", table_bytes)
    flush_to = FileSink.flush_to
    read_again: list[FileSink] = []

    def flushed(sink: FileSink) -> Path:
        read_again.append(sink)
        return flush_to(sink)

    monkeypatch.setattr(FileSink, "flush_to", flushed)
    reception = room.begin(sent)
    for start in range(0, len(sent.data), piece_bytes):
        # It may be reused once it was taken.
        piece = bytearray(sent.data[start : start + piece_bytes])
        reception.write(memoryview(piece))
        piece[:] = bytes(len(piece))

    assert reception.finish().status == 0x0000

    row = room.row(instance)
    assert row.sop_instance_uid == sent.sop_instance_uid
    assert room.store.read(row.key).endswith(sent.data)
    assert len(read_again) == (table_bytes > PREFIX_BYTES)


def test_a_header_is_read_while_the_rest_is_on_its_way(
    room_in_sqlite: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = a_radiograph("1.2.3", 100)
    read: list[InstanceHeader | None] = []

    def parse(*given: Any, **how: Any) -> InstanceHeader | None:
        read.append(header := parse_header(*given, **how))
        return header

    monkeypatch.setattr("dicom_listener.reception.parse_header", parse)
    reception = room_in_sqlite.begin(sent)
    read_after = []
    for start in range(0, len(sent.data), 20_000):
        reception.write(memoryview(sent.data)[start : start + 20_000])
        read_after.append(len(read))

    assert reception.finish().status == 0x0000

    # The disk has the first piece before.
    assert read_after == [0, 1, 1, 1, 1]
    assert len(read) == 1
    assert read[0] is not None


@pytest.mark.parametrize(("is_there", "status"), [(True, 0x0000), (False, 0x0110)])
def test_success_is_answered_only_for_bytes_that_are_there(
    sqlite_url: str, tmp_path: Path, *, is_there: bool, status: int
) -> None:
    database, store = Database(sqlite_url), FileInstanceStore(tmp_path / "store")
    keeper = InstanceKeeper(store, database, OwnIndex(database), lambda: datetime.now(UTC))
    sent = sendable(a_slice())
    assert receive(keeper, sent) == 0x0000
    with database.transaction() as transaction:
        transaction.connection.execute(instance.update().values(purged_at=datetime.now(UTC)))

    if not is_there:
        # As the purge does between the file's being there and the row's saying so.
        entered = keeper.index.add

        def add(arrival: Arrival) -> Outcome:
            outcome = entered(arrival)
            store.path(arrival.kept.key).unlink()
            return outcome

        keeper.index.add = add  # type: ignore[method-assign]

    assert receive(keeper, sent) == status

    with database.reading() as connection:
        purged_at = connection.execute(select(instance.c.purged_at)).scalar_one()
    assert (purged_at is None) is is_there
    database.close()


def test_a_rejection_is_heard_whoever_had_begun_to_send_it_and_however_long_it_is(
    sqlite_url: str, tmp_path: Path
) -> None:
    database, store = Database(sqlite_url), FileInstanceStore(tmp_path / "store")
    keeper = InstanceKeeper(store, database, OwnIndex(database), lambda: datetime.now(UTC))
    note = sendable(a_rejection_of("1.2.3"))
    long = pack("<HH2s2xL", 0x7FE1, 0x1010, b"OB", 16_000_000) + bytes(16_000_000)
    note = replace(note, data=note.data + long)

    def fail(_: Arrival) -> Outcome:
        raise DatabaseUnavailable

    with pytest.MonkeyPatch.context() as away:
        away.setattr(keeper.index, "add", fail)
        assert receive(keeper, note, "A_LONGER_NAME") == 0x0110

    tracemalloc.start()
    status = receive(keeper, note)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert status == 0x0000
    with database.reading() as connection:
        doubt = connection.execute(select(early_conflict)).one()
    assert (doubt.study_instance_uid, doubt.sop_instance_uid) == ("1.2.3", note.sop_instance_uid)
    assert peak_bytes < 8_000_000
    database.close()


def receive(keeper: InstanceKeeper, sent: Sendable, ae_title: str = "CT1") -> int:
    request = StoreRequest(1, sent.sop_class_uid, sent.sop_instance_uid, has_data_set=True)
    peer = Peer(ae_title, timedelta(seconds=1), "LOCAL", UTC)
    reception = keeper(request, sent.transfer_syntax_uid, Sender(peer, "COUNTERSIGN"))
    reception.write(memoryview(sent.data))
    return int(reception.finish().status)
