"""The Storage and Verification SCP (PS3.4 Annexes A and B): one blocking thread per association."""

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Protocol

import structlog
from prometheus_client import Counter
from pynetdicom import AE, _config
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_listener.c_store import (
    C_STORE_RQ,
    InvalidCommand,
    StoreRequest,
    command_elements,
    command_field,
    decode_request,
    encode_response,
    has_data_set,
    p_data_tf,
)
from dicom_listener.metrics import ASSOCIATIONS, INSTANCES, STORE_SECONDS
from dicom_listener.open_associations import OpenAssociation, open_for
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.peers import Peer
from dicom_listener.sender import Sender
from dicom_listener.sop_classes import TRANSFER_SYNTAXES, VERIFICATION, is_storage
from dicom_listener.store_status import OTHER_CONTEXT, StoreAnswer
from dicom_listener.upper_layer import BufferedSocket, InlineUpperLayer

MAXIMUM_PDU_BYTES = 131_072
"""What is announced (PS3.8 §D.1); DCMTK sends no longer ones."""

_COMMAND_LIMIT_BYTES = 64 * 1024
_FORWARDED_LIMIT_BYTES = 64 * 1024
_COMMAND, _LAST = 0x01, 0x02
_ACCEPTED, _NO_SUCH_SYNTAX, _NO_TRANSFER_SYNTAX = 0x00, 0x03, 0x04
_TRANSIENT, _PRESENTATION, _LOCAL_LIMIT_EXCEEDED = 0x02, 0x03, 0x02

log = structlog.get_logger()


class Reception(Protocol):
    """Keeps one data set while it arrives. Never raises; ends with ``finish`` or ``abandon``."""

    def write(self, *fragments: memoryview) -> None:
        """Take the next bytes; they are only valid during the call."""

    def finish(self) -> StoreAnswer:
        """All bytes are there: make them durable and findable, or say why not."""

    def abandon(self) -> None:
        """Leave nothing, because the rest will not come."""


class Keep(Protocol):
    """Begins to keep a data set that is about to arrive."""

    def __call__(
        self, request: StoreRequest, transfer_syntax_uid: str, sender: Sender
    ) -> Reception:
        """Return what takes the data set."""

    def association_ended(self, association: OpenAssociation) -> None:
        """Nothing more will come over an association."""


class Admission(Protocol):
    """Counts associations over all receiving processes."""

    def enter(self) -> bool:
        """Count one more, unless there are as many as there may be."""

    def leave(self) -> None:
        """Count one less."""

    def has_more_than_others(self) -> bool:
        """Whether another process should rather accept the next connection."""


@dataclass(frozen=True, slots=True)
class Service:
    """What the associations of one receiving process share."""

    ae: AE
    keep: Keep
    site: Peer
    """What holds for a peer of which nothing is listed."""
    admission: Admission
    wake: int
    """Descriptor that becomes readable when the process drains."""
    acse_timeout_s: float
    idle_timeout_s: float
    """Between two messages."""
    dimse_timeout_s: float
    """Between two pieces of one message."""


