"""Full disks, killed processes, senders that break off: nothing answered is lost or left half."""

import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pynetdicom.pdu import A_ASSOCIATE_RQ

from imaging_store.schema.ingest import instance
from tests.integration.dicom_listener.listener import (
    CT,
    Listener,
    Sendable,
    a_slice,
    associate,
    send,
    sendable,
    store,
)
from tests.peers.processes import (
    LOOPBACK,
    accepts_connections,
    is_alive,
    wait_until,
)
from tests.peers.raw_scu import p_data_tf

# pynetdicom as requestor leaves its socket open when the peer resets it
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

EXPLICIT = "1.2.840.10008.1.2.1"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def large_slice(size_bytes: int) -> Sendable:
    ds = a_slice()
    ds.PixelData = os.urandom(size_bytes)
    return sendable(ds)


def cpu_s(process_ids: list[int]) -> float:
    total = 0
    for process_id in process_ids:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def test_the_reserve_is_out_of_resources(start_listener: Callable[..., Listener]) -> None:
    listener = start_listener(store_reserve_mib=2**30)
    association = associate(listener.port, (CT, EXPLICIT))

    response = store(association, sendable(a_slice()))
    association.release()

    assert response.Status == 0xA700
    assert response.ErrorComment.startswith("No room to store")
    assert listener.unfinished() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs can be mounted only by root, outside most containers")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_out_of_resources_until_room_is_made(
    start_listener: Callable[..., Listener], small_disk: Path
) -> None:
    listener = start_listener(store_url=f"file:{small_disk}/store")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2 * 1024 * 1024))
    sent = large_slice(3 * 1024 * 1024)

    statuses = send(listener.port, [sent, sent])
    files = [path for path in (small_disk / "store").rglob("*") if path.is_file()]
    left = [path for path in files if path.suffix != ".lock"]
    filler.unlink()
    after = send(listener.port, [sent])

    assert statuses == [0xA700, 0xA700]
    assert left == []
    assert after == [0x0000]


def test_the_children_leave_with_their_parent(listener: Listener) -> None:
    children = listener.children

    os.kill(listener.process.pid, 9)

    assert len(children) == 4
    for child in children:
        wait_until(lambda child=child: not is_alive(child), what="the end of a child")


def test_sigterm_ends_idle_associations_and_the_process(listener: Listener) -> None:
    association = associate(listener.port, (CT, EXPLICIT))
    assert association.is_established

    exit_code = listener.process.stop()

    assert exit_code == 0
    assert "process.killed" not in listener.log
    wait_until(lambda: association.is_aborted, what="A-ABORT")
    assert "listener.stopped" in listener.log


def command_set(command_field: int, sent: Sendable) -> bytes:
    """Encode a request that a data set follows."""
    return b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in (
            (0x0002, sent.sop_class_uid.encode() + b"\0"),
            (0x0100, struct.pack("<H", command_field)),
            (0x0110, b"\1\0"),
            (0x0800, b"\0\0"),
            (0x1000, sent.sop_instance_uid.encode() + b"\0" * (len(sent.sop_instance_uid) % 2)),
        )
    )


def begin_store(listener: Listener, sent: Sendable, share: float) -> socket.socket:
    """Send the beginning of a C-STORE and leave the rest."""
    association = associate(listener.port, (CT, EXPLICIT))
    connection = association.dul.socket.socket
    assert connection is not None
    context_id = association.accepted_contexts[0].context_id
    for control, value, part in ((3, command_set(0x0001, sent), 1.0), (2, sent.data, share)):
        pdu = p_data_tf(context_id, control, value)
        connection.sendall(pdu[: int(len(pdu) * part)])
    return connection


@pytest.mark.parametrize("share", [0.5, 0.0], ids=["within a PDU", "between two PDUs"])
def test_an_instance_on_its_way_is_answered_before_the_end(
    listener: Listener, share: float
) -> None:
    sent = large_slice(200_000)
    connection = begin_store(listener, sent, share)
    wait_until(listener.unfinished, what="a file that grows")
    stopping = threading.Thread(target=listener.process.stop)
    stopping.start()
    wait_until(lambda: not accepts_connections(listener.port), what="no new associations")

    rest = p_data_tf(1, 2, sent.data)
    connection.sendall(rest[int(len(rest) * share) :])

    stopping.join()
    [row] = listener.rows(instance)
    assert listener.store.read(row.key).endswith(sent.data)
    assert listener.process.returncode == 0
    assert '"reason": "draining"' in listener.log
    assert "process.killed" not in listener.log


