"""P-DATA-TF (PS3.8 §9.3.5), handed on as it is read.

Fragments lie in the buffer of their connection; or, where much comes, they are received where the
receiver has room for them, and nothing is copied.
"""

import struct
from typing import Protocol

from dicom_listener.connection import LESS_BYTES, BufferedSocket
from dicom_listener.presentation_data import (
    CONTROL_SIZE,
    HEADERS,
    ITEM_LENGTH_SIZE,
    LAST,
    P_DATA_TF,
    PDV_HEADER,
)

PDU_HEADER = struct.Struct(">BBL")
_WORTH_IT_BYTES = 32 * 1024
"""What is left of a value is received where the receiver wants it if it is more."""


class TakesFragments(Protocol):
    """What P-DATA-TF is handed to."""

    @property
    def is_amid_data(self) -> bool:
        """Whether fragments are all that is expected next."""

    def on_fragment(self, context_id: int, control: int, fragment: memoryview, left: int) -> None:
        """Take a part of a presentation data value (PS3.8 §9.3.5.1).

        ``control`` is its message control header (PS3.8 §E.2), ``left`` how many bytes of the same
        value are still to come. ``fragment`` is valid until ``release_fragments`` is called.

        Raises
        ------
        ValueError
            The peer breaks PS3.7; the association is to be aborted.
        """

    def release_fragments(self) -> None:
        """Let go of the fragments taken so far: their memory is about to be used again."""

    def room(self, context_id: int, control: int) -> memoryview | None:
        """Return where the next bytes of such a value are to be put, if anywhere."""

    def on_filled(self, control: int, piece: memoryview, left: int) -> None:
        """Take what was put at the beginning of `room`; ``left`` is of the last value in it.

        Else as `on_fragment`.
        """


def read_p_data(connection: BufferedSocket, receiver: TakesFragments) -> bool:
    """Read P-DATA-TF as long as that is what comes; return whether any did.

    Raises
    ------
    ValueError
        The peer breaks PS3.7 or PS3.8; the association is to be aborted.
    ConnectionEnded
        Nothing comes any more.
    """
    has_come = False
    while True:
        pdu_type, _, length = connection.unpack(PDU_HEADER)
        if pdu_type != P_DATA_TF:
            return has_come
        connection.skip(PDU_HEADER.size)
        _read_values(connection, receiver, length)
        has_come = True
        if not (connection.has_more and receiver.is_amid_data):
            return True


def _read_values(connection: BufferedSocket, receiver: TakesFragments, length: int) -> None:
    left = length
    while left:
        item_length, context_id, control = connection.unpack(PDV_HEADER)
        left -= ITEM_LENGTH_SIZE + item_length
        size = item_length - CONTROL_SIZE
        if left < 0 or size < 0:
            raise ValueError("a presentation data value does not fit its PDU")
        connection.skip(PDV_HEADER.size)
        if not size:
            receiver.on_fragment(context_id, control, memoryview(b""), 0)
        may_be_put = connection.receives_values and receiver.is_amid_data
        value_left = size
        while value_left:
            room = None
            if value_left > _WORTH_IT_BYTES and may_be_put:
                connection.reads_at_most_bytes = LESS_BYTES
                if not connection.has_more:
                    room = receiver.room(context_id, control)
            if room:
                # What is like it follows in a P-DATA-TF of its own.
                header = b""
                if length == ITEM_LENGTH_SIZE + item_length and not control & LAST:
                    header = HEADERS.pack(P_DATA_TF, 0, length, item_length, context_id, control)
                filled, value_left = connection.receive_values(room, value_left, size, header)
                receiver.on_filled(control, room[:filled], value_left)
            else:
                piece = connection.available(value_left)
                value_left -= len(piece)
                receiver.on_fragment(context_id, control, piece, value_left)
