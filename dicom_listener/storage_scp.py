"""The Storage and Verification SCP (PS3.4 Annexes A and B): one blocking thread per association."""

import socket
import ssl
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import structlog
from prometheus_client import Counter
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_listener.admission import AssociationRequest
from dicom_listener.c_store import (
    C_STORE_RQ,
    InvalidCommand,
    StoreRequest,
    command_elements,
    command_field,
    decode_request,
    encode_response,
    has_data_set,
)
from dicom_listener.connection import BufferedSocket, ConnectionEnded
from dicom_listener.dimse_n import DATA_SET_LIMIT_BYTES, NormalizedDialog
from dicom_listener.forwarding import Forwarding
from dicom_listener.keeping import Keep, Reception, Refusal
from dicom_listener.metrics import ASSOCIATIONS, INSTANCES, REJECTIONS, STORE_SECONDS
from dicom_listener.negotiation import FrontDoor, Negotiation
from dicom_listener.open_associations import open_for
from dicom_listener.peers import Peer
from dicom_listener.presentation_data import COMMAND, LAST, p_data_tf
from dicom_listener.sender import Sender
from dicom_listener.store_status import OTHER_CONTEXT
from dicom_listener.tls_connection import NotSecured, TlsSocket
from dicom_listener.upper_layer import InlineUpperLayer

_COMMAND_LIMIT_BYTES = 64 * 1024
_OTHER_DATA_SET_LIMIT_BYTES = 64 * 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Service:
    """What the associations of one receiving process share."""

    ae: AE
    keep: Keep
    front_door: FrontDoor
    wake: int
    """Descriptor that becomes readable when the process drains."""
    acse_timeout_s: float
    idle_timeout_s: float
    """Between two messages."""
    dimse_timeout_s: float
    """Between two pieces of one message."""


