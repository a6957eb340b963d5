"""The sender's process: destinations beside each other, in both forms and over both databases."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from sqlalchemy import select

from admin_api import destinations as pauses
from inference_worker.result_attributes import ResultObject
from message_contracts.delivery import (
    AttachmentDelivered,
    AttachmentFailed,
)
from message_contracts.destination import PacsDestination
from service_runtime.database import Database
from service_runtime.messaging import dead_letters
from service_runtime.messaging.hastening import hasten
from service_runtime.messaging.tables import delivery
from service_runtime.settings import EMBEDDED
from tests.integration.dicom_sender.a_pacs import a_pacs
from tests.integration.dicom_sender.kept_case import change_case
from tests.integration.dicom_sender.running_sender import PATIENT, RunningSender, at, environment
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.processes import (
    LOOPBACK,
    ServerProcess,
    accepts_connections,
    free_port,
    wait_until,
)


class Form:
    """One of the two forms, over one of the two databases."""

    def __init__(self, database_url: str, broker_url: str) -> None:
        self.database_url, self.broker_url = database_url, broker_url


EVERY_FORM = pytest.mark.parametrize("form", ["sqlite", "postgresql", "rabbitmq"], indirect=True)


@pytest.fixture
def form(request: pytest.FixtureRequest) -> Form:
    kind = getattr(request, "param", "sqlite")
    if kind == "sqlite":
        return Form(request.getfixturevalue("sqlite_url"), EMBEDDED)
    url = request.getfixturevalue("postgresql_database_url")
    if kind == "postgresql":
        return Form(url, EMBEDDED)
    return Form(url, request.getfixturevalue("rabbitmq_vhost_url"))


@pytest.fixture
def database_url(form: Form) -> str:
    return form.database_url


@pytest.fixture
def broker_url(form: Form) -> str:
    return form.broker_url


@contextmanager
def a_black_hole() -> Iterator[int]:
    """Listen on a port and never say anything to whoever connects."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@EVERY_FORM
def test_a_black_hole_does_not_slow_the_others(run: Callable[..., RunningSender]) -> None:
    with a_black_hole() as silent, a_pacs(lambda _event: 0) as port:
        # 203.0.113.0/24 is for documentation, and routed nowhere.
        nowhere = PacsDestination(name="nowhere", ae_title="X", host="203.0.113.1", port=104)
        sender = run(at(silent, "silent"), at(port), nowhere)
        sender.delivery_s("archive", 0)
        alone_s = median(sender.delivery_s("archive", number) for number in range(1, 6))
        for number in range(5):
            sender.ask("silent", number=number)
            sender.ask("nowhere", number=number)
        beside_s = median(sender.delivery_s("archive", number) for number in range(6, 11))

    assert sender.told(AttachmentFailed, "silent") == []
    # A second is for a machine that is busy otherwise: who waited for a black hole would take 15.
    assert beside_s <= 2 * alone_s + 1


def test_a_paused_destination_loses_no_attempt_and_goes_on(
    run: Callable[..., RunningSender], database: Database
) -> None:
    received: list[str] = []

    def take(event: Any) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    with a_pacs(take) as port:
        sender = run(at(port), at(port, "second"))
        pauses.pause(database, "archive", "an admin", "maintenance", datetime.now(UTC))
        sender.ask("archive")
        sender.ask("second")
        sender.wait_for(AttachmentDelivered, "second")
        [paused] = pauses.list_all(database, (at(port),))
        pauses.resume(database, "archive")
        sender.wait_for(AttachmentDelivered, "archive")

    assert (paused.waiting, paused.failed_at) == (1, None)
    assert paused.paused is not None
    assert paused.paused.why == "maintenance"
    assert len(received) == 4


def test_outside_its_window_a_destination_is_not_tried(
    run: Callable[..., RunningSender], database: Database
) -> None:
    hour = datetime.now(UTC).hour
    closed = f"{(hour + 2) % 24:02}:00-{(hour + 3) % 24:02}:00"
    opened = f"{(hour - 1) % 24:02}:00-{(hour + 2) % 24:02}:00"
    with a_pacs(lambda _event: 0) as port:
        sender = run(at(port, window=closed), at(port, "second", window=opened))
        sender.ask("archive")
        sender.ask("second")
        sender.wait_for(AttachmentDelivered, "second")
        [shown] = pauses.list_all(database, (at(port, window=closed),))

    assert (shown.waiting, shown.failed_at, shown.dead_letters) == (1, None, 0)


def test_a_case_on_hold_waits_beside_the_others(
    run: Callable[..., RunningSender], database: Database
) -> None:
    with a_pacs(lambda _event: 0) as port:
        sender = run(at(port))
        change_case(database, on_hold=True)
        sender.ask("archive")
        wait_until(
            lambda: sender.last_error("archive") == "the case is on hold",
            what="it is looked at",
        )
        change_case(database, on_hold=False)
        with database.transaction() as transaction:
            hasten(transaction, list(_waiting(database)))
        sender.wait_for(AttachmentDelivered, "archive")

    assert dead_letters.list_open(database) == []


def _waiting(database: Database) -> Sequence[str]:
    with database.reading() as connection:
        return connection.execute(select(delivery.c.message_id)).scalars().all()


@EVERY_FORM
def test_what_is_repeated_after_a_kill_is_the_same_and_what_was_taken_is_not_sent_again(
    run: Callable[..., RunningSender],
    database: Database,
    results: list[ResultObject],
) -> None:
    received: list[tuple[str, bytes]] = []
    killed = threading.Event()
    running: list[RunningSender] = []

    def kill_at_the_second(event: Any) -> int:
        data_set = event.request.DataSet.getvalue()
        received.append((str(event.request.AffectedSOPInstanceUID), data_set))
        if len(received) == 2 and not killed.is_set():
            running[0].process.kill()
            killed.set()
        return 0

    with a_pacs(kill_at_the_second, transfer_syntaxes=["1.2.840.10008.1.2.1"]) as port:
        running.append(run(at(port, retry=PATIENT)))
        running[0].ask("archive")
        assert killed.wait(60)
        with database.transaction() as transaction:
            # Its supervisor would do so.
            transaction.connection.execute(delivery.update().values(leased_until=0, lease_token=""))
        run(at(port, retry=PATIENT)).wait_for(AttachmentDelivered, "archive")

    first, second = (each.sop_instance_uid for each in results)
    assert [uid for uid, _ in received] == [first, second, second]
    assert received[1] == received[2]
    assert results[1].content.endswith(received[1][1])


def test_orthanc_commits_to_the_listener_and_the_case_hears_that_it_was_delivered(
    run: Callable[..., RunningSender], form: Form, tmp_path: Path, orthanc: Orthanc
) -> None:
    port = free_port()
    listener = ServerProcess(
        [sys.executable, "-m", "dicom_listener"],
        log=tmp_path / "listener.log",
        environment=environment(
            form.database_url,
            form.broker_url,
            tmp_path,
            DICOM_PORT=str(port),
            RECEIVING_PROCESSES="1",
        ),
    )
    listener.start()
    listener.wait_until_ready(lambda: accepts_connections(port))
    orthanc.add_modality("countersign", Modality("COUNTERSIGN", port))
    try:
        archive = at(orthanc.dicom_port, ae_title=orthanc.ae_title, commitment=True)
        sender = run(archive, COMMITMENT_WAIT_S="0")
        sender.ask("archive")
        sender.wait_for(AttachmentDelivered, "archive")
    finally:
        listener.stop()

    assert "commitment_report.heard" in (tmp_path / "listener.log").read_text()
    assert "commitment.reported" in (tmp_path / "sender.log").read_text()
