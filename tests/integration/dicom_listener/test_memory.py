"""What the listener keeps in memory: nothing of associations that ended, nothing of instances."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from imaging_store.schema.ingest import instance
from tests.integration.dicom_listener.listener import Listener, a_slice, send, sendable
from tests.peak_memory import peak_bytes
from tests.peers.processes import wait_until
from tests.peers.raw_scu import RawAssociation

MEBIBYTE = 1024 * 1024
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
EXPLICIT = "1.2.840.10008.1.2.1"


def memory_bytes(listener: Listener) -> int:
    """Sum what each process of the listener has, pages that they share in proportion.

    Programs and libraries are left out: how much of them is ours depends on who else runs Python.
    """
    return _rollup_bytes(listener, "Pss_Anon:")


def kept_bytes(listener: Listener) -> int:
    """Sum what each process of the listener has, pages that they share once for each of them.

    So a page of before the fork does not look like growth when a process first writes to it.
    """
    return _rollup_bytes(listener, "Anonymous:")


def _rollup_bytes(listener: Listener, name: str) -> int:
    total = 0
    for process_id in (listener.process.pid, *listener.children):
        rollup = Path(f"/proc/{process_id}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith(name))
        total += int(line.split()[1]) * 1024
    return total


def most_bytes(listener: Listener) -> int:
    """Sum the most that each process of the listener has had."""
    return sum(map(peak_bytes, (listener.process.pid, *listener.children)))


def open_and_close(listener: Listener, times: int, *, aborted: bool = False) -> None:
    contexts = [(ENHANCED_CT, EXPLICIT), ("1.2.840.10008.1.1", "1.2.840.10008.1.2")]
    ended = listener.log.count("association.ended") + times
    for _ in range(times):
        association = RawAssociation(listener.port, contexts)
        if aborted:
            association.abort()
        else:
            association.release()
    wait_until(lambda: listener.log.count("association.ended") >= ended, what="their end")


@pytest.mark.slow
def test_a_thousand_associations_closed_and_a_thousand_aborted_leave_nothing(
    listener: Listener,
) -> None:
    open_and_close(listener, 100)
    open_and_close(listener, 100, aborted=True)
    before = memory_bytes(listener)

    open_and_close(listener, 1000)
    open_and_close(listener, 1000, aborted=True)

    assert memory_bytes(listener) - before < 5_000_000


def multi_frame(sop_instance_uid: str, size_bytes: int) -> Iterator[bytes]:
    """Give an enhanced multi-frame instance with as much pixel data, a mebibyte at a time."""
    ds = a_slice(
        SOPClassUID=ENHANCED_CT,
        SOPInstanceUID=sop_instance_uid,
        NumberOfFrames=max(1, size_bytes // (512 * 512 * 2)),
    )
    del ds.PixelData
    yield sendable(ds).data + struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", size_bytes)
    frame = bytes(range(256)) * (MEBIBYTE // 256)
    for start in range(0, size_bytes, MEBIBYTE):
        yield frame[: min(MEBIBYTE, size_bytes - start)]


@pytest.mark.parametrize(
    "size_mb",
    [
        pytest.param(300, marks=pytest.mark.slow),
        pytest.param(1500, marks=pytest.mark.soak),
    ],
)
def test_a_large_multi_frame_instance_is_not_held_in_memory(
    listener: Listener, size_mb: int
) -> None:
    send(listener.port, [sendable(a_slice())] * 2)
    uid = generate_uid()
    before = most_bytes(listener)

    with RawAssociation(listener.port, [(ENHANCED_CT, EXPLICIT)], timeout_s=120) as association:
        pieces = multi_frame(uid, size_mb * 1_000_000)
        status = association.store_pieces(ENHANCED_CT, EXPLICIT, uid, pieces)

    assert status == 0x0000
    rows = wait_until(
        lambda: [row for row in listener.rows(instance) if row.sop_instance_uid == uid],
        what="its row",
    )
    assert rows[0].size_bytes > size_mb * 1_000_000
    assert most_bytes(listener) - before < 64 * MEBIBYTE
