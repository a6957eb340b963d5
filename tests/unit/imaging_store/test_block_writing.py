import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from imaging_store import block_writing
from imaging_store.block_writing import BLOCK_BYTES, Blocks, BlockWriter, Ring
from imaging_store.kernel_io import KernelIo
from tests.limits import files_no_larger_than

SIZES = st.one_of(
    st.integers(0, 200),
    st.integers(-5000, 5000).map(lambda more: BLOCK_BYTES + more),
    st.integers(0, 6 * BLOCK_BYTES),
)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def some_bytes(size_bytes: int, start: int) -> bytes:
    return bytes((start + place) % 251 for place in range(size_bytes % 1024)).ljust(
        size_bytes, b"%d" % (start % 10)
    )


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, 30 * BLOCK_BYTES, 0)


class WrittenAtOnce(Blocks):
    """Blocks of a system whose kernel writes nothing meanwhile."""

    @override
    def lend(self) -> Ring:
        ring = super().lend()
        ring._may_have_kernel_io = False
        return ring


@pytest.fixture(params=[Blocks, WrittenAtOnce], scope="module")
def blocks(request: pytest.FixtureRequest) -> Blocks:
    """Give blocks that the kernel writes meanwhile, and such that are written at once."""
    lending: Blocks = request.param()
    return lending


@given(
    sizes=st.lists(SIZES, max_size=4),
    flushed_after=st.integers(0, 5),
    before=st.sampled_from([b"", b"start", bytes(BLOCK_BYTES - 1)]),
)
def test_any_pieces_come_whole_and_in_order_and_are_counted(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: Blocks,
    sizes: list[int],
    flushed_after: int,
    before: bytes,
) -> None:
    pieces = [some_bytes(size, start) for start, size in enumerate(sizes)]
    descriptor = os.open(tmp_path_factory.mktemp("blocks") / "file", os.O_RDWR | os.O_CREAT)
    digest = xxhash.xxh3_128()
    writer = BlockWriter(descriptor, blocks, before, digest)

    for number, piece in enumerate(pieces):
        writer.write(memoryview(piece), b"")
        assert writer.size_bytes == sum(sizes[: number + 1])
        if number == flushed_after:
            writer.flush()
            assert content(descriptor) == before + b"".join(pieces[: number + 1])
    writer.flush()
    writer.give_back()

    assert content(descriptor) == before + b"".join(pieces)
    assert writer.size_bytes == sum(sizes)
    assert digest.digest() == xxhash.xxh3_128_digest(b"".join(pieces))
    os.close(descriptor)


@given(sizes=st.lists(SIZES, max_size=4), copied=st.sets(st.integers(0, 3)))
def test_what_is_put_where_there_is_room_comes_in_order_with_what_is_written(
    tmp_path_factory: pytest.TempPathFactory, blocks: Blocks, sizes: list[int], copied: set[int]
) -> None:
    pieces = [some_bytes(size, start) for start, size in enumerate(sizes)]
    descriptor = os.open(tmp_path_factory.mktemp("blocks") / "file", os.O_RDWR | os.O_CREAT)
    writer = BlockWriter(descriptor, blocks)

    for number, piece in enumerate(pieces):
        if number in copied:
            writer.write(piece)
            continue
        put = 0
        while put < len(piece):
            room = writer.room()
            part = piece[put : put + len(room)]
            room[: len(part)] = part
            writer.took(len(part))
            put += len(part)
    writer.flush()
    writer.give_back()

    assert content(descriptor) == b"".join(pieces)
    os.close(descriptor)


def test_a_piece_may_be_reused_once_it_was_taken(descriptor: int) -> None:
    writer = BlockWriter(descriptor, Blocks())
    piece = bytearray(b"one")

    writer.write(piece)
    piece[:] = b"two"
    writer.write(piece)
    writer.flush()

    assert content(descriptor) == b"onetwo"


def test_blocks_are_lent_to_one_file_at_a_time(tmp_path: Path) -> None:
    blocks = Blocks()
    descriptors = [os.open(tmp_path / f"{n}", os.O_RDWR | os.O_CREAT) for n in range(4)]
    contents = [some_bytes(2 * BLOCK_BYTES + 5, start) for start in range(4)]
    first, second = (BlockWriter(descriptor, blocks) for descriptor in descriptors[:2])

    first.write(contents[0])
    second.write(contents[1])
    first.flush()
    first.give_back()
    first.give_back()
    third, fourth = (BlockWriter(descriptor, blocks) for descriptor in descriptors[2:])
    third.write(contents[2])
    fourth.write(contents[3])
    for writer in (second, third, fourth):
        writer.flush()

    assert [content(descriptor) for descriptor in descriptors] == contents
    for descriptor in descriptors:
        os.close(descriptor)


