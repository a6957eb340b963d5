"""An association with a PACS, as its requestor (PS3.7 §D.1): C-STORE, C-ECHO, N-ACTION.

The only module of the sender that imports pynetdicom.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from dicom_sender.caller import Caller
from dicom_sender.presentation import Proposal
from message_contracts.destination import DimsePriority, PacsDestination
from service_runtime.errors import TransientError

_CONNECT_TIMEOUT_S = 15.0
_DIAGNOSIS_TIMEOUT_S = 2.0
_LARGEST_PDU_BYTES = 262_144
_MOST_WAITING = 8
"""PDUs that pynetdicom's own thread may be behind: what bounds the memory of a large instance."""
_QUEUE_FULL_S = 0.0005
_PRIORITIES = {DimsePriority.MEDIUM: 0, DimsePriority.HIGH: 1, DimsePriority.LOW: 2}
_VERIFICATION = "1.2.840.10008.1.1"
_COMMITMENT = "1.2.840.10008.1.20.1"
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
_REQUEST_COMMITMENT = 1
_SUCCESS = 0x0000


class PacsUnavailable(TransientError):
    """The PACS is not reached, rejects or aborts the association, or falls silent."""


@dataclass(frozen=True)
class Answer:
    """What a PACS answered to one C-STORE."""

    status: int
    error_comment: str = ""
    """(0000,0902) as it came: for people only."""


@dataclass(frozen=True)
class Command:
    """What a C-STORE request says of its data set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    """As the data set is encoded; of an accepted context."""


OnReport = Callable[[int, Dataset], None]
"""Hears an N-EVENT-REPORT that comes on this association: Event Type ID and Event Information."""


class PacsAssociation:
    """An established association. Every call may raise `PacsUnavailable`."""

    def __init__(self, association: Association, destination: PacsDestination) -> None:
        self._association = association
        self._name = destination.name
        self._priority = _PRIORITIES[destination.priority]
        self._message_id = 0
        self._contexts = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])): context.context_id
            for context in association.accepted_contexts
        }

    @property
    def accepted(self) -> dict[str, list[str]]:
        """For each SOP class, the transfer syntaxes that the PACS takes."""
        found: dict[str, list[str]] = {}
        for sop_class_uid, transfer_syntax_uid in self._contexts:
            found.setdefault(sop_class_uid, []).append(transfer_syntax_uid)
        return found

    def store(self, command: Command, data_set: bytes | tuple[Path, int]) -> Answer:
        """Send an instance; of a file, what follows the offset is read as it is sent."""
        request = C_STORE()
        request.MessageID = self._next_message_id()
        request.Priority = self._priority
        request.AffectedSOPClassUID = command.sop_class_uid
        request.AffectedSOPInstanceUID = command.sop_instance_uid
        if isinstance(data_set, bytes):
            request.DataSet = BytesIO(data_set)
        else:
            request._dataset_path = data_set  # noqa: SLF001 - as send_c_store does
        context_id = self._contexts[command.sop_class_uid, command.transfer_syntax_uid]
        response = self._exchange(request, context_id)
        comment = str(getattr(response, "ErrorComment", None) or "")
        return Answer(int(response.Status), comment)

    def echo(self) -> int:
        """Return the Status of a C-ECHO."""
        return self._status(self._association.send_c_echo(msg_id=self._next_message_id()))

    def request_commitment(
        self, transaction_uid: str, references: Sequence[tuple[str, str]]
    ) -> int:
        """Ask for Storage Commitment (PS3.4 §J.3.2) of SOP class and instance UIDs.

        Return the Status of the N-ACTION.
        """
        asked = Dataset()
        asked.TransactionUID = transaction_uid
        asked.ReferencedSOPSequence = []
        for sop_class_uid, sop_instance_uid in references:
            item = Dataset()
            item.ReferencedSOPClassUID = sop_class_uid
            item.ReferencedSOPInstanceUID = sop_instance_uid
            asked.ReferencedSOPSequence.append(item)
        response, _ = self._association.send_n_action(
            asked,
            _REQUEST_COMMITMENT,
            _COMMITMENT,
            _COMMITMENT_INSTANCE,
            msg_id=self._next_message_id(),
        )
        return self._status(response)

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _status(self, response: Dataset) -> int:
        if "Status" not in response:
            raise self._gone()
        return int(response.Status)

    def _exchange(self, request: C_STORE, context_id: int) -> Any:
        association = self._association
        if not association.is_established:
            raise self._gone()
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        message.context_id = context_id
        size = min(association.dimse.maximum_pdu_size or _LARGEST_PDU_BYTES, _LARGEST_PDU_BYTES)
        # As send_c_store does: the answer is ours to wait for, and not the reactor's.
        association._reactor_checkpoint.clear()  # noqa: SLF001
        try:
            while not association._is_paused:  # noqa: SLF001
                time.sleep(0.0001)
            for pdata in message.encode_msg(context_id, size):
                self._wait_for_room()
                association.dul.send_pdu(pdata)
            _, response = association.dimse.get_msg(block=True)
        finally:
            association._reactor_checkpoint.set()  # noqa: SLF001
        if response is None or not isinstance(response, C_STORE) or response.Status is None:
            if association.is_established:
                association.abort()
            raise self._gone()
        return response

    def _wait_for_room(self) -> None:
        waiting = self._association.dul.to_provider_queue
        while waiting.qsize() >= _MOST_WAITING:
            if not self._association.is_established or not self._association.dul.is_alive():
                raise self._gone()
            time.sleep(_QUEUE_FULL_S)

    def _gone(self) -> PacsUnavailable:
        return PacsUnavailable(f"{self._name} ended the association without an answer")


class _Reports:
    """Hears N-EVENT-REPORTs of the peer, each in a thread of pynetdicom's that then answers."""

    def __init__(self, on_report: OnReport | None) -> None:
        self._on_report = on_report
        self._answering: list[threading.Thread] = []

    def handlers(self) -> list[Any]:
        if self._on_report is None:
            return []
        return [(evt.EVT_N_EVENT_REPORT, self._hear, [self._on_report])]

    def _hear(self, event: evt.Event, on_report: OnReport) -> tuple[int, None]:
        self._answering.append(threading.current_thread())
        on_report(int(event.event_type), event.event_information)
        return _SUCCESS, None

    def wait_until_answered(self, timeout_s: float) -> None:
        """Wait for the answers: one after a request for release would break the association."""
        until_s = time.monotonic() + timeout_s
        for each in tuple(self._answering):
            each.join(max(until_s - time.monotonic(), 0))


