import errno
import mmap
import os
import platform
from collections.abc import Iterator
from ctypes import addressof, c_char
from pathlib import Path

import pytest

from imaging_store import kernel_io as module
from imaging_store.kernel_io import KernelIo
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


def test_another_machine_has_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "toaster")
    module._system_calls.cache_clear()

    with pytest.raises(OSError, match="not implemented"):
        KernelIo(4)
