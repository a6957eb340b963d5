"""A file system that is full, with the database on it too: A700, and 0000 once there is room."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from imaging_store.schema.ingest import instance
from tests.integration.dicom_listener.listener import (
    Listener,
    Sendable,
    a_slice,
    associate,
    send,
    sendable,
    store,
)
from tests.integration.dicom_listener.small_disk import MEBIBYTE, SmallDisk, mounted
from tests.integration.dicom_listener.test_keeping import end_case, files
from tests.peers.processes import wait_until

OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted(tmp_path / "disk", size_mib=64) as mount:
        yield mount


@pytest.fixture
def start_on_disk(disk: SmallDisk, sqlite_template: Path) -> Iterator[Callable[..., Listener]]:
    """Start a listener all of whose data, its database too, lie on the small disk."""
    database = disk.folder / "countersign.sqlite3"
    shutil.copyfile(sqlite_template, database)
    with ExitStack() as listeners:
        yield lambda **settings: listeners.enter_context(
            Listener(disk.folder / "data", f"sqlite:///{database}", **settings)
        )


def large(size_bytes: int, **changes: object) -> Sendable:
    return sendable(a_slice(PixelData=bytes(size_bytes), **changes))


def assert_all_that_is_there_is_indexed(listener: Listener) -> None:
    """Nothing half-written is left, and no row claims what is not there."""
    assert listener.unfinished() == []
    kept = {Path(row.key).name for row in listener.rows(instance) if row.purged_at is None}
    assert kept == set(files(listener))


def test_a_disk_filled_to_the_brim_is_out_of_resources_until_there_is_room(
    disk: SmallDisk, start_on_disk: Callable[..., Listener]
) -> None:
    listener = start_on_disk(store_reserve_mib=4)
    sent = [sendable(a_slice()) for _ in range(3)]
    association = associate(listener.port, (sent[0].sop_class_uid, sent[0].transfer_syntax_uid))
    assert store(association, sent[0]).Status == 0x0000
    wait_until(lambda: listener.rows(instance), what="its row")

    disk.fill()
    refused = store(association, sent[1])
    assert refused.Status == OUT_OF_RESOURCES
    assert refused.ErrorComment.startswith("No room")
    assert_all_that_is_there_is_indexed(listener)

    disk.make_room()
    assert store(association, sent[1]).Status == 0x0000
    association.release()
    assert send(listener.port, [sent[2]]) == [0x0000]
    assert len(listener.rows(instance)) == 3
    assert_all_that_is_there_is_indexed(listener)


def test_an_instance_that_fills_the_disk_leaves_nothing(
    disk: SmallDisk, start_on_disk: Callable[..., Listener]
) -> None:
    listener = start_on_disk(store_reserve_mib=0)
    assert send(listener.port, [sendable(a_slice())]) == [0x0000]
    disk.fill(leave_bytes=8 * MEBIBYTE)

    too_large, fits = large(16 * MEBIBYTE), large(MEBIBYTE)

    assert send(listener.port, [too_large, fits]) == [OUT_OF_RESOURCES, 0x0000]
    assert len(listener.rows(instance)) == 2
    assert_all_that_is_there_is_indexed(listener)


def test_where_not_even_the_index_has_room_nothing_is_promised(
    disk: SmallDisk, start_on_disk: Callable[..., Listener]
) -> None:
    listener = start_on_disk(store_reserve_mib=0)
    assert send(listener.port, [sendable(a_slice())]) == [0x0000]
    disk.fill()

    statuses = send(listener.port, [sendable(a_slice())])

    assert statuses == [OUT_OF_RESOURCES]
    disk.make_room()
    assert send(listener.port, [sendable(a_slice())]) == [0x0000]
    assert len(listener.rows(instance)) == 2
    assert_all_that_is_there_is_indexed(listener)


def test_the_purge_makes_room_by_itself(
    disk: SmallDisk, start_on_disk: Callable[..., Listener]
) -> None:
    listener = start_on_disk(store_reserve_mib=8, store_watermark_mib=16)
    uid = generate_uid()
    ended = [large(4 * MEBIBYTE, StudyInstanceUID=uid) for _ in range(8)]
    assert send(listener.port, ended) == [0x0000] * 8
    end_case(listener, uid)
    late = large(MEBIBYTE)
    *_, purging = listener.children

    os.kill(purging, signal.SIGSTOP)
    try:
        disk.fill()
        statuses = send(listener.port, [late])
    finally:
        os.kill(purging, signal.SIGCONT)

    assert statuses == [OUT_OF_RESOURCES]
    wait_until(lambda: send(listener.port, [late]) == [0x0000], what="room for an instance")
    assert {row.sop_instance_uid for row in listener.rows(instance) if not row.purged_at} == {
        late.sop_instance_uid
    }
    assert_all_that_is_there_is_indexed(listener)
