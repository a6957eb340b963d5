"""P-DATA-TF as bytes (PS3.8 §9.3.5). Pure."""

import struct

P_DATA_TF = 0x04
"""The PDU type."""
COMMAND, LAST = 0x01, 0x02
"""Bits of a message control header (PS3.8 §E.2)."""
HEADERS = struct.Struct(">BBLLBB")
"""Before a presentation data value that is alone in its PDU: type, 0, length, length of the item,
presentation context ID, message control header."""
ITEM_LENGTH_SIZE, CONTROL_SIZE = 4, 2
"""Of an item's length, which does not count itself; and of what stands before its value."""


def p_data_tf(context_id: int, command_set: bytes, maximum_length: int) -> bytes:
    """Return the PDUs that carry ``command_set``.

    ``maximum_length`` is what the peer announced for their variable field (PS3.8 §D.1); 0 is any.
    """
    around = ITEM_LENGTH_SIZE + CONTROL_SIZE
    room = max(2, maximum_length - around) if maximum_length else len(command_set)
    pdus = bytearray()
    for start in range(0, len(command_set), room):
        fragment = command_set[start : start + room]
        is_last = start + room >= len(command_set)
        pdus += HEADERS.pack(
            P_DATA_TF,
            0,
            len(fragment) + around,
            len(fragment) + CONTROL_SIZE,
            context_id,
            COMMAND | (LAST if is_last else 0),
        )
        pdus += fragment
    return bytes(pdus)
