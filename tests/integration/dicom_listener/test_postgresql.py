"""The index on PostgreSQL, where receiving processes truly write at the same time."""

import threading
from pathlib import Path

from pydicom.uid import generate_uid

from imaging_store.schema.ingest import duplicate_instance, instance, study
from message_contracts.ingest import StudyOpened, StudyReceived
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
        wait_until(lambda: listener.rows(study)[0].version, timeout_s=10, what="version 1")
        assert len(listener.messages(StudyOpened)) == 1
        assert [body.instance_count for body in listener.messages(StudyReceived)] == [20]
