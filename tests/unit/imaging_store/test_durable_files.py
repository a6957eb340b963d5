"""Bytes and names become durable together, or there is neither."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import xxhash

from imaging_store import block_writing, durable_files
from imaging_store.block_writing import BLOCK_BYTES
from imaging_store.instances import FileInstanceStore, FileSink, Kept, StorageFull
from imaging_store.kernel_io import KernelIo


@pytest.fixture
def store(tmp_path: Path) -> FileInstanceStore:
    return FileInstanceStore(tmp_path / "store")


def incoming(store: FileInstanceStore) -> list[Path]:
    return list((store.root / "incoming").iterdir())


@pytest.fixture(params=["meanwhile", "at once"])
def _kernel_io(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel write and sync meanwhile, and at once."""
    if request.param == "at once":
        monkeypatch.setattr(block_writing.Ring, "kernel_io", None)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the inodes that are synced."""
    synced: list[int] = []
    fsync, sync = os.fsync, KernelIo.sync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    def noted_too(kernel_io: KernelIo, descriptor: int) -> int:
        synced.append(os.fstat(descriptor).st_ino)
        return sync(kernel_io, descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(KernelIo, "sync", noted_too)
    return synced


def inode(path: Path) -> int:
    return path.stat().st_ino


@pytest.mark.usefixtures("_kernel_io")
@pytest.mark.parametrize("size_bytes", [8, 3 * BLOCK_BYTES + 7])
def test_file_and_directory_are_synced_before_the_commit_returns(
    store: FileInstanceStore, synced: list[int], size_bytes: int
) -> None:
    data = os.urandom(size_bytes)
    sink = store.open_write()
    sink.write(data)

    sink.commit("instances/study/one.dcm")

    folder = store.root / "instances"
    assert synced[:2] == [inode(store.root), inode(folder)]
    assert set(synced[2:]) == {inode(folder / "study"), inode(folder / "study/one.dcm")}
    assert store.read("instances/study/one.dcm") == data


@pytest.mark.usefixtures("_kernel_io")
def test_who_keeps_the_same_waits_until_it_is_durable_and_makes_it_so_again(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch, synced: list[int]
) -> None:
    noted = os.fsync
    second = store.open_write(b"longer preamble")
    second.write(b"data set")
    kept: list[Kept] = []
    committing = threading.Thread(target=lambda: kept.append(second.commit("a/b")))
    was_kept: list[bool] = []

    def fsync(descriptor: int) -> None:
        noted(descriptor)
        if os.fstat(descriptor).st_nlink == 1 and not committing.ident:
            # The name is there, and the bytes may not be.
            assert store.exists("a/b")
            committing.start()
            committing.join(0.2)
            was_kept.append(bool(kept))

    with store.open_write(b"preamble") as first:
        first.write(b"data set")
        monkeypatch.setattr(os, "fsync", fsync)
        first.commit("a/b")
    committing.join()

    assert was_kept == [False]
    assert (first.was_there, second.was_there) == (False, True)
    assert store.read("a/b") == b"preambledata set"
    assert synced.count(inode(store.path("a/b"))) == 2


@pytest.mark.usefixtures("_kernel_io")
@pytest.mark.parametrize("fails", ["file", "folder"])
@pytest.mark.parametrize("begins", ["unnamed", "named"])
def test_what_cannot_be_made_durable_has_no_name(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch, fails: str, begins: str
) -> None:
    if begins == "named":
        monkeypatch.setattr(durable_files, "_open_unnamed", lambda _folder: -1)
    store.put_artifact("a/other", b"other")
    fsync, sync, result = os.fsync, KernelIo.sync, KernelIo.result
    syncing: list[int] = []

    def failing(descriptor: int) -> None:
        if fails == ("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file"):
            raise OSError(errno.EIO, "it fails")
        fsync(descriptor)

    def begun(kernel_io: KernelIo, descriptor: int) -> int:
        syncing.append(operation := sync(kernel_io, descriptor))
        return operation

    def failed(kernel_io: KernelIo, operation: int) -> int:
        code = result(kernel_io, operation)
        return -errno.EIO if fails == "folder" and operation in syncing else code

    monkeypatch.setattr(os, "fsync", failing)
    monkeypatch.setattr(KernelIo, "sync", begun)
    monkeypatch.setattr(KernelIo, "result", failed)
    sink = store.open_write()
    sink.write(b"data")

    with pytest.raises(OSError, match=r"it fails|Input/output error"):
        sink.commit("a/b")

    assert not store.exists("a/b")
    assert incoming(store) == []
    monkeypatch.undo()
    sink = store.open_write()
    sink.write(b"data")
    sink.commit("a/b")
    assert store.read("a/b") == b"data"


@pytest.mark.usefixtures("_kernel_io")
def test_who_waited_for_what_has_then_gone_does_not_rely_on_what_has_its_name_since(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch, synced: list[int]
) -> None:
    store.put_artifact("a/b", b"data")
    sink = store.open_write()
    sink.write(b"data")
    flock = fcntl.flock
    others: list[Path] = []

    def passed_by(descriptor: int, how: int) -> None:
        flock(descriptor, how)
        if how == fcntl.LOCK_SH and not others:
            # Somebody else's, which may not be durable yet.
            others.append(store.path("a/other"))
            others[0].write_bytes(b"data")
            others[0].rename(store.path("a/b"))

    monkeypatch.setattr(fcntl, "flock", passed_by)

    sink.commit("a/b")

    assert others
    assert sink.was_there
    assert inode(store.path("a/b")) in synced


def test_a_name_that_was_got_although_that_was_not_heard_is_its_own(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch, synced: list[int]
) -> None:
    link = os.link

    def linked(*of: str, **how: Any) -> None:
        link(*of, **how)
        # As NFS tells it who asks again, because no answer came.
        raise FileExistsError(errno.EEXIST, "it is there")

    monkeypatch.setattr(os, "link", linked)
    sink = store.open_write()
    sink.write(b"data")

    sink.commit("a/b")

    assert not sink.was_there
    assert {inode(store.path("a/b")), inode(store.path("a"))} <= set(synced)


@pytest.mark.parametrize("size_bytes", [2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 5])
def test_no_room_that_is_told_once_it_has_its_name_is_storage_full_and_takes_the_name(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    pwrite, result = os.pwrite, KernelIo.result
    was_seen: list[bool] = []

    def failed(kernel_io: KernelIo, operation: int) -> int:
        result(kernel_io, operation)
        return -errno.ENOSPC

    def write(descriptor: int, data: memoryview, offset: int) -> int:
        if len(data) < BLOCK_BYTES:
            return pwrite(descriptor, data, offset)
        was_seen.append(store.exists("a/b"))
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(KernelIo, "result", failed)
    monkeypatch.setattr(os, "pwrite", write)
    sink = store.open_write()
    sink.write(bytes(size_bytes))

    with pytest.raises(StorageFull):
        sink.commit("a/b")

    assert was_seen == [True]
    assert not store.exists("a/b")
    assert incoming(store) == []


@pytest.mark.parametrize(
    "ends", [FileSink.flush_to, FileSink.sync, partial(FileSink.commit, key="a/b")]
)
def test_no_room_that_is_told_by_writing_back_is_storage_full(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch, ends: Callable[[FileSink], object]
) -> None:
    def failed(_descriptor: int, _offset: int, _size_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(block_writing, "write_back", failed)

    with store.open_write() as sink:
        sink.write(b"data")
        with pytest.raises(StorageFull):
            ends(sink)

    assert not store.exists("a/b")
    assert incoming(store) == []


def test_what_has_a_name_is_durable_once_its_writer_has_made_it_so(
    store: FileInstanceStore, synced: list[int]
) -> None:
    store.put_artifact("a/b", b"data")
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(store.is_durable("a/b")))
    synced.clear()

    with store.open("a/b") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        asking.start()
        asking.join(0.1)
        assert answers == []
    asking.join()

    assert answers == [True]
    assert synced == [inode(store.path("a/b")), inode(store.path("a"))]
    assert not store.is_durable("a/c")


@pytest.mark.usefixtures("_kernel_io")
def test_what_takes_the_name_of_what_has_just_been_removed_is_synced(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch, synced: list[int]
) -> None:
    store.put_artifact("a/b", b"data")
    flock = fcntl.flock

    def removed(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_SH:
            store.path("a/b").unlink()
        flock(descriptor, how)

    sink = store.open_write()
    sink.write(b"data")
    monkeypatch.setattr(fcntl, "flock", removed)
    synced.clear()

    sink.commit("a/b")

    assert {inode(store.path("a/b")), inode(store.path("a"))} <= set(synced)


def test_what_was_made_durable_before_is_committed_too(store: FileInstanceStore) -> None:
    data = os.urandom(2 * BLOCK_BYTES + 5)
    sink = store.open_write(b"preamble")
    sink.write(data)

    sink.sync()
    kept = sink.commit("a/b")

    assert store.read("a/b") == b"preamble" + data
    assert kept == Kept("a/b", len(data), xxhash.xxh3_128_hexdigest(data))