def application_entity(ae_title: str) -> AE:
    """Return the local AE, and have pynetdicom neither log nor print what passes through it."""
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    ae = AE(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
    return ae


def accept_contexts(proposed: Sequence[PresentationContext]) -> list[PresentationContext]:
    """Answer the proposed presentation contexts (PS3.8 §7.1.1.13).

    Of the transfer syntaxes of a context the first that the Standard defines is accepted.
    """
    return [_answer_context(context) for context in proposed]


def _answer_context(proposed: PresentationContext) -> PresentationContext:
    context = PresentationContext()
    context.context_id = proposed.context_id
    context.abstract_syntax = proposed.abstract_syntax
    context.transfer_syntax = proposed.transfer_syntax[:1]
    abstract_syntax = str(proposed.abstract_syntax)
    if abstract_syntax != VERIFICATION and not is_storage(abstract_syntax):
        context.result = _NO_SUCH_SYNTAX
        return context
    context.result = _NO_TRANSFER_SYNTAX
    for transfer_syntax in proposed.transfer_syntax:
        if transfer_syntax in TRANSFER_SYNTAXES:
            context.transfer_syntax = [transfer_syntax]
            context.result = _ACCEPTED
            break
    context._as_scp, context._as_scu = True, False  # noqa: SLF001 - the default roles
    return context


class _Negotiation(ACSE):  # type: ignore[misc]
    """Accepts by rule instead of by a list of contexts that would be copied each time."""

    def _negotiate_as_acceptor(self) -> None:
        association: Acceptor = self.assoc
        request = self.requestor.primitive
        self.requestor.ae_title = request.calling_ae_title
        if not association.admitted:
            self.send_reject(_TRANSIENT, _PRESENTATION, _LOCAL_LIMIT_EXCEEDED)
            log.warning(
                "association.rejected",
                reason="too many associations",
                peer=self.requestor.address_info.address,
            )
            association.is_rejected = True
            association.kill()
            return
        contexts = accept_contexts(request.presentation_context_definition_list)
        association._accepted_cx = {c.context_id: c for c in contexts if c.result == _ACCEPTED}  # noqa: SLF001
        association._rejected_cx = [c for c in contexts if c.result != _ACCEPTED]  # noqa: SLF001
        self.send_accept()
        association.is_established = True


class Acceptor(Association):  # type: ignore[misc]
    """One association, from its connection to its end, in a thread of its own."""

    dul: InlineUpperLayer
    is_established: bool

    def __init__(
        self, service: Service, connection: socket.socket, address: tuple[Any, ...]
    ) -> None:
        super().__init__(service.ae, mode="acceptor")
        self._service = service
        self.admitted = False
        self.acse = _Negotiation(self)
        self.dul = InlineUpperLayer(self, self)
        self.acse_timeout = service.acse_timeout_s
        self.dimse_timeout = service.dimse_timeout_s
        self.network_timeout = service.idle_timeout_s
        buffered = BufferedSocket(self, connection, service.wake, self.release_fragments)
        self.set_socket(buffered)
        self.name = "association"
        self.acceptor.maximum_length = service.ae.maximum_pdu_size
        self.acceptor.ae_title = service.ae.ae_title
        self.acceptor.implementation_class_uid = service.ae.implementation_class_uid
        self.acceptor.implementation_version_name = service.ae.implementation_version_name
        self.requestor.address_info = AddressInformation.from_tuple(address)
        self._command = bytearray()
        self._store: tuple[int, StoreRequest, Reception] | None = None
        self._store_began = 0.0
        self._fragments: list[memoryview] = []
        self._is_forwarding = False
        self._forwarded_bytes = 0
        self._instances = 0

    @cached_property
    def sender(self) -> Sender:
        """Who has asked for this association."""
        calling_ae_title = str(self.requestor.ae_title).strip()
        return Sender(
            peer=replace(self._service.site, ae_title=calling_ae_title),
            called_ae_title=str(self.requestor.primitive.called_ae_title).strip(),
            association=open_for(calling_ae_title),
        )

    def run_reactor(self) -> None:
        """Serve the association; whatever happens, leave nothing half-written and close."""
        self.admitted = self._service.admission.enter()
        try:
            super().run_reactor()
        except Exception:
            log.exception("association.failed")
            self._abort_at_once()
        finally:
            if self._store:
                self._store[2].abandon()
            self.dul.stop_dul()
            if self.admitted:
                self._service.admission.leave()
            if self._instances and self.sender.association:
                self._service.keep.association_ended(self.sender.association)
            ASSOCIATIONS.labels(self._outcome()).inc()
            calling_ae_title = str(self.requestor.ae_title or "").strip()
            log.info(
                "association.ended",
                calling_ae_title=calling_ae_title,
                peer=self.requestor.address_info.address,
                count=self._instances,
                outcome=self._outcome(),
            )

    def _outcome(self) -> str:
        if self.is_rejected:
            return "rejected"
        return "released" if self.is_released else "aborted"

    def _run_reactor(self) -> None:
        """Serve messages until the peer releases, aborts, stays silent, or the process drains."""
        while not self._kill:
            has_come = self.dul.step(
                self._service.dimse_timeout_s
                if self._is_amid_message
                else self._service.idle_timeout_s
            )
            if self.dul.has_only_data and self.dimse.msg_queue.empty():
                continue
            is_draining = self.dul.is_draining
            is_over = not self._is_amid_message if is_draining else not has_come
            if self.dul.is_alive() and is_over:
                reason = "draining" if is_draining else "idle for too long"
                log.info("association.aborted", reason=reason)
                self.abort()
                return
            if not self.dimse.msg_queue.empty():
                context_id, message = self.dimse.get_msg(block=False)
                self._serve_request(message, context_id)
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released = True
                self.is_established = False
                self.kill()
            elif self.acse.is_aborted() or not self.dul.is_alive():
                self.is_aborted = True
                self.is_established = False
                self.kill()

    @property
    def _is_amid_message(self) -> bool:
        return self._store is not None or self._is_forwarding or bool(self._command)

    @property
    def is_amid_data(self) -> bool:
        """Whether a data set is arriving."""
        return self._store is not None

    def _abort_at_once(self) -> None:
        """Send A-ABORT past a state machine that no longer holds (PS3.8 §9.3.8)."""
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 0x02, 0x00
        if self.dul.socket is not None:
            self.dul.socket.send(abort.encode())

    def on_fragment(self, context_id: int, control: int, fragment: memoryview, left: int) -> None:
        """Take a part of a message: a command set, or the data set that goes with one.

        Raises
        ------
        ValueError
            The peer breaks PS3.7 or PS3.8 Annex E.
        """
        is_last = bool(control & _LAST) and not left
        if control & _COMMAND:
            self._on_command(context_id, fragment, is_last=is_last)
        elif self._store is not None and self._store[0] == context_id:
            self._fragments.append(fragment)
            if is_last:
                self._finish_store()
        elif self._is_forwarding:
            self._forwarded_bytes += len(fragment)
            if self._forwarded_bytes > _FORWARDED_LIMIT_BYTES:
                raise ValueError("a data set of no end for a service that is not offered")
            self._forward(context_id, control if not left else 0, bytes(fragment))
            self._is_forwarding = not is_last
        else:
            raise ValueError("a data set without a command")

    def release_fragments(self) -> None:
        """Have what has arrived of a data set written."""
        if self._fragments:
            fragments, self._fragments = self._fragments, []
            if self._store is not None:
                self._store[2].write(*fragments)

    def _on_command(self, context_id: int, fragment: memoryview, *, is_last: bool) -> None:
        if self._store is not None or self._is_forwarding:
            raise ValueError("a command inside a data set")
        self._command += fragment
        if len(self._command) > _COMMAND_LIMIT_BYTES:
            raise ValueError("a command set of no end")
        if not is_last:
            return
        command_set, self._command = bytes(self._command), bytearray()
        context = self._accepted_cx.get(context_id)
        if context is None:
            raise ValueError("a presentation context that was not accepted")
        try:
            elements = command_elements(command_set)
            if command_field(elements) == C_STORE_RQ:
                self._begin_store(context, decode_request(elements))
                return
            self._is_forwarding, self._forwarded_bytes = has_data_set(elements), 0
        except InvalidCommand as error:
            raise ValueError(str(error)) from error
        self._forward(context_id, _COMMAND | _LAST, command_set)

    def _begin_store(self, context: PresentationContext, request: StoreRequest) -> None:
        if request.affected_sop_class_uid == context.abstract_syntax:
            transfer_syntax_uid = str(context.transfer_syntax[0])
            reception = self._service.keep(request, transfer_syntax_uid, self.sender)
        else:
            reception = Refusal(OTHER_CONTEXT)
        self._store = (context.context_id, request, reception)
        self._store_began = time.monotonic()
        if not request.has_data_set:
            self._finish_store()

    def _finish_store(self) -> None:
        assert self._store is not None  # noqa: S101 - both callers have one
        context_id, request, reception = self._store
        self.release_fragments()
        self._store = None
        answer = reception.finish()
        response = encode_response(request, answer)
        maximum_length = self.requestor.maximum_length or 0
        assert self.dul.socket is not None  # noqa: S101 - it is being read
        self.dul.socket.send(p_data_tf(context_id, response, maximum_length))
        self._instances += 1
        _answered(answer.status).inc()
        STORE_SECONDS.observe(time.monotonic() - self._store_began)

    def _forward(self, context_id: int, control: int, value: bytes) -> None:
        """Give a fragment of any other service's message to pynetdicom."""
        primitive = P_DATA()
        primitive.presentation_data_value_list = [[context_id, bytes([control]) + value]]
        try:
            self.dimse.receive_primitive(primitive)
        except Exception as error:
            raise ValueError("a message that cannot be decoded") from error


@cache
def _answered(status: int) -> Counter:
    return INSTANCES.labels(f"{status:04X}")


class Refusal:
    """Takes a data set that is refused, and drops it."""

    def __init__(self, answer: StoreAnswer) -> None:
        self._answer = answer

    def write(self, *fragments: memoryview) -> None:
        """Drop the bytes."""

    def finish(self) -> StoreAnswer:
        """Refuse."""
        return self._answer

    def abandon(self) -> None:
        """There is nothing to leave."""
