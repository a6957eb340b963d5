from __future__ import annotations

import os
import signal
import subprocess
import sys

from message_contracts.case import CaseStatus
from message_contracts.envelope import Envelope
from message_contracts.identifiers import case_id_of
from message_contracts.ingest import CompletionReason, StudyOpened, StudyReceived
from service_runtime.database import Database
from service_runtime.messaging import outbox
from tests.peers.processes import wait_until
from tests.workflow_journey import NOON, Ward, a_model
from workflow_engine import cases

UID = "1.2.826.0.1.1"


def test_the_process_takes_messages_to_their_cases_and_drains(sqlite_url: str, tmp_path) -> None:
    database = Database(sqlite_url)
    ward = Ward(database)
    ward.register(a_model())
    ward.receive(UID)
    received = StudyReceived(
        study_instance_uid=UID, study_version=1, instance_count=1, reason=CompletionReason.QUIET
    )
    with database.transaction() as transaction:
        for message in (StudyOpened(study_instance_uid=UID), received):
            outbox.send(transaction, Envelope.of(message, source="test", time=NOON))
    environment = {
        **os.environ,
        "COUNTERSIGN_DATA_DIR": str(tmp_path / "data"),
        "COUNTERSIGN_DATABASE_URL": sqlite_url,
    }
    process = subprocess.Popen([sys.executable, "-m", "workflow_engine"], env=environment)

    def asked() -> bool:
        with database.reading() as connection:
            case = cases.find(connection, case_id_of(UID))
        return case is not None and case.status is CaseStatus.PENDING_AI

    try:
        wait_until(asked, what="the model is asked")
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)

    assert code == 0
    assert len(ward.requested_models()) == 1
    database.close()
