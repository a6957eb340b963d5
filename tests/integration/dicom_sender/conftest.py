"""A sender, and results of a signed case for it to send."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_sender.caller import Caller
from dicom_sender.handlers import Sender
from dicom_sender.send import send
from imaging_store.instances import FileInstanceStore, open_instance_store
from imaging_store.schema.results import result_object
from inference_worker import secondary_capture, structured_report
from inference_worker.result_attributes import ResultObject
from message_contracts.delivery import (
    AttachmentRequested,
)
from message_contracts.destination import PacsDestination
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_uid
from service_runtime.database import Database
from service_runtime.settings import EMBEDDED
from tests.integration.dicom_sender.kept_case import (
    CASE,
    NOON,
    keep_case,
    keep_doctors_signature,
)
from tests.integration.dicom_sender.running_sender import RunningSender, environment
from tests.peers.processes import (
    LOOPBACK,
    ServerProcess,
    accepts_connections,
    find_program,
    free_port,
    require,
    wait_until,
)
from tests.readings import a_reading
from tests.synthetic_images import a_gradient, an_image


@pytest.fixture
def study_instance_uid(request: pytest.FixtureRequest) -> str:
    return derived_uid("test", request.node.nodeid)


@pytest.fixture
def results(study_instance_uid: str) -> list[ResultObject]:
    source = an_image(
        a_gradient().astype("u2"),
        StudyInstanceUID=study_instance_uid,
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Müller^Jörg",
        PatientID="SENDER-1",
    )
    reading = a_reading(study_instance_uid=study_instance_uid)
    overlay = np.zeros((40, 60, 3), np.uint8)
    return [
        secondary_capture.make(source, overlay, reading),
        structured_report.make([source], reading, [[0]]),
    ]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Give the URL of a database with the tables; a module may have both kinds."""
    return sqlite_url


@pytest.fixture
def broker_url() -> str:
    """Give the broker of the sender's process; a module may have both kinds."""
    return EMBEDDED


@pytest.fixture
def database(database_url: str, broker_url: str) -> Iterator[Database]:
    opened = Database(database_url, via_relay=broker_url != EMBEDDED)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> FileInstanceStore:
    return open_instance_store(f"file:{tmp_path / 'store'}")


@pytest.fixture
def sender_to(
    database: Database,
    store: FileInstanceStore,
    study_instance_uid: str,
    results: list[ResultObject],
) -> Callable[..., Sender]:
    """Give a sender that knows one destination on this port of loopback, and has the results."""
    keep_case(database, study_instance_uid)
    keep_doctors_signature(database)
    with database.transaction() as transaction:
        for number, result in enumerate(results):
            store.put_artifact(f"results/{number}.dcm", result.content)
            transaction.connection.execute(
                result_object.insert(),
                {
                    "sop_instance_uid": result.sop_instance_uid,
                    "sop_class_uid": result.sop_class_uid,
                    "study_instance_uid": study_instance_uid,
                    "series_instance_uid": result.series_instance_uid,
                    "case_id": CASE,
                    "case_version": 1,
                    "model_name": "shapes",
                    "model_version": "1.2.3",
                    "key": f"results/{number}.dcm",
                    "sha256": "0" * 64,
                    "made_at": NOON,
                },
            )

    def make(port: int, ae_title: str = "ORTHANC", **more: Any) -> Sender:
        caller = more.pop("caller", Caller("COUNTERSIGN", timeout_s=30))
        commit = more.pop("commit", never_asked)
        archive = PacsDestination(
            name="archive", ae_title=ae_title, host=LOOPBACK, port=port, **more
        )
        return Sender(
            database,
            store,
            {"archive": archive},
            lambda destination, batch: send(destination, caller, store, batch),
            lambda: NOON,
            UTC,
            commit=commit,
        )

    return make


def never_asked(*_arguments: object) -> bool:
    raise AssertionError("commitment was not wanted")


@pytest.fixture
def request_of(study_instance_uid: str, results: list[ResultObject]) -> Envelope:
    return Envelope.of(
        AttachmentRequested(
            case_id=CASE,
            case_version=1,
            study_instance_uid=study_instance_uid,
            destination="archive",
            sop_instance_uids=tuple(result.sop_instance_uid for result in results),
        ),
        source="workflow_engine",
        time=NOON,
    )


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Callable[..., tuple[int, Path]]]:
    """Run DCMTK's storescp; give its port, and the folder in which it keeps what it gets."""
    program = require(find_program("storescp"), "storescp", "dcmtk")
    with ExitStack() as stack:

        def run(*options: str | Path) -> tuple[int, Path]:
            port, folder = free_port(), tmp_path / "received"
            folder.mkdir()
            server = ServerProcess(
                [program, *options, "--output-directory", folder, str(port)],
                log=tmp_path / "storescp.log",
                environment={"TCP_NODELAY": "1"},
            )
            server.start()
            stack.callback(server.stop)
            server.wait_until_ready(lambda: accepts_connections(port))
            return port, folder

        yield run


@pytest.fixture
def a_discarding_pacs(storescp: Callable[..., tuple[int, Path]]) -> tuple[int, str]:
    """Run a PACS that keeps nothing, in a process of its own."""
    port, _ = storescp("--ignore", "--max-pdu", "131072")
    return port, "STORESCP"


@pytest.fixture
def run(
    database_url: str,
    broker_url: str,
    database: Database,
    tmp_path: Path,
    sender_to: Callable[..., Sender],
    request_of: Envelope,
) -> Iterator[Callable[..., RunningSender]]:
    """Run the sender's process with these destinations."""
    store = sender_to(1).store  # with case and results
    with ExitStack() as stack:

        def start(*destinations: PacsDestination, **settings: str) -> RunningSender:
            process = ServerProcess(
                [sys.executable, "-m", "dicom_sender"],
                log=tmp_path / "sender.log",
                environment=environment(
                    database_url,
                    broker_url,
                    tmp_path,
                    STORE_URL=f"file:{store.root}",
                    PACS_TIMEOUT_S="30",
                    PACS_DESTINATIONS=json.dumps(
                        [each.model_dump(mode="json") for each in destinations]
                    ),
                    **settings,
                ),
            )
            process.start()
            stack.callback(process.stop)
            log = tmp_path / "sender.log"
            wait_until(lambda: "service.ready" in log.read_text(), what="a sender")
            return RunningSender(process, database, request_of)

        yield start
