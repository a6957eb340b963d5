import queue
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dicom_listener.connection import BUFFER_BYTES, BufferedSocket, ConnectionEnded
from dicom_listener.p_data import read_p_data

CONTEXT_ID, DATA, COMMAND, LAST = 3, 0, 1, 2
RELEASE_RQ = struct.pack(">BBLL", 5, 0, 4, 0)


class Value(NamedTuple):
    size: int
    control: int


class Stream:
    """A socket that gives what it has in pieces of given sizes, over and over."""

    def __init__(self, data: bytes, pieces: Sequence[int]) -> None:
        self._left = memoryview(data)
        self._pieces = pieces
        self._number = 0

    def recv_into(self, view: memoryview) -> int:
        return self.recvmsg_into([view])[0]

    def recvmsg_into(self, views: Sequence[memoryview]) -> tuple[int, list[Any], int, None]:
        piece = self._left[: self._pieces[self._number % len(self._pieces)]]
        self._number += 1
        put = 0
        for view in views:
            part = piece[put : put + len(view)]
            view[: len(part)] = part
            put += len(part)
        self._left = self._left[put:]
        return put, [], 0, None


class Receiver:
    """Takes values as a data set is taken: into blocks, which are written when they are full."""

    def __init__(self, block_bytes: int) -> None:
        self._block = memoryview(bytearray(block_bytes))
        self._filled = 0
        self._fragments: list[memoryview] = []
        self.data = bytearray()
        self.ended_at: list[int] = []
        self.filled_bytes = 0
        self.is_amid_data = True

    def release_fragments(self) -> None:
        for fragment in self._fragments:
            self.data += fragment
        self._fragments.clear()

    def on_fragment(self, context_id: int, control: int, fragment: memoryview, left: int) -> None:
        assert context_id == CONTEXT_ID
        self._fragments.append(fragment)
        self._note_end(control, left)

    def room(self, context_id: int, control: int) -> memoryview | None:
        assert context_id == CONTEXT_ID
        if not self._block or control & COMMAND:
            return None
        self.release_fragments()
        return self._block[self._filled :]

    def on_filled(self, control: int, piece: memoryview, left: int) -> None:
        self.data += piece
        self.filled_bytes += len(piece)
        self._filled = (self._filled + len(piece)) % len(self._block)
        self._note_end(control, left)

    def _note_end(self, control: int, left: int) -> None:
        if control & LAST and not left:
            self.release_fragments()
            self.ended_at.append(len(self.data))


def read_to_the_end(connection: BufferedSocket, receiver: Receiver) -> None:
    while read_p_data(connection, receiver):
        pass


@contextmanager
def connection_of(stream: Stream, receiver: Receiver) -> Iterator[BufferedSocket]:
    here, there = socket.socketpair()
    association: Any = SimpleNamespace(dul=SimpleNamespace(event_queue=queue.Queue()))
    connection = BufferedSocket(association, here, there.fileno(), receiver.release_fragments, 5)
    connection.socket = stream
    try:
        yield connection
    finally:
        here.close()
        there.close()


def encoded(pdus: Sequence[Sequence[Value]]) -> tuple[bytes, bytes, list[int]]:
    """Return the P-DATA-TF, what their values say, and where messages end."""
    stream, said, ends = bytearray(), bytearray(), []
    for values in pdus:
        items = bytearray()
        for value in values:
            start = len(said)
            said += bytes((start + place) % 251 for place in range(min(value.size, 600)))
            said += b"%d" % (start % 10) * (start + value.size - len(said))
            items += struct.pack(">LBB", value.size + 2, CONTEXT_ID, value.control) + said[start:]
            if value.control & LAST:
                ends.append(len(said))
        stream += struct.pack(">BBL", 4, 0, len(items)) + items
    return bytes(stream), bytes(said), ends


