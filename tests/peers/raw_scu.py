"""A Storage SCU of the fewest parts: it sends the bytes that it is given, exactly as they are.

storescu encodes some data sets anew and pynetdicom checks what it sends; for proofs of what was
kept, for time-outs and for measuring, nothing must stand between the bytes and the wire.
"""

import socket
import struct
from collections.abc import Iterable
from typing import Self

VERIFICATION = "1.2.840.10008.1.1"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION = b"2.25.302"
_HEADER = struct.Struct(">BBL")
_PDV = struct.Struct(">LBB")
_ASSOCIATE_RQ, _ASSOCIATE_AC, _P_DATA_TF, _RELEASE_RQ, _RELEASE_RP, _ABORT = 1, 2, 4, 5, 6, 7
_COMMAND, _LAST = 1, 2


class AssociationLost(OSError):
    """The peer rejected or aborted the association, or closed its connection."""


def item(kind: int, content: bytes) -> bytes:
    """Encode an item of an A-ASSOCIATE-RQ (PS3.8 §9.3.2)."""
    return struct.pack(">BBH", kind, 0, len(content)) + content


def associate_rq(
    contexts: Iterable[tuple[str, str]], calling_ae_title: str = "RAW", called: str = "COUNTERSIGN"
) -> bytes:
    """Encode an A-ASSOCIATE-RQ that proposes pairs of abstract and transfer syntax."""
    content = struct.pack(
        ">H2x16s16s32x", 1, called.ljust(16).encode(), calling_ae_title.ljust(16).encode()
    )
    content += item(0x10, _APPLICATION_CONTEXT)
    for number, (abstract_syntax, transfer_syntax) in enumerate(contexts):
        content += item(
            0x20,
            struct.pack(">B3x", 2 * number + 1)
            + item(0x30, abstract_syntax.encode())
            + item(0x40, transfer_syntax.encode()),
        )
    content += item(0x50, item(0x51, struct.pack(">L", 16_384)) + item(0x52, _IMPLEMENTATION))
    return _HEADER.pack(_ASSOCIATE_RQ, 0, len(content)) + content


def command_set(
    field: int, message_id: int, sop_class_uid: str, sop_instance_uid: str = ""
) -> bytes:
    """Encode a request (PS3.7 §9.3, §E.1); one with an instance has a data set."""
    elements = [
        (0x0002, _even(sop_class_uid)),
        (0x0100, struct.pack("<H", field)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 0 if sop_instance_uid else 0x0101)),
    ]
    if sop_instance_uid:
        elements.append((0x1000, _even(sop_instance_uid)))
    return b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)


def p_data_tf(context_id: int, control: int, fragment: bytes) -> bytes:
    """Encode one P-DATA-TF PDU with one value (PS3.8 §9.3.5)."""
    return (
        _HEADER.pack(_P_DATA_TF, 0, len(fragment) + 6)
        + _PDV.pack(len(fragment) + 2, context_id, control)
        + fragment
    )


def _even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


class RawAssociation:
    """One association; every method raises `AssociationLost` once it has ended."""

    def __init__(
        self,
        port: int,
        contexts: Iterable[tuple[str, str]],
        *,
        calling_ae_title: str = "RAW",
        timeout_s: float = 30,
    ) -> None:
        self._contexts = list(dict.fromkeys(contexts))
        self._message_id = 0
        self._read = bytearray()
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._send(associate_rq(self._contexts, calling_ae_title))
            kind, content = self._pdu()
        except BaseException:
            self.connection.close()
            raise
        if kind != _ASSOCIATE_AC:
            self.connection.close()
            raise AssociationLost(f"PDU type {kind}")
        self.maximum_pdu_bytes = _maximum_length(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def store(
        self, sop_class_uid: str, transfer_syntax_uid: str, sop_instance_uid: str, data: bytes
    ) -> int:
        """Send one data set and return the status that was answered."""
        self._begin(sop_class_uid, transfer_syntax_uid, sop_instance_uid, [data])
        return self._status()

    def store_pieces(
        self,
        sop_class_uid: str,
        transfer_syntax_uid: str,
        sop_instance_uid: str,
        pieces: Iterable[bytes],
    ) -> int:
        """Send a data set that is never whole in memory; return the status answered."""
        self._begin(sop_class_uid, transfer_syntax_uid, sop_instance_uid, pieces)
        return self._status()

    def _begin(
        self,
        sop_class_uid: str,
        transfer_syntax_uid: str,
        sop_instance_uid: str,
        pieces: Iterable[bytes],
    ) -> None:
        context_id = 2 * self._contexts.index((sop_class_uid, transfer_syntax_uid)) + 1
        self._message_id = (self._message_id + 1) % 0x10000
        command = command_set(0x0001, self._message_id, sop_class_uid, sop_instance_uid)
        room = (self.maximum_pdu_bytes or 131_072) - 6
        pdu = p_data_tf(context_id, _COMMAND | _LAST, command)
        fragment: bytes | None = None
        for piece in pieces:
            for start in range(0, len(piece), room):
                if fragment is not None:
                    pdu += p_data_tf(context_id, 0, fragment)
                fragment = piece[start : start + room]
            self._send(pdu)
            pdu = b""
        self._send(pdu + p_data_tf(context_id, _LAST, fragment or b""))

    def echo(self) -> int:
        """Verify (PS3.7 §9.1.5) and return the status."""
        context_id = next(
            2 * number + 1
            for number, (abstract_syntax, _) in enumerate(self._contexts)
            if abstract_syntax == VERIFICATION
        )
        self._send(p_data_tf(context_id, _COMMAND | _LAST, command_set(0x0030, 1, VERIFICATION)))
        return self._status()

    def release(self) -> None:
        """Release the association and close the connection."""
        self._send(_HEADER.pack(_RELEASE_RQ, 0, 4) + bytes(4))
        kind, _ = self._pdu()
        self.connection.close()
        if kind != _RELEASE_RP:
            raise AssociationLost(f"PDU type {kind}")

    def abort(self) -> None:
        """Abort the association and close the connection."""
        self._send(_HEADER.pack(_ABORT, 0, 4) + bytes(4))
        self.connection.close()

    def _status(self) -> int:
        command = bytearray()
        while True:
            kind, content = self._pdu()
            if kind != _P_DATA_TF:
                raise AssociationLost(f"PDU type {kind}")
            command += content[_PDV.size :]
            if content[_PDV.size - 1] & _LAST:
                break
        at = command.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int.from_bytes(command[at : at + 2], "little")

    def _send(self, data: bytes) -> None:
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise AssociationLost(str(error)) from error

    def _pdu(self) -> tuple[int, bytes]:
        kind, _, length = _HEADER.unpack(self._receive(_HEADER.size))
        return kind, self._receive(length)

    def _receive(self, length: int) -> bytes:
        while len(self._read) < length:
            try:
                received = self.connection.recv(65_536)
            except OSError as error:
                raise AssociationLost(str(error)) from error
            if not received:
                raise AssociationLost("closed")
            self._read += received
        taken = bytes(self._read[:length])
        del self._read[:length]
        return taken


def _maximum_length(associate_ac: bytes) -> int:
    """Return the maximum length (PS3.8 §D.1) that an A-ASSOCIATE-AC announces; 0 is any."""
    position = 68
    while position + 4 <= len(associate_ac):
        kind, length = (
            associate_ac[position],
            int.from_bytes(associate_ac[position + 2 : position + 4]),
        )
        if kind == 0x50:
            return int.from_bytes(associate_ac[position + 8 : position + 12])
        position += 4 + length
    return 0
