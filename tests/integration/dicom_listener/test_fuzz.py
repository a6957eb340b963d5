"""Whatever is sent, the listener goes on: mutated PDUs, command sets and data sets, and silence.

Most inputs go to the parsers in this process; the rest over sockets to a running listener.
"""

from __future__ import annotations

import io
import json
import os
import random
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count

import pytest
from pydicom.uid import generate_uid

from dicom_listener.c_store import (
    InvalidCommand,
    command_elements,
    command_field,
    decode_request,
    encode_response,
    has_data_set,
)
from dicom_listener.instance_header import NotUnderstood, parse_header
from dicom_listener.store_status import SUCCESS
from tests.integration.dicom_listener.listener import CT, Listener, a_slice, sendable
from tests.integration.dicom_listener.test_memory import MEBIBYTE, kept_bytes
from tests.peers.processes import LOOPBACK
from tests.peers.raw_scu import (
    VERIFICATION,
    RawAssociation,
    associate_rq,
    command_set,
    p_data_tf,
)

# Of what pydicom finds odd.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SEED = os.environ["COUNTERSIGN_TEST_SEED"]
FOR_S = 60
# Inputs of a round, most of them for the parsers.
IN_PROCESS, OVER_A_SOCKET = 195, 5
ROUNDS_AT_LEAST, ROUNDS_IN_A_SOAK = 60, 500
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
CONTEXTS = [(CT, EXPLICIT), (VERIFICATION, IMPLICIT), (CT, IMPLICIT), (CT, DEFLATED)]
_PIECES = (
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"SQ\0\0\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\\" * 70,
    b"\x1b$B\x1b(J",
    b"\x04\0\0\0\0\x06",
)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change some bytes, lose some, repeat some, put something in."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(result) + 1)
        match chance.randrange(5):
            case 0:
                result[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del result[at : at + chance.randrange(1, 40)]
            case 2:
                result[at:at] = result[at : at + chance.randrange(1, 40)]
            case 3:
                result[at : at + 4] = chance.choice(_PIECES)
            case _:
                result[at:at] = chance.randbytes(chance.randrange(1, 12))
    return bytes(result)


def command_sets() -> list[bytes]:
    return [
        command_set(0x0001, 7, CT, generate_uid()),
        command_set(0x0030, 1, VERIFICATION),
        command_set(0x0020, 2, CT, generate_uid()),
    ]


def data_sets() -> list[tuple[str, bytes]]:
    device = a_slice()
    with_sequence = a_slice(
        ContributingEquipmentSequence=[device], SpecificCharacterSet="ISO_IR 100"
    )
    plain = [sendable(a_slice()).data, sendable(with_sequence).data]
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return [
        *((syntax, data) for data in plain for syntax in (EXPLICIT, IMPLICIT, BIG_ENDIAN)),
        (DEFLATED, deflate.compress(plain[0]) + deflate.flush()),
    ]


def parse_command(data: bytes) -> None:
    with suppress(InvalidCommand):
        elements = command_elements(data)
        command_field(elements)
        has_data_set(elements)
        encode_response(decode_request(elements), SUCCESS)


def parse_data_set(syntax: str, data: bytes, *, whole: bool) -> None:
    with suppress(NotUnderstood):
        parse_header(io.BytesIO(data), syntax, whole=whole)


def fuzz_the_parsers(inputs: int, chance: random.Random) -> None:
    commands, data = command_sets(), data_sets()
    for number in range(inputs):
        if number % 3:
            syntax, original = chance.choice(data)
            parse_data_set(syntax, mutated(original, chance), whole=chance.random() < 0.5)
        else:
            parse_command(mutated(chance.choice(commands), chance))


def a_conversation(chance: random.Random) -> list[bytes]:
    """Return PDUs of an association that stores an instance, at least one of them mutated."""
    sent = sendable(a_slice())
    command = command_set(0x0001, 1, CT, sent.sop_instance_uid)
    half = len(sent.data) // 2
    pdus = [
        associate_rq(CONTEXTS),
        p_data_tf(1, 3, command),
        p_data_tf(1, 0, sent.data[:half]),
        p_data_tf(1, 2, sent.data[half:]),
        p_data_tf(3, 3, command_set(0x0030, 2, VERIFICATION)),
        b"\x05\0\0\0\0\x04\0\0\0\0",
    ]
    # Mostly behind a request that is understood, so that there is an association.
    which = chance.randrange(len(pdus)) if chance.random() < 0.3 else chance.randrange(1, len(pdus))
    if which in (1, 2, 3) and chance.random() < 0.6:
        # The PDU is well-formed, what it carries is not.
        content = mutated(pdus[which][12:], chance)
        pdus[which] = p_data_tf(1, pdus[which][11], content)
    else:
        pdus[which] = mutated(pdus[which], chance)
    return pdus


def converse(port: int, chance: random.Random) -> None:
    """Say something odd, perhaps in small pieces, perhaps break off; then hear what comes."""
    said = b"".join(a_conversation(chance))
    if chance.random() < 0.3:
        said = said[: chance.randrange(len(said))]
    with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=0.05) as connection:
        while said:
            length = len(said) if chance.random() < 0.8 else chance.randrange(1, 200)
            connection.sendall(said[:length])
            said = said[length:]
        match chance.randrange(3):
            case 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            case 1:
                connection.shutdown(socket.SHUT_WR)
            case _:
                pass
        while connection.recv(65_536):
            pass


