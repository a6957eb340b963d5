"""The index on PostgreSQL, where receiving processes truly write at the same time."""

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy.exc import IntegrityError

from dicom_listener import arrivals
from dicom_listener.arrival import Arrival
from dicom_listener.part10 import file_meta
from dicom_listener.peers import Peer
from dicom_listener.rereading import Rereader, Source
from imaging_store.instances import FileInstanceStore, instance_key
from imaging_store.schema.ingest import duplicate_instance, instance, study
from message_contracts.ingest import StudyOpened, StudyReceived
from service_runtime.database import Database, Transaction
from service_runtime.statements import Change
from tests.integration.dicom_listener.listener import Listener, a_slice, send, sendable
from tests.peers.processes import wait_until


def test_modalities_that_send_the_same_study_at_once_agree(
    tmp_path: Path, postgresql_database_url: str
) -> None:
    study_uid = generate_uid()
    sent = [sendable(a_slice(StudyInstanceUID=study_uid, InstanceNumber=n)) for n in range(20)]
    statuses: list[list[int]] = []

    def modality(number: int) -> None:
        statuses.append(send(listener.port, sent[number:] + sent[:number]))

    with Listener(tmp_path / "data", postgresql_database_url, quiet_period_s=1) as listener:
        modalities = [threading.Thread(target=modality, args=(5 * n,)) for n in range(4)]
        for thread in modalities:
            thread.start()
        for thread in modalities:
            thread.join()

        assert statuses == [[0x0000] * 20] * 4
        assert len(listener.rows(instance)) == 20
        assert listener.rows(duplicate_instance) == []
        wait_until(lambda: listener.rows(study)[0].version, what="version 1")
        assert len(listener.messages(StudyOpened)) == 1
        assert [body.instance_count for body in listener.messages(StudyReceived)] == [20]


def an_arrival(store: FileInstanceStore, ds: Dataset) -> Arrival:
    it = sendable(ds)
    syntax = it.transfer_syntax_uid
    with store.open_write(file_meta(it.sop_class_uid, it.sop_instance_uid, syntax, "CT1")) as sink:
        sink.write(it.data)
        kept = sink.commit(instance_key(ds.StudyInstanceUID, ds.SOPInstanceUID, sink.digest))
    rereader = Rereader(store, lambda _: Peer("CT1", timedelta(seconds=30), "LOCAL", UTC))
    return rereader.arrival(kept, Source(syntax, "CT1", "COUNTERSIGN"), datetime.now(UTC))


class OneByOne:
    """Enters studies one by one; with each the other process has time to enter its own."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._both = threading.Barrier(2)

    def run(self, transaction: Transaction, rows: list[dict[str, object]]) -> None:
        for row in rows:
            self._change.run(transaction, [row])
            with suppress(threading.BrokenBarrierError):
                # Broken where the other waits for the row: as it should.
                self._both.wait(0.3)


def test_new_studies_that_come_to_two_processes_in_another_order_hold_up_neither(
    tmp_path: Path, postgresql_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "_ADD_STUDY", OneByOne(arrivals._ADD_STUDY))
    store, uids = FileInstanceStore(tmp_path / "store"), [generate_uid(), generate_uid()]
    groups = [
        [an_arrival(store, a_slice(StudyInstanceUID=uid)) for uid in in_order]
        for in_order in (uids, uids[::-1])
    ]
    database = Database(postgresql_database_url)
    failures: list[Exception] = []

    def process(group: list[Arrival]) -> None:
        for _ in range(2):
            try:
                with database.transaction() as transaction:
                    arrivals.enter(transaction, group)
            except IntegrityError:
                continue  # the other has entered them; as the index does, once more
            except Exception as error:  # noqa: BLE001 - shown by the test
                failures.append(error)
            return

    processes = [threading.Thread(target=process, args=(group,)) for group in groups]
    for each in processes:
        each.start()
    for each in processes:
        each.join()

    assert failures == []
    with database.reading() as connection:
        assert len(connection.execute(study.select()).all()) == len(uids)
        assert len(connection.execute(instance.select()).all()) == 2 * len(uids)
    database.close()