def test_a_sender_that_breaks_off_leaves_nothing(listener: Listener) -> None:
    connection = begin_store(listener, large_slice(200_000), 0.5)
    wait_until(listener.unfinished, what="a file that grows")

    connection.shutdown(socket.SHUT_RDWR)

    wait_until(lambda: not listener.unfinished(), what="no unfinished file")
    assert listener.rows(instance) == []
    assert send(listener.port, [sendable(a_slice())]) == [0x0000]


@pytest.mark.parametrize("share", [0.5, 0.0], ids=["within a PDU", "between two PDUs"])
def test_a_sender_that_falls_silent_is_cut_off(
    start_listener: Callable[..., Listener], share: float
) -> None:
    listener = start_listener(dimse_timeout_s=0.5)
    before = listener.log.count("association.ended")
    begin_store(listener, large_slice(200_000), share)

    wait_until(lambda: listener.log.count("association.ended") > before, what="the end")
    wait_until(lambda: not listener.unfinished(), what="no unfinished file")
    assert listener.rows(instance) == []


def test_a_data_set_without_end_for_another_service_is_not_held(listener: Listener) -> None:
    association = associate(listener.port, (CT, EXPLICIT))
    connection = association.dul.socket.socket
    context_id = association.accepted_contexts[0].context_id
    c_find_rq = command_set(0x0020, sendable(a_slice()))

    connection.sendall(p_data_tf(context_id, 3, c_find_rq))
    connection.sendall(p_data_tf(context_id, 0, bytes(100_000)))

    wait_until(lambda: association.is_aborted, what="A-ABORT")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x04\x00\xff\xff\xff\xff" + b"x" * 100,
        b"\x01\x00\xff\xff\xff\xff",
        b"\x09" * 10_000,
        b"\x01\x00\x00\x00\x00\x44" + b"\0" * 68,
    ],
)
def test_what_is_not_dicom_is_sent_away(listener: Listener, data: bytes) -> None:
    who = f'"peer": "{LOOPBACK}"'
    before = listener.log.count(who)

    with socket.create_connection((LOOPBACK, listener.port), timeout=60) as connection:
        connection.sendall(data)

        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    wait_until(lambda: listener.log.count(who) > before, what="who it was")
    assert send(listener.port, [sendable(a_slice())]) == [0x0000]


def test_ae_titles_padded_with_nul_are_understood(listener: Listener) -> None:
    association = associate(listener.port, (CT, EXPLICIT))
    request = bytearray(A_ASSOCIATE_RQ(association.requestor.primitive).encode())
    association.release()
    request[10:42] = b"COUNTERSIGN".ljust(16, b"\0") + b"OLD_CR".ljust(16, b"\0")

    with socket.create_connection((LOOPBACK, listener.port), timeout=60) as connection:
        connection.sendall(request)
        answer = connection.recv(1)

    assert answer == b"\x02"
    wait_until(lambda: '"calling_ae_title": "OLD_CR"' in listener.log, what="its AE title")


def test_a_connection_that_never_speaks_is_closed(start_listener: Callable[..., Listener]) -> None:
    listener = start_listener(acse_timeout_s=0.3)

    with socket.create_connection((LOOPBACK, listener.port), timeout=60) as connection:
        assert connection.recv(100) == b""


def test_an_association_that_asks_for_nothing_is_aborted(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener(association_idle_timeout_s=0.3)

    association = associate(listener.port, (CT, EXPLICIT))

    wait_until(lambda: association.is_aborted, what="A-ABORT")


@pytest.mark.slow
def test_16_idle_associations_cost_next_to_nothing(listener: Listener) -> None:
    idle = [socket.create_connection((LOOPBACK, listener.port)) for _ in range(16)]
    association = associate(listener.port, (CT, EXPLICIT))
    request = A_ASSOCIATE_RQ(association.requestor.primitive)
    association.release()
    for connection in idle:
        connection.sendall(request.encode())
        assert connection.recv(1) == b"\x02"
    shares: list[float] = []

    def cost_next_to_nothing() -> bool:
        # Once what the start had to do is done.
        before, began = cpu_s(listener.children), time.monotonic()
        threading.Event().wait(2)
        shares.append((cpu_s(listener.children) - before) / (time.monotonic() - began))
        return shares[-1] < 0.02

    wait_until(cost_next_to_nothing, what=f"less than 2 % of a core, not {shares}")
    for connection in idle:
        connection.close()
