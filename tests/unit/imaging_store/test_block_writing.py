import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from imaging_store.block_writing import BLOCK_BYTES, Blocks, BlockWriter

SIZES = st.one_of(
    st.integers(0, 200),
    st.integers(-5000, 5000).map(lambda more: BLOCK_BYTES + more),
    st.integers(0, 3 * BLOCK_BYTES),
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
    return os.pread(descriptor, 10 * BLOCK_BYTES, 0)


@given(
    sizes=st.lists(SIZES, max_size=4),
    flushed_after=st.integers(0, 5),
    before=st.sampled_from([b"", b"start", bytes(BLOCK_BYTES - 1)]),
)
def test_any_pieces_come_whole_and_in_order_and_are_counted(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], flushed_after: int, before: bytes
) -> None:
    pieces = [some_bytes(size, start) for start, size in enumerate(sizes)]
    descriptor = os.open(tmp_path_factory.mktemp("blocks") / "file", os.O_RDWR | os.O_CREAT)
    digest = xxhash.xxh3_128()
    writer = BlockWriter(descriptor, Blocks(), before, digest)

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
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], copied: set[int]
) -> None:
    pieces = [some_bytes(size, start) for start, size in enumerate(sizes)]
    descriptor = os.open(tmp_path_factory.mktemp("blocks") / "file", os.O_RDWR | os.O_CREAT)
    writer = BlockWriter(descriptor, Blocks())

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


def test_a_block_is_lent_to_one_file_at_a_time(descriptor: int) -> None:
    blocks = Blocks()
    first, second = BlockWriter(descriptor, blocks), BlockWriter(descriptor, blocks)

    first.write(b"first")
    second.write(b"second")
    first.flush()
    first.give_back()
    first.give_back()
    third, fourth = BlockWriter(descriptor, blocks), BlockWriter(descriptor, blocks)
    third.write(b"third")
    fourth.write(b"fourth")
    for writer in (second, third, fourth):
        writer.flush()

    assert content(descriptor) == b"firstsecondthirdfourth"


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

    write = os.write

    def write_some(descriptor: int, data: memoryview) -> int:
        if state["flags"]:
            raise OSError(errno.EINVAL, "not aligned")
        return write(descriptor, data)

    monkeypatch.setattr(fcntl, "fcntl", set_flags)
    monkeypatch.setattr(os, "write", write_some)
    blocks = Blocks()
    data = some_bytes(2 * BLOCK_BYTES + 5, 1)
    for _ in range(2):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
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
    write = os.write
    monkeypatch.setattr(os, "write", lambda target, data: write(target, data[:at_most]))
    data = some_bytes(BLOCK_BYTES + 70_001, 3)

    writer = BlockWriter(descriptor, Blocks())
    writer.write(data)
    writer.flush()

    assert content(descriptor) == data


@pytest.mark.parametrize("size_bytes", [3, BLOCK_BYTES])
def test_no_room_is_told(descriptor: int, monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    def write(_descriptor: int, _data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "write", write)
    writer = BlockWriter(descriptor, Blocks())

    with pytest.raises(OSError, match="no room"):  # noqa: PT012 - whichever of the two writes
        writer.write(bytes(size_bytes))
        writer.flush()
