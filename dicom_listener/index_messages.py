"""What receiving processes and the indexing process say to each other, over a socket of theirs."""

import pickle
import socket
from collections.abc import Sequence
from typing import Any

from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome
from dicom_listener.index import Answer, Entry
from dicom_listener.instance_header import InstanceHeader
from dicom_listener.open_associations import OpenAssociation
from imaging_store.instances import Kept
from service_runtime.database import DatabaseFull, DatabaseUnavailable

MOST_BYTES = 128 * 1024
"""Of one message; a socket takes it at once."""

_Plain = OpenAssociation | tuple[Any, ...]
_BACKLOG = 4096
_FULL, _AWAY, _REFUSED = b"\xfd", b"\xfe", b"\xff"
_DONE = b""
_OUTCOMES = {bytes([outcome.value]): outcome for outcome in Outcome}
_CODES = {outcome: code for code, outcome in _OUTCOMES.items()}


class NotEntered(Exception):
    """The index would not take an arrival; the log of the process that indexes has the reason."""


def listen() -> socket.socket:
    """Return the socket that this process and those it forks reach the indexing process by.

    It has no file: its name, which the kernel chooses, goes with it.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")
    listener.listen(_BACKLOG)
    return listener


def group_message(entries: Sequence[Entry]) -> bytes:
    """Return what has a group entered; it may be too long."""
    return pickle.dumps([_plain(entry) for entry in entries], pickle.HIGHEST_PROTOCOL)


def group_of(message: bytes | memoryview) -> list[Entry]:
    """Return the group of a message of one of our own processes: it is believed."""
    entries: list[_Plain] = pickle.loads(message)  # noqa: S301 - of our own process
    return [_entry(plain) for plain in entries]


def answers_message(answers: Sequence[Answer]) -> bytes:
    """Return what tells what became of each of a group; of errors their kind, not their text."""
    return pickle.dumps([_code_of(answer) for answer in answers], pickle.HIGHEST_PROTOCOL)


def answers_of(message: bytes) -> list[Answer]:
    """Return what became of each of a group."""
    codes: list[bytes] = pickle.loads(message)  # noqa: S301 - of our own process
    return [_answer_of(code) for code in codes]


def _plain(entry: Entry) -> _Plain:
    """Return an entry as plain tuples, which are pickled in a third of the time."""
    if isinstance(entry, OpenAssociation):
        return entry
    header, kept, *others = entry
    return tuple(header), tuple(kept), *others


def _entry(plain: _Plain) -> Entry:
    if isinstance(plain, OpenAssociation):
        return plain
    header, kept, *others = plain
    return Arrival(InstanceHeader(*header), Kept(*kept), *others)


def _code_of(answer: Answer) -> bytes:
    if answer is None:
        return _DONE
    if isinstance(answer, Outcome):
        return _CODES[answer]
    if isinstance(answer, DatabaseFull):
        return _FULL + str(answer).encode()
    if isinstance(answer, DatabaseUnavailable):
        return _AWAY + str(answer).encode()
    return _REFUSED + type(answer).__name__.encode()


def _answer_of(code: bytes) -> Answer:
    if code == _DONE:
        return None
    kind, reason = code[:1], code[1:].decode()
    if kind == _FULL:
        return DatabaseFull(reason)
    if kind == _AWAY:
        return DatabaseUnavailable(reason)
    if kind == _REFUSED:
        return NotEntered(reason)
    return _OUTCOMES[kind]
