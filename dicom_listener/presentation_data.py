"""P-DATA-TF as bytes (PS3.8 §9.3.5). Pure."""

import struct

P_DATA_TF = 0x04
"""The PDU type."""
COMMAND, LAST = 0x01, 0x02
"""Bits of a message control header (PS3.8 §E.2)."""
PDV_HEADER = struct.Struct(">LBB")
"""Before a presentation data value: length of the item, presentation context ID, message control
header."""
ITEM_LENGTH_SIZE = 4
"""Of that length, which does not count itself."""
CONTROL_SIZE = PDV_HEADER.size - ITEM_LENGTH_SIZE
"""Of what it counts besides the value."""
HEADERS = struct.Struct(">BBLLBB")
"""Before a value that is alone in its PDU: type, 0 and length of the PDU, then those."""


def p_data_tf(context_id: int, command_set: bytes, maximum_length: int) -> bytes:
    """Return the PDUs that carry ``command_set``.

    ``maximum_length`` is what the peer announced for their variable field (PS3.8 §D.1); 0 is any.
    """
    room = max(2, maximum_length - PDV_HEADER.size) if maximum_length else len(command_set)
    pdus = bytearray()
    for start in range(0, len(command_set), room):
        fragment = command_set[start : start + room]
        is_last = start + room >= len(command_set)
        pdus += HEADERS.pack(
            P_DATA_TF,
            0,
            len(fragment) + PDV_HEADER.size,
            len(fragment) + CONTROL_SIZE,
            context_id,
            COMMAND | (LAST if is_last else 0),
        )
        pdus += fragment
    return bytes(pdus)
