"""The sender's process: destinations beside each other, in both forms and over both databases."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from sqlalchemy import delete, select

from admin_api import destinations as pauses
from dicom_sender.handlers import Sender
from imaging_store.instances import FileInstanceStore
from imaging_store.schema.delivery import attachment
from inference_worker.result_attributes import ResultObject
from message_contracts import catalogue, topology
from message_contracts.delivery import (
    AttachmentDelivered,
    AttachmentFailed,
    AttachmentRequested,
)
from message_contracts.destination import DestinationRetry, PacsDestination
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from service_runtime.database import Database
from service_runtime.messaging import dead_letters, outbox
from service_runtime.messaging.hastening import hasten
from service_runtime.messaging.tables import delivery, message
from service_runtime.settings import EMBEDDED
from tests.integration.dicom_sender.a_pacs import a_pacs
from tests.integration.dicom_sender.kept_case import NOON, change_case
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.processes import (
    LOOPBACK,
    ServerProcess,
    accepts_connections,
    free_port,
    wait_until,
)

QUICK = DestinationRetry(first_delay_s=0.2, multiplier=1, cap_s=0.2, attempts=3)
PATIENT = DestinationRetry(first_delay_s=0.2, multiplier=1, cap_s=0.2, attempts=1000)


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
def database(form: Form) -> Iterator[Database]:
    opened = Database(form.database_url, via_relay=form.broker_url != EMBEDDED)
    yield opened
    opened.close()


class RunningSender:
    """A sender's process, and what it is asked for and answers."""

    def __init__(self, process: ServerProcess, database: Database, request: Envelope) -> None:
        self.process, self.database, self.request = process, database, request

    def ask(self, destination: str, *, number: int = 0) -> None:
        """Ask for the results to go to a destination."""
        body = self.request.data(AttachmentRequested).model_copy(
            update={"destination": destination}
        )
        envelope = Envelope.of(
            body, source="workflow_engine", time=NOON, id=derived_id(destination, number)
        )
        with self.database.transaction() as transaction:
            outbox.send(transaction, envelope)

    def answered(self, kind: type[AttachmentDelivered], destination: str) -> bool:
        """Tell whether the case has heard this of a destination."""
        return self._count(kind, destination) > 0

    def _count(self, kind: type[AttachmentDelivered], destination: str) -> int:
        with self.database.reading() as connection:
            bodies = connection.execute(
                select(message.c.body).where(message.c.routing_key == kind.TYPE)
            ).scalars()
            told = [catalogue.decode(body).body for body in bodies]
        return sum(type(each) is kind and each.destination == destination for each in told)

    def wait_for(self, kind: type[AttachmentDelivered], destination: str) -> None:
        """Wait until the case has heard it."""
        wait_until(
            lambda: self.answered(kind, destination),
            what=f"{kind.TYPE} of {destination}",
        )

    def delivery_s(self, destination: str, number: int) -> float:
        """Have the results go to a destination as if for the first time; return in which time."""
        with self.database.transaction() as transaction:
            transaction.connection.execute(delete(attachment))
        began = time.monotonic()
        self.ask(destination, number=number)
        wait_until(
            lambda: self._count(AttachmentDelivered, destination) == number + 1,
            what=f"delivery {number}",
        )
        return time.monotonic() - began

    def last_error(self, destination: str) -> str:
        """Return what the last try for a destination found."""
        branch = topology.branch_of(topology.ATTACHMENT, destination)
        with self.database.reading() as connection:
            row = connection.execute(
                select(delivery.c.last_error).where(delivery.c.queue == branch)
            ).first()
        return (row.last_error or "") if row else ""


def environment(form: Form, folder: Path, **settings: str) -> dict[str, str]:
    settings = {
        "DATA_DIR": str(folder),
        "DATABASE_URL": form.database_url,
        "BROKER_URL": form.broker_url,
        **settings,
    }
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        **{f"COUNTERSIGN_{name}": value for name, value in settings.items()},
    }


@pytest.fixture
def run(
    form: Form,
    database: Database,
    tmp_path: Path,
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    store: FileInstanceStore,
) -> Iterator[Callable[..., RunningSender]]:
    """Run the sender's process with these destinations."""
    sender_to(1)  # which keeps case and results
    with ExitStack() as stack:

        def start(*destinations: PacsDestination, **settings: str) -> RunningSender:
            process = ServerProcess(
                [sys.executable, "-m", "dicom_sender"],
                log=tmp_path / "sender.log",
                environment=environment(
                    form,
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


def at(port: int, name: str = "archive", **more: Any) -> PacsDestination:
    more = {"retry": QUICK, "ae_title": "ORTHANC", **more}
    return PacsDestination(name=name, host=LOOPBACK, port=port, **more)


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

    assert not sender.answered(AttachmentFailed, "silent")
    # A second is for a machine that is busy otherwise: who waited for a black hole would take 15.
    assert beside_s <= 2 * alone_s + 1


def test_tries_used_up_make_a_dead_letter_whose_replay_delivers(
    run: Callable[..., RunningSender], database: Database
) -> None:
    port = free_port()
    sender = run(at(port))
    sender.ask("archive")
    sender.wait_for(AttachmentFailed, "archive")
    [letter] = dead_letters.list_open(database)
    with a_pacs(lambda _event: 0, port=port):
        with database.transaction() as transaction:
            dead_letters.replay(transaction, letter.id, who="test", why="it is back")
        sender.wait_for(AttachmentDelivered, "archive")
    [shown] = pauses.list_all(database, (at(port),))

    assert letter.attempts == QUICK.attempts
    assert letter.queue == "attachment/archive"
    assert letter.reason == "nobody answers for archive: Connection refused"
    assert shown.failure == letter.reason
    assert shown.succeeded_at is not None
    assert (shown.waiting, shown.dead_letters) == (0, 0)


def test_a_full_pacs_gets_the_rest_when_it_has_room(
    run: Callable[..., RunningSender], results: list[ResultObject]
) -> None:
    received: list[str] = []

    def full_at_first(event: Any) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0xA700 if len(received) in {2, 3} else 0

    with a_pacs(full_at_first) as port:
        sender = run(at(port, retry=PATIENT))
        sender.ask("archive")
        sender.wait_for(AttachmentDelivered, "archive")

    first, second = (each.sop_instance_uid for each in results)
    assert received == [first, second, second, second]


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


def test_a_destination_that_is_no_more_is_given_up_and_told(
    run: Callable[..., RunningSender], database: Database
) -> None:
    sender = run(at(free_port(), "other"))

    sender.ask("archive")
    sender.wait_for(AttachmentFailed, "archive")

    [letter] = dead_letters.list_open(database)
    assert letter.reason == ("archive is no destination; COUNTERSIGN_PACS_DESTINATIONS lists them")


def test_orthanc_commits_to_the_listener_and_the_case_hears_that_it_was_delivered(
    run: Callable[..., RunningSender], form: Form, tmp_path: Path, orthanc: Orthanc
) -> None:
    port = free_port()
    listener = ServerProcess(
        [sys.executable, "-m", "dicom_listener"],
        log=tmp_path / "listener.log",
        environment=environment(form, tmp_path, DICOM_PORT=str(port), RECEIVING_PROCESSES="1"),
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
