"""Who is let in, who is not, and what it costs those who never ask."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from admin_api import application_entities
from dicom_listener.serving import MOST_UNASSOCIATED
from imaging_store.schema.ingest import instance, study
from service_runtime.database import Database
from tests.conftest import create_tables
from tests.integration.dicom_listener.listener import (
    CT,
    Listener,
    a_slice,
    associate,
    send,
    sendable,
)
from tests.peers.processes import LOOPBACK, accepts_connections, free_port, wait_until
from tests.peers.raw_scu import associate_rq, command_set, p_data_tf

# pynetdicom as requestor leaves its socket open when the peer resets it
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

EXPLICIT = "1.2.840.10008.1.2.1"
CONTEXTS = [(CT, EXPLICIT)]
LONG_S = 300
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"


class Registry:
    """The list of application entities, as the API and the command line change it."""

    def __init__(self, database_url: str) -> None:
        self.database = Database(database_url)

    def put(self, ae_title: str, **entry: object) -> None:
        application_entities.put(
            self.database,
            ae_title,
            application_entities.checked(**entry),
            "test",
            datetime.now(UTC),
        )

    def remove(self, ae_title: str) -> None:
        application_entities.remove(self.database, ae_title)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    """Start the listener that tests of who is let in share."""
    folder = tmp_path_factory.mktemp("door")
    url = f"sqlite:///{folder}/door.sqlite3"
    create_tables(url)
    with Listener(folder / "data", url, health_port=free_port()) as listener:
        yield listener


@pytest.fixture
def registry(door: Listener) -> Iterator[Registry]:
    """List application entities; afterwards nobody is listed."""
    registry = Registry(door.database_url)
    yield registry
    for listed in application_entities.list_all(registry.database):
        registry.remove(listed.ae_title)
    registry.database.close()


def ask(port: int, request: bytes) -> tuple[int, ...]:
    """Send an A-ASSOCIATE-RQ; return Result, Source and Reason of a rejection, 0 if accepted."""
    with socket.create_connection((LOOPBACK, port), timeout=60) as connection:
        connection.sendall(request)
        answer = connection.recv(4096)
    return tuple(answer[7:10]) if answer[0] == 3 else (0,) if answer[0] == 2 else ()


def rq(calling: str = "CT1", called: str = "COUNTERSIGN") -> bytes:
    return associate_rq(CONTEXTS, calling, called)


ACCEPTED = (0,)
UNKNOWN_CALLING, UNKNOWN_CALLED, NO_APPLICATION_CONTEXT = (1, 1, 3), (1, 1, 7), (1, 1, 2)
LOCAL_LIMIT, CONGESTION = (2, 3, 2), (2, 3, 1)


def test_while_nobody_is_listed_anyone_may_from_loopback(door: Listener) -> None:
    assert ask(door.port, rq("WHOEVER")) == ACCEPTED


def test_each_rejection_has_its_reason_in_the_standards_words(
    door: Listener, registry: Registry
) -> None:
    registry.put("CT1", networks=["127.0.0.0/8"])
    registry.put("CT9", networks=["10.0.0.0/8"])
    another = rq().replace(APPLICATION_CONTEXT, b"1.2.840.10008.3.1.1.2")

    answers = {
        "CT1": ask(door.port, rq("CT1")),
        "padded": ask(door.port, rq(" CT1 ", " COUNTERSIGN ")),
        "NUL": ask(door.port, rq("CT1\0\0", "COUNTERSIGN\0")),
        "unlisted": ask(door.port, rq("CT2")),
        "in another case": ask(door.port, rq("ct1")),
        "from elsewhere": ask(door.port, rq("CT9")),
        "blank": ask(door.port, rq("")),
        "umlaut": ask(door.port, rq("CT1").replace(b"CT1", b"CT\xdc")),
        "called": ask(door.port, rq(called="ORTHANC")),
        "called blank": ask(door.port, rq(called="")),
        "application context": ask(door.port, another),
    }

    assert answers == {
        "CT1": ACCEPTED,
        "padded": ACCEPTED,
        "NUL": ACCEPTED,
        "unlisted": UNKNOWN_CALLING,
        "in another case": UNKNOWN_CALLING,
        "from elsewhere": UNKNOWN_CALLING,
        "blank": UNKNOWN_CALLING,
        "umlaut": UNKNOWN_CALLING,
        "called": UNKNOWN_CALLED,
        "called blank": UNKNOWN_CALLED,
        "application context": NO_APPLICATION_CONTEXT,
    }


def test_a_rejection_is_logged_and_counted(door: Listener, registry: Registry) -> None:
    registry.put("CT1")

    ask(door.port, rq("STRANGER"))

    wait_until(lambda: '"STRANGER"' in door.log, what="the line")
    [line] = [line for line in door.log.splitlines() if '"STRANGER"' in line and "rejected" in line]
    for word in ("1/1/3", "calling AE title not listed", LOOPBACK, '"COUNTERSIGN"'):
        assert word in line
    port = door.process.environment["COUNTERSIGN_HEALTH_PORT"]
    metrics = httpx.get(f"http://{LOOPBACK}:{port}/metrics", trust_env=False, timeout=60).text
    assert 'countersign_associations_rejected_total{reason="calling_ae_title"}' in metrics


def test_a_change_holds_from_the_next_association_in_every_process(
    door: Listener, registry: Registry
) -> None:
    registry.put("MR1")
    before = {ask(door.port, rq("CT1")) for _ in range(6)}
    registry.put("CT1")
    listed = {ask(door.port, rq("CT1")) for _ in range(6)}
    registry.put("CT1", networks=["10.0.0.1"])
    moved = {ask(door.port, rq("CT1")) for _ in range(6)}
    registry.remove("CT1")
    registry.remove("MR1")

    after = {ask(door.port, rq("CT1")) for _ in range(6)}

    assert (before, listed) == ({UNKNOWN_CALLING}, {ACCEPTED})
    assert (moved, after) == ({UNKNOWN_CALLING}, {ACCEPTED})


def test_after_a_rejection_no_c_store_passes(door: Listener, registry: Registry) -> None:
    registry.put("MR1")
    sent = sendable(a_slice())
    known = len(door.rows(instance))
    command = command_set(0x0001, 1, sent.sop_class_uid, sent.sop_instance_uid)

    with socket.create_connection((LOOPBACK, door.port), timeout=60) as connection:
        # All at once: the data is there before anybody has been asked.
        data = p_data_tf(1, 3, command) + p_data_tf(1, 2, sent.data)
        connection.sendall(rq("CT1") + data)
        answer = bytearray()
        while chunk := connection.recv(4096):
            answer += chunk
            connection.sendall(data)

    assert answer[0] == 3
    assert bytes(answer[10:11]) in {b"", b"\x07"}
    assert len(door.rows(instance)) == known


def test_what_is_listed_of_a_sender_holds_for_what_it_sends(
    door: Listener, registry: Registry
) -> None:
    registry.put("CT1", default_issuer_of_patient_id="CLINIC", time_zone="Asia/Tokyo")
    ds = a_slice()

    assert send(door.port, [sendable(ds)], ae_title="CT1") == [0x0000]

    [row] = [row for row in door.rows(study) if row.study_instance_uid == ds.StudyInstanceUID]
    assert row.issuer_of_patient_id == "CLINIC"
    assert row.started == "2026-07-04T12:00:00+09:00"


def test_a_peer_may_have_as_many_associations_as_are_listed_of_it(
    door: Listener, registry: Registry
) -> None:
    registry.put("CT1", max_associations=2)
    registry.put("MR1")
    first, second = (associate(door.port, *CONTEXTS, ae_title="CT1") for _ in range(2))
    assert first.is_established
    assert second.is_established

    answers = {ask(door.port, rq("CT1")) for _ in range(4)}
    other = ask(door.port, rq("MR1"))
    first.release()

    assert answers == {LOCAL_LIMIT}
    assert other == ACCEPTED
    wait_until(lambda: ask(door.port, rq("CT1")) == ACCEPTED, what="a place")
    second.release()


def test_who_never_speaks_takes_nobodys_place(start_listener: Callable[..., Listener]) -> None:
    listener = start_listener(max_associations=1, acse_timeout_s=LONG_S)

    with ExitStack() as silent:
        for _ in range(8):
            silent.enter_context(socket.create_connection((LOOPBACK, listener.port), timeout=60))
        association = associate(listener.port, *CONTEXTS)
        began = time.monotonic()
        beyond = ask(listener.port, rq())
        took_s = time.monotonic() - began

        assert association.is_established
        assert beyond == LOCAL_LIMIT
        assert took_s < LONG_S
        association.release()


def threads_of(listener: Listener) -> int:
    return max(len(list(Path(f"/proc/{child}/task").iterdir())) for child in listener.children)


def test_who_never_speaks_makes_room_for_who_does(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener(acse_timeout_s=LONG_S, receiving_processes=2)
    before = threads_of(listener)

    with ExitStack() as silent:
        connections = [
            silent.enter_context(socket.create_connection((LOOPBACK, listener.port), timeout=60))
            for _ in range(3 * MOST_UNASSOCIATED)
        ]
        answer = ask(listener.port, rq())

        assert answer == ACCEPTED
        # Whichever process took more of them than it keeps.
        cut, _, _ = select.select(connections, [], [], 60)
        assert cut[0].recv(1) == b""
        wait_until(
            lambda: threads_of(listener) <= before + MOST_UNASSOCIATED + 8,
            what="threads to end",
        )


def test_a_request_has_to_be_there_in_time_byte_for_byte(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener(acse_timeout_s=0.6)
    ended = threading.Event()
    said = bytearray()

    began = time.monotonic()
    with socket.create_connection((LOOPBACK, listener.port), timeout=60) as connection:

        def dribble() -> None:
            for byte in rq():
                if ended.wait(0.05):
                    return
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
                said.append(byte)

        thread = threading.Thread(target=dribble)
        thread.start()
        with suppress(ConnectionResetError):
            assert connection.recv(1) in {b"", b"\x07"}
        took_s = time.monotonic() - began
        ended.set()
        thread.join()

    assert took_s > 0.5
    assert len(said) < len(rq())


def test_who_asks_while_the_process_drains_is_told_so(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener()

    with socket.create_connection((LOOPBACK, listener.port), timeout=60) as connection:
        wait_until(lambda: threads_of(listener) > 1, what="its thread")
        stopping = threading.Thread(target=listener.process.stop)
        stopping.start()
        wait_until(lambda: not accepts_connections(listener.port), what="the drain")
        connection.sendall(rq())
        answer = connection.recv(4096)

    stopping.join()
    assert (answer[0], tuple(answer[7:10])) == (3, CONGESTION)
    assert listener.process.returncode == 0