class Acceptor(Association):  # type: ignore[misc]
    """One association, from its connection to its end, in a thread of its own."""

    dul: InlineUpperLayer
    is_established: bool

    def __init__(
        self, service: Service, connection: socket.socket, address: tuple[Any, ...]
    ) -> None:
        super().__init__(service.ae, mode="acceptor")
        self._service = service
        self.front_door = service.front_door
        self.sender: Sender | None = None
        """Who has asked for this association, once it has been accepted."""
        self.services: NormalizedDialog | None = None
        self.acse = Negotiation(self)
        self.dul = InlineUpperLayer(self, self)
        self.acse_timeout = service.acse_timeout_s
        self.dimse_timeout = service.dimse_timeout_s
        self.network_timeout = service.idle_timeout_s
        kind = TlsSocket if isinstance(connection, ssl.SSLSocket) else BufferedSocket
        self.set_socket(
            kind(self, connection, service.wake, self.release_fragments, service.dimse_timeout_s)
        )
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
        self._others = Forwarding(self.dimse.msg_queue)
        self._maximum_length = 0
        """Of what the requestor takes at a time (PS3.8 §D.1); 0 is any."""
        self._instances = 0
        self._has_let_go = False

    @property
    def request(self) -> AssociationRequest:
        """What the A-ASSOCIATE-RQ says."""
        return AssociationRequest(
            calling_ae_title=self.dul.calling_ae_title,
            called_ae_title=self.dul.called_ae_title,
            application_context_name=str(self.requestor.primitive.application_context_name or ""),
            address=self.requestor.address_info.address,
        )

    def enter(self, peer: Peer) -> None:
        """Be the association of a peer that has been let in."""
        self.requestor.ae_title = peer.ae_title
        self._maximum_length = self.requestor.maximum_length or 0
        self.sender = Sender(peer, self.dul.called_ae_title, open_for(peer.ae_title))
        offer = self.front_door.offer_to(peer)
        self.services = NormalizedDialog(self.dimse.send_msg, offer, peer)

    def cut(self) -> None:
        """End the connection, from another thread."""
        if (connection := self.dul.socket) is not None:
            connection.cut()

    def run_reactor(self) -> None:
        """Serve the association; whatever happens, leave nothing half-written and close."""
        self.front_door.count.connect()
        try:
            if self._is_secured():
                super().run_reactor()
        except InvalidEventError:
            reason = "a PDU that has no place here"
            log.warning("association.aborted", reason=reason, peer=self._address)
            self._abort_at_once()
        except Exception:
            log.exception("association.failed")
            self._abort_at_once()
        finally:
            try:
                self._end()
            except Exception:
                log.exception("association.failed")
            self.front_door.count.disconnect()

    def _is_secured(self) -> bool:
        """Shake hands, where the connection is under TLS; return whether it can go on."""
        connection = self.dul.socket
        if connection is None:
            return False
        connection.deadline = time.monotonic() + self._service.acse_timeout_s
        try:
            connection.shake_hands()
        except NotSecured as error:
            REJECTIONS.labels("tls").inc()
            log.warning("association.not_secured", reason=str(error), peer=self._address)
        except ConnectionEnded:
            log.debug("association.ended_early", peer=self._address)
        else:
            return True
        return False

    def _end(self) -> None:
        if self._store:
            self._store[2].abandon()
        self.is_established = False
        if self.sender is not None:
            self.front_door.leave(self.sender.peer)
            self._let_go()
        self.dul.stop_dul()
        self._fragments.clear()
        if self.dul.socket is not None:
            self.dul.socket.give_back()
        if self.services is not None:
            self.services.end()
        ASSOCIATIONS.labels(self._outcome()).inc()
        log.info(
            "association.ended",
            calling_ae_title=self.sender.calling_ae_title if self.sender else None,
            peer=self._address,
            count=self._instances,
            outcome=self._outcome(),
        )

    def _let_go(self) -> None:
        """Have what came over it entered: who is told that it is over finds all of it."""
        if not self._has_let_go and self._instances and self.sender and self.sender.association:
            self._has_let_go = True
            self._service.keep.association_ended(self.sender.association)

    @property
    def _address(self) -> str:
        return str(self.requestor.address_info.address)

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
            is_draining = self.dul.is_draining
            if self.dul.has_only_data and not is_draining and self.dimse.msg_queue.empty():
                continue
            is_over = not self._is_amid_message if is_draining else not has_come
            if self.dul.is_alive() and is_over:
                reason = "draining" if is_draining else "idle for too long"
                log.info("association.aborted", reason=reason)
                self.abort()
                return
            if not self.dimse.msg_queue.empty():
                context_id, message = self.dimse.get_msg(block=False)
                if context_id is not None:  # else pynetdicom says that the association is over
                    self._serve_request(message, context_id)
            if self.is_established and self.acse.is_release_requested():
                self._let_go()
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
        return self._store is not None or self._others.is_amid_data_set or bool(self._command)

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
        is_last = bool(control & LAST) and not left
        if control & COMMAND:
            self._on_command(context_id, fragment, is_last=is_last)
        elif self._store is not None and self._store[0] == context_id:
            self._fragments.append(fragment)
            if is_last:
                self._finish_store()
        elif self._others.is_amid_data_set:
            self._others.data(context_id, control, fragment, left)
        else:
            raise ValueError("a data set without a command")

    def release_fragments(self) -> None:
        """Have what has arrived of a data set written."""
        if self._fragments:
            fragments, self._fragments = self._fragments, []
            if self._store is not None:
                self._store[2].write(*fragments)

    def room(self, context_id: int, control: int) -> memoryview | None:
        """Return where the next bytes of a data set that is arriving may be put."""
        if self._store is None or self._store[0] != context_id or control & COMMAND:
            return None
        self.release_fragments()
        return self._store[2].room()

    def on_filled(self, control: int, piece: memoryview, left: int) -> None:
        """Take what was put where `room` said."""
        assert self._store is not None  # noqa: S101 - it had room
        self._store[2].took(piece)
        if control & LAST and not left:
            self._finish_store()

    def _on_command(self, context_id: int, fragment: memoryview, *, is_last: bool) -> None:
        if self._store is not None or self._others.is_amid_data_set:
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
            limit_bytes = None
            if has_data_set(elements):
                is_offered = self.services and context.abstract_syntax in self.services.offer.known
                limit_bytes = DATA_SET_LIMIT_BYTES if is_offered else _OTHER_DATA_SET_LIMIT_BYTES
        except InvalidCommand as error:
            raise ValueError(str(error)) from error
        self._others.command(context_id, command_set, limit_bytes)

    def _begin_store(self, context: PresentationContext, request: StoreRequest) -> None:
        reception: Reception
        if request.affected_sop_class_uid == context.abstract_syntax:
            transfer_syntax_uid = str(context.transfer_syntax[0])
            assert self.sender is not None  # noqa: S101 - it has been accepted
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
        assert self.dul.socket is not None  # noqa: S101 - it is being read
        self.dul.socket.send(p_data_tf(context_id, response, self._maximum_length))
        self._instances += 1
        _answered(answer.status).inc()
        STORE_SECONDS.observe(time.monotonic() - self._store_began)

    def _serve_request(self, message: Any, context_id: int) -> None:
        """Have a request of another service than Storage answered."""
        if self.services is None or not self.services.take(message, self._accepted_cx[context_id]):
            super()._serve_request(message, context_id)


@cache
def _answered(status: int) -> Counter:
    return INSTANCES.labels(f"{status:04X}")
