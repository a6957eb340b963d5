import errno
import mmap
import os
import platform
from collections.abc import Iterator
from ctypes import CDLL, Structure, addressof, byref, c_char, c_uint64, set_errno
from pathlib import Path

import pytest

from imaging_store import kernel_io as module
from imaging_store.kernel_io import KernelIo, write_back
from tests.limits import files_no_larger_than

_PAGE_BYTES = 4096


@pytest.fixture
def kernel_io() -> Iterator[KernelIo]:
    kernel_io = KernelIo(4)
    yield kernel_io
    kernel_io.close()


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def memory() -> memoryview:
    return memoryview(mmap.mmap(-1, 4 * _PAGE_BYTES))


def address(memory: memoryview) -> int:
    return addressof(c_char.from_buffer(memory))


@pytest.mark.parametrize("flags", [0, os.O_DIRECT])
def test_what_is_written_meanwhile_is_where_it_belongs(
    kernel_io: KernelIo, tmp_path: Path, memory: memoryview, flags: int
) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | flags)
    memory[:] = data = os.urandom(len(memory))

    operations = [
        kernel_io.write(descriptor, address(memory[place:]), _PAGE_BYTES, place)
        for place in range(3 * _PAGE_BYTES, -1, -_PAGE_BYTES)
    ]

    assert [kernel_io.result(each) for each in reversed(operations)] == [_PAGE_BYTES] * 4
    assert (tmp_path / "file").read_bytes() == data
    os.close(descriptor)


def test_a_file_and_its_folder_are_synced(
    kernel_io: KernelIo, descriptor: int, tmp_path: Path
) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    operations = [kernel_io.sync(each) for each in (descriptor, folder)]

    assert [kernel_io.result(each) for each in operations] == [0, 0]
    os.close(folder)


def test_any_number_of_operations_may_come_one_after_another(
    kernel_io: KernelIo, descriptor: int, memory: memoryview
) -> None:
    for place in range(100):
        assert kernel_io.result(kernel_io.write(descriptor, address(memory), 1, place)) == 1


def test_what_cannot_begin_is_told_and_leaves_room_for_others(
    kernel_io: KernelIo, descriptor: int, memory: memoryview
) -> None:
    for _ in range(20):
        with pytest.raises(OSError, match="Bad file descriptor"):
            kernel_io.write(-1, address(memory), 1, 0)

    assert kernel_io.result(kernel_io.write(descriptor, address(memory), 1, 0)) == 1


def test_more_than_it_was_made_for_is_refused_until_one_has_ended(
    kernel_io: KernelIo, descriptor: int, memory: memoryview
) -> None:
    first, *_ = (kernel_io.write(descriptor, address(memory), 1, place) for place in range(4))

    with pytest.raises(BlockingIOError):
        kernel_io.sync(descriptor)

    assert kernel_io.result(first) == 1
    assert kernel_io.result(kernel_io.sync(descriptor)) == 0


def test_what_fails_is_told_when_it_has(
    kernel_io: KernelIo, descriptor: int, memory: memoryview
) -> None:
    with files_no_larger_than(_PAGE_BYTES):
        operation = kernel_io.write(descriptor, address(memory), 1, _PAGE_BYTES)
        assert kernel_io.result(operation) == -errno.EFBIG


class CacheState(Structure):
    """``struct cachestat`` of linux/mman.h, in pages."""

    _fields_ = tuple(
        (name, c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recent")
    )


def pages_to_be_written(descriptor: int) -> int:
    """Ask cachestat(2) of Linux 6.5."""
    whole, state = (c_uint64 * 2)(0, 0), CacheState()
    if CDLL(None).syscall(451, descriptor, byref(whole), byref(state), 0):
        pytest.skip("this kernel, or this sandbox, has no cachestat(2)")
    count: int = state.dirty
    return count


needs_write_back = pytest.mark.skipif(
    module._write_back_call() is None, reason="this system, or its sandbox, has no such call"
)


@needs_write_back
def test_what_the_page_cache_has_begins_to_be_written(descriptor: int) -> None:
    os.write(descriptor, bytes(3 * mmap.PAGESIZE))
    if not pages_to_be_written(descriptor):
        pytest.skip("this file system writes nothing back, or in a way that cannot be seen")

    write_back(descriptor, mmap.PAGESIZE, 2 * mmap.PAGESIZE)

    assert pages_to_be_written(descriptor) <= 1


@needs_write_back
def test_what_cannot_be_written_back_is_told() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_back(-1, 0, 1)


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EAGAIN])
def test_what_syncing_tries_again_is_no_failure_of_writing_back(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(*_: object) -> int:
        set_errno(code)
        return -1

    monkeypatch.setattr(module, "_write_back_call", lambda: refused)

    write_back(-1, 0, 1)


def test_where_there_is_no_such_call_nothing_is_written_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_write_back_call", lambda: None)

    write_back(-1, 0, 1)


def test_another_machine_has_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "toaster")
    module._system_calls.cache_clear()

    with pytest.raises(OSError, match="not implemented"):
        KernelIo(4)