def test_what_the_kernel_still_reads_is_not_given_back(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = Blocks()
    done: list[str] = []
    result, take_back = KernelIo.result, Blocks.take_back

    def ended(kernel_io: KernelIo, operation: int) -> int:
        done.append("ended")
        return result(kernel_io, operation)

    def taken_back(blocks: Blocks, ring: Ring) -> None:
        done.append("taken back")
        take_back(blocks, ring)

    monkeypatch.setattr(KernelIo, "result", ended)
    monkeypatch.setattr(Blocks, "take_back", taken_back)
    writer = BlockWriter(descriptor, blocks)
    writer.write(bytes(2 * BLOCK_BYTES))

    writer.give_back()

    assert done == ["ended", "ended", "taken back"]


def test_a_process_that_was_forked_writes_with_blocks_of_its_own(tmp_path: Path) -> None:
    blocks = Blocks()
    data = some_bytes(3 * BLOCK_BYTES, 1)

    def write(name: str) -> None:
        descriptor = os.open(tmp_path / name, os.O_RDWR | os.O_CREAT)
        writer = BlockWriter(descriptor, blocks)
        writer.write(data)
        writer.flush()
        writer.give_back()
        os.close(descriptor)

    write("parent")
    process_id = os.fork()
    if not process_id:
        is_its_own = False
        try:
            write("child")
            # Of what was its parent's the kernel would refuse to do anything.
            kernel_io = blocks.lend().kernel_io
            folder = os.open(tmp_path, os.O_RDONLY)
            is_its_own = kernel_io is not None and kernel_io.sync(folder) >= 0
        finally:
            os._exit(0 if is_its_own else 1)
    _, status = os.waitpid(process_id, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert (tmp_path / "child").read_bytes() == (tmp_path / "parent").read_bytes() == data


@pytest.mark.parametrize("written", [-errno.EINVAL, -errno.EIO, 0, 4096, 100_000])
def test_what_the_kernel_did_not_write_meanwhile_is_written_then(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    result = KernelIo.result

    def told(kernel_io: KernelIo, operation: int) -> int:
        assert result(kernel_io, operation) == BLOCK_BYTES
        os.pwrite(descriptor, bytes(BLOCK_BYTES), 0)
        os.pwrite(descriptor, data[: max(0, written)], 0)
        return written

    monkeypatch.setattr(KernelIo, "result", told)
    data = some_bytes(BLOCK_BYTES, 1)
    blocks = Blocks()
    writer = BlockWriter(descriptor, blocks)

    writer.write(data)
    writer.flush()

    assert content(descriptor) == data
    assert blocks.may_be_direct == (written != -errno.EINVAL)


@pytest.mark.parametrize("refuses", ["flag", "writing"])
def test_a_file_system_without_direct_writing_is_written_to_all_the_same(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    state = {"flags": 0, "asked": 0}

    def set_flags(_descriptor: int, command: int, flags: int) -> int:
        assert command == fcntl.F_SETFL
        state["asked"] += bool(flags)
        if refuses == "flag" and flags:
            raise OSError(errno.EINVAL, "no such flag")
        state["flags"] = flags
        return 0

    write = os.pwrite

    def write_some(descriptor: int, data: memoryview, offset: int) -> int:
        if state["flags"]:
            raise OSError(errno.EINVAL, "not aligned")
        return write(descriptor, data, offset)

    monkeypatch.setattr(fcntl, "fcntl", set_flags)
    monkeypatch.setattr(os, "pwrite", write_some)
    blocks = WrittenAtOnce()
    data = some_bytes(2 * BLOCK_BYTES + 5, 1)
    for _ in range(2):
        os.ftruncate(descriptor, 0)
        writer = BlockWriter(descriptor, blocks)
        writer.write(data)
        writer.flush()
        writer.give_back()
        assert content(descriptor) == data

    assert state["asked"] == 1
    assert not blocks.may_be_direct


@pytest.mark.parametrize("at_most", [1000, 4096, 100_000])
def test_what_the_kernel_takes_in_parts_is_written_whole(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, at_most: int
) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda to, data, at: write(to, data[:at_most], at))
    data = some_bytes(BLOCK_BYTES + 70_001, 3)

    writer = BlockWriter(descriptor, WrittenAtOnce())
    writer.write(data)
    writer.flush()

    assert content(descriptor) == data


@pytest.mark.parametrize("size_bytes", [3, BLOCK_BYTES])
def test_no_room_is_told(descriptor: int, monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    def write(_descriptor: int, _data: memoryview, _offset: int) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "pwrite", write)
    writer = BlockWriter(descriptor, WrittenAtOnce())

    with pytest.raises(OSError, match="no room"):  # noqa: PT012 - whichever of the two writes
        writer.write(bytes(size_bytes))
        writer.flush()


def test_a_file_that_may_not_grow_is_told(blocks: Blocks, descriptor: int) -> None:
    writer = BlockWriter(descriptor, blocks)

    with files_no_larger_than(2 * BLOCK_BYTES), pytest.raises(OSError, match="too large"):  # noqa: PT012 - whichever of the two writes
        writer.write(bytes(3 * BLOCK_BYTES))
        writer.flush()
    writer.give_back()


@pytest.mark.parametrize(
    ("size_bytes", "begun"),
    [
        (0, []),
        (5, [(0, 5)]),
        (BLOCK_BYTES, []),
        (BLOCK_BYTES + 5, [(BLOCK_BYTES, 5)]),
    ],
)
def test_the_disk_begins_with_what_is_no_whole_block_before_the_file_is_synced(
    descriptor: int,
    monkeypatch: pytest.MonkeyPatch,
    size_bytes: int,
    begun: list[tuple[int, int]],
) -> None:
    found: list[tuple[int, ...]] = []
    monkeypatch.setattr(block_writing, "write_back", lambda *given: found.append(given))
    writer = BlockWriter(descriptor, Blocks())

    writer.write(bytes(size_bytes))
    writer.flush()
    writer.give_back()

    assert found == [(descriptor, *part) for part in begun]
