"""The C-STORE pair of messages on the wire (PS3.7 §9.3.1): the one DIMSE service coded here.

Command sets are Implicit VR Little Endian (PS3.7 §6.3.1). Everything else is pynetdicom's.
"""

import struct
from functools import lru_cache
from typing import NamedTuple

from dicom_listener.store_status import StoreAnswer

C_STORE_RQ = 0x0001
_C_STORE_RSP = 0x8001
_NO_DATA_SET = 0x0101

_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000

_ELEMENT = struct.Struct("<HHL")
_ELEMENT_HEADER_LENGTH = 8
_US_ELEMENT = struct.Struct("<HHLH")
_US_LENGTH = 2
_HIGH = b"\x01\x00"
_GROUP_LENGTH = struct.Struct("<HHLL")
_UL_LENGTH = 4
_RESPONSE_COMMAND = _US_ELEMENT.pack(0, _COMMAND_FIELD, _US_LENGTH, _C_STORE_RSP)
_WITHOUT_DATA_SET = _US_ELEMENT.pack(0, _COMMAND_DATA_SET_TYPE, _US_LENGTH, _NO_DATA_SET)
_UID_LENGTH = 64


class InvalidCommand(Exception):
    """A command set that PS3.7 does not allow; the association cannot go on."""


class StoreRequest(NamedTuple):
    """A C-STORE-RQ (PS3.7 §9.3.1.1), as far as it is used."""

    message_id: int
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    has_data_set: bool
    is_urgent: bool = False
    """Its Priority, (0000,0700), is HIGH."""


def command_elements(command_set: bytes) -> dict[int, bytes]:
    """Return the values of a command set by element number of group 0000.

    Raises
    ------
    InvalidCommand
        It is no sequence of group 0000 elements.
    """
    elements = {}
    position, end = 0, len(command_set)
    while position < end:
        value = position + _ELEMENT_HEADER_LENGTH
        if value > end:
            raise InvalidCommand("a command element is cut off")
        group, element, length = _ELEMENT.unpack_from(command_set, position)
        position = value + length
        if group != 0 or position > end:
            raise InvalidCommand("a command set holds what is no command element")
        elements[element] = command_set[value:position]
    return elements


def command_field(elements: dict[int, bytes]) -> int:
    """Return which message a command set is, (0000,0100)."""
    return _us(elements, _COMMAND_FIELD)


def has_data_set(elements: dict[int, bytes]) -> bool:
    """Return whether a data set follows the command, (0000,0800)."""
    return _us(elements, _COMMAND_DATA_SET_TYPE) != _NO_DATA_SET


def decode_request(elements: dict[int, bytes]) -> StoreRequest:
    """Return the C-STORE-RQ that a command set holds.

    Raises
    ------
    InvalidCommand
        A mandatory element (PS3.7 Table 9.3-1) is missing or malformed.
    """
    return StoreRequest(
        message_id=_us(elements, _MESSAGE_ID),
        affected_sop_class_uid=_ui(elements, _AFFECTED_SOP_CLASS_UID),
        affected_sop_instance_uid=_ui(elements, _AFFECTED_SOP_INSTANCE_UID),
        has_data_set=has_data_set(elements),
        is_urgent=elements.get(_PRIORITY) == _HIGH,
    )


def encode_response(request: StoreRequest, answer: StoreAnswer) -> bytes:
    """Return the command set of the C-STORE-RSP (PS3.7 §9.3.1.2) to ``request``."""
    pack = _US_ELEMENT.pack
    body = (
        _sop_class(request.affected_sop_class_uid)
        + _RESPONSE_COMMAND
        + pack(0, _MESSAGE_ID_BEING_RESPONDED_TO, _US_LENGTH, request.message_id)
        + _WITHOUT_DATA_SET
        + pack(0, _STATUS, _US_LENGTH, answer.status)
    )
    if answer.comment:
        body += _element(_ERROR_COMMENT, answer.comment.encode("ascii"), b" ")
    instance = request.affected_sop_instance_uid.encode("ascii")
    body += _element(_AFFECTED_SOP_INSTANCE_UID, instance, b"\0")
    return _GROUP_LENGTH.pack(0, 0x0000, _UL_LENGTH, len(body)) + body


@lru_cache(maxsize=256)
def _sop_class(uid: str) -> bytes:
    return _element(_AFFECTED_SOP_CLASS_UID, uid.encode("ascii"), b"\0")


def _element(element: int, value: bytes, padding: bytes) -> bytes:
    if len(value) % 2:
        value += padding
    return _ELEMENT.pack(0, element, len(value)) + value


def _us(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != _US_LENGTH:
        raise InvalidCommand(f"(0000,{element:04X}) is missing or malformed")
    return int.from_bytes(value, "little")


def _ui(elements: dict[int, bytes], element: int) -> str:
    try:
        value = elements.get(element, b"").decode("ascii").strip(" \0")
    except UnicodeDecodeError:
        value = ""
    if not value or len(value) > _UID_LENGTH or not value.isprintable():
        raise InvalidCommand(f"(0000,{element:04X}) is missing or malformed")
    return value