@contextmanager
def associated(
    destination: PacsDestination,
    caller: Caller,
    proposals: Sequence[Proposal],
    on_report: OnReport | None = None,
) -> Iterator[PacsAssociation | None]:
    """Open an association and release it at the end; ``None`` where nothing proposed is taken.

    Raises
    ------
    PacsUnavailable
        There is none; the reason says why, in words for whoever runs the PACS.
    """
    reports = _Reports(on_report)
    association = _associate(destination, caller, proposals, reports)
    if association is None:
        yield None
        return
    try:
        yield PacsAssociation(association, destination)
    except BaseException:
        if association.is_established:
            association.abort()
        raise
    else:
        reports.wait_until_answered(caller.timeout_s)
        if association.is_established:
            association.release()


def propose_commitment() -> Proposal:
    """Return the context of the Storage Commitment Push Model SOP Class."""
    return Proposal(_COMMITMENT, ImplicitVRLittleEndian)


def propose_echo() -> Proposal:
    """Return the context of the Verification SOP Class."""
    return Proposal(_VERIFICATION, ImplicitVRLittleEndian)


def _associate(
    destination: PacsDestination,
    caller: Caller,
    proposals: Sequence[Proposal],
    reports: _Reports,
) -> Association | None:
    entity = AE(ae_title=caller.ae_title)
    connect_timeout_s = min(_CONNECT_TIMEOUT_S, caller.timeout_s)
    entity.connection_timeout = connect_timeout_s
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = caller.timeout_s
    handlers = [(evt.EVT_CONN_OPEN, _prepare, [caller.timeout_s]), *reports.handlers()]
    began = time.monotonic()
    try:
        association = entity.associate(
            destination.host,
            destination.port,
            contexts=[
                build_context(UID(each.sop_class_uid), each.transfer_syntax_uid)
                for each in proposals
            ],
            ae_title=destination.ae_title,
            tls_args=_tls_arguments(destination, caller),
            evt_handlers=handlers,
        )
    except OSError as error:
        raise PacsUnavailable(f"{destination.name}: {_in_words(error)}") from error
    if association.is_established:
        return association
    if association.is_rejected:
        primitive = association.acceptor.primitive
        why = getattr(primitive, "reason_str", "") or "no reason given"
        raise PacsUnavailable(
            f"{destination.name} rejected the association: {why} "
            f"({primitive.result}/{primitive.result_source}/{primitive.diagnostic})"
        )
    if association.rejected_contexts:
        return None
    took_s = time.monotonic() - began
    if took_s < min(connect_timeout_s, _DIAGNOSIS_TIMEOUT_S):
        why = _why_not(destination, caller)
    else:
        why = f"no answer within {took_s:.0f} s"
    raise PacsUnavailable(f"nobody answers for {destination.name}: {why}")


def _tls_arguments(
    destination: PacsDestination, caller: Caller
) -> tuple[ssl.SSLContext, str] | None:
    # The name goes along for a peer with several certificates (SNI); it is not checked.
    return (_tls_of(destination, caller), destination.host) if destination.tls else None


def _tls_of(destination: PacsDestination, caller: Caller) -> ssl.SSLContext:
    if caller.tls is None:
        raise PacsUnavailable(f"{destination.name} wants TLS, and there is no certificate of ours")
    return caller.tls()


def _prepare(event: evt.Event, timeout_s: float) -> None:
    connection = event.assoc.dul.socket
    if connection is None or connection.socket is None:
        return
    # Nagle's algorithm holds the last fragment of a data set until the peer has acknowledged.
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that stops reading would block pynetdicom's thread for ever.
    connection.socket.settimeout(timeout_s)


def _why_not(destination: PacsDestination, caller: Caller) -> str:
    """Return what stands in the way; pynetdicom only logs it."""
    try:
        address = (destination.host, destination.port)
        with socket.create_connection(address, timeout=_DIAGNOSIS_TIMEOUT_S) as plain:
            if not destination.tls:
                return "it closed the connection"
            context = _tls_of(destination, caller)
            with context.wrap_socket(plain, server_hostname=destination.host) as secured:
                # In TLS 1.3 who accepts refuses our certificate only after the handshake.
                secured.settimeout(_DIAGNOSIS_TIMEOUT_S)
                with suppress(TimeoutError):
                    secured.recv(1)
            return "it closed the connection"
    except OSError as error:
        return _in_words(error)


def _in_words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'the handshake failed'}"
    if isinstance(error, socket.gaierror):
        return "its host name is not known"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror or type(error).__name__