class FuzzRun:
    """A run of rounds against the parsers and against a listener, in two halves."""

    def __init__(self, listener: Listener, seed: str) -> None:
        self._listener = listener
        self._chance = random.Random(seed)
        self.rounds = 0

    def run(self, half: Iterable[object], other_half: Iterable[object]) -> None:
        """Assert that the listener goes on, and that the second half grows memory no more."""
        # Connections that say nothing, or a byte and then nothing, all the while.
        address = (LOOPBACK, self._listener.port)
        silent = [socket.create_connection(address) for _ in range(10)]
        for connection in silent[::2]:
            connection.send(b"\1")
        self._go_on_for(half)
        before = kept_bytes(self._listener)
        self._go_on_for(other_half)
        grown = kept_bytes(self._listener) - before
        for connection in silent:
            connection.close()

        assert serves(self._listener)
        assert "process.ended" not in self._listener.log
        assert "association.failed" not in self._listener.log
        assert grown < 5 * MEBIBYTE

    def _go_on_for(self, rounds: Iterable[object]) -> None:
        for _ in rounds:
            fuzz_the_parsers(IN_PROCESS, self._chance)
            for _ in range(OVER_A_SOCKET):
                converse(self._listener.port, self._chance)
            self.rounds += 1


def rounds_for(seconds: float, at_least: int) -> Iterator[int]:
    """Count rounds until the time is over, and there were enough."""
    began = time.monotonic()
    for number in count():
        if number >= at_least and time.monotonic() - began >= seconds:
            return
        yield number


def serves(listener: Listener) -> bool:
    sent = sendable(a_slice())
    with RawAssociation(listener.port, [(VERIFICATION, IMPLICIT), (CT, EXPLICIT)]) as association:
        stored = association.store(CT, EXPLICIT, sent.sop_instance_uid, sent.data)
        return association.echo() == 0x0000 and stored == 0x0000


@pytest.mark.slow
def test_no_input_stops_the_listener(start_listener: Callable[..., Listener]) -> None:
    run = FuzzRun(start_listener(dimse_timeout_s=2), SEED)

    halves = (rounds_for(FOR_S / 2, ROUNDS_AT_LEAST // 2) for _ in range(2))
    run.run(*halves)


@pytest.mark.soak
def test_a_hundred_thousand_inputs_do_not_stop_the_listener(
    start_listener: Callable[..., Listener],
) -> None:
    began = time.monotonic()
    run = FuzzRun(start_listener(dimse_timeout_s=2), SEED)

    run.run(range(ROUNDS_IN_A_SOAK // 2), range(ROUNDS_IN_A_SOAK // 2))

    figures = {
        "soak": "fuzz of the listener",
        "in_process": run.rounds * IN_PROCESS,
        "over_a_socket": run.rounds * OVER_A_SOCKET,
        "seconds": round(time.monotonic() - began),
        "seed": SEED,
    }
    print("\n" + json.dumps(figures))  # noqa: T201 - the figures are what a soak is run for