SIZES = st.sampled_from([0, 1, 100, 16_000, 33_000, 65_524, 70_000, 131_060, 140_000])
VALUES = st.builds(Value, SIZES, st.sampled_from([DATA, DATA, DATA, LAST, COMMAND]))
PDUS = st.one_of(
    st.lists(st.lists(VALUES, max_size=3), max_size=8),
    # As senders do: values as large as may be, and a shorter one at the end.
    st.builds(
        lambda size, count, rest: [[Value(size, DATA)]] * count + [[Value(rest, LAST)]],
        st.sampled_from([16_000, 33_000, 65_524, 70_000, 131_060]),
        st.integers(1, 6),
        st.sampled_from([0, 1, 1_300, 40_000, 131_060]),
    ),
)
PIECES = st.lists(
    st.sampled_from([1, 5, 11, 12, 13, 5_000, 64_000, 131_072, 300_000, 600_000]),
    min_size=1,
    max_size=6,
).filter(lambda pieces: sum(pieces) / len(pieces) > 500)


@given(PDUS, PIECES, st.sampled_from([0, 50_000, 131_060, 524_288, 1_000_000]))
@example([[Value(131_060, DATA)]] * 4 + [[Value(1_300, LAST)]], [600_000], 524_288)
@example([[Value(131_060, DATA)]] * 4 + [[Value(1_300, LAST)]], [60_011, 131_071], 524_288)
# A value that is the last of several is like none that is alone.
@example(
    [
        [Value(131_060, DATA)],
        [Value(40_000, DATA), Value(60_000, DATA)],
        [Value(60_000, DATA), Value(40_000, DATA)],
    ],
    [50_000],
    1_000_000,
)
# What follows, and its headers, fill the buffer to the last byte.
@example(
    [[Value(131_060, DATA)]] * 3 + [[Value(9_000, DATA)]] + [[Value(131_060, DATA)]] * 4,
    [900_000],
    1_000_000,
)
@example(
    [[Value(262_132, DATA)]] * 3 + [[Value(9_000, DATA)]] + [[Value(262_132, DATA)]] * 3,
    [900_000],
    1_000_000,
)
def test_every_byte_comes_in_order_however_it_is_cut_up(
    pdus: list[list[Value]], pieces: list[int], block_bytes: int
) -> None:
    stream, said, ends = encoded(pdus)
    receiver = Receiver(block_bytes)

    with connection_of(Stream(stream + RELEASE_RQ, pieces), receiver) as connection:
        while bytes(connection.peek(1)) == b"\4":
            assert read_p_data(connection, receiver)
        rest = bytes(connection.peek(len(RELEASE_RQ)))

    receiver.release_fragments()
    assert receiver.data == said
    assert receiver.ended_at == ends
    assert rest == RELEASE_RQ


def test_large_values_are_received_where_they_belong() -> None:
    stream, said, _ = encoded([[Value(131_060, DATA)]] * 16)
    receiver = Receiver(524_288)

    with (
        connection_of(Stream(stream, [600_000]), receiver) as connection,
        pytest.raises(ConnectionEnded),
    ):
        read_to_the_end(connection, receiver)

    receiver.release_fragments()
    assert receiver.data == said
    assert receiver.filled_bytes > 0.8 * len(said)


def test_a_value_behind_another_header_is_none_of_the_message() -> None:
    size = 131_060
    first, said, _ = encoded([[Value(size, DATA)]] * 4)
    other = struct.pack(">BBLLBB", 4, 0, size + 6, size + 2, CONTEXT_ID + 2, DATA) + bytes(size)
    receiver = Receiver(1_000_000)

    # The context of the second is none that the receiver takes.
    with (
        connection_of(Stream(first + other, [600_000]), receiver) as connection,
        pytest.raises(AssertionError),
    ):
        read_to_the_end(connection, receiver)

    receiver.release_fragments()
    assert receiver.data == said


@pytest.mark.parametrize("cut", [7, 20, 200_000])
def test_a_connection_that_ends_amid_a_value_is_told(cut: int) -> None:
    stream, said, _ = encoded([[Value(131_060, DATA)]] * 3)
    receiver = Receiver(524_288)

    with (
        connection_of(Stream(stream[:cut], [BUFFER_BYTES]), receiver) as connection,
        pytest.raises(ConnectionEnded),
    ):
        read_to_the_end(connection, receiver)

    receiver.release_fragments()
    assert said.startswith(receiver.data)
