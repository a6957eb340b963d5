"""DIMSE-N on an association (PS3.7 §10): requests to services and back; pynetdicom's codec."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import (
    N_ACTION,
    N_CREATE,
    N_DELETE,
    N_EVENT_REPORT,
    N_GET,
    N_SET,
)
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from dicom_listener.normalized import (
    NO_SUCH_SOP_CLASS,
    NOT_AUTHORIZED,
    PROCESSING_FAILURE,
    UNRECOGNIZED_OPERATION,
    Answer,
    EventReport,
    Offer,
    Request,
)
from dicom_listener.peers import Peer

DATA_SET_LIMIT_BYTES = 16 * 1024 * 1024
"""A longer data set of a service that is offered ends its association."""

_HIGHEST_MESSAGE_ID = 0xFFFF
_MESSAGES = (N_CREATE, N_SET, N_ACTION, N_EVENT_REPORT, N_GET, N_DELETE)
_DATA_SET = {
    N_CREATE: "AttributeList",
    N_SET: "ModificationList",
    N_ACTION: "ActionInformation",
    N_EVENT_REPORT: "EventInformation",
}

log = structlog.get_logger()


class NormalizedDialog:
    """The DIMSE-N requests and reports of one association, in its own thread."""

    def __init__(self, send: Callable[[Any, int], None], offer: Offer, peer: Peer) -> None:
        self._send = send
        self.offer = offer
        self._peer = peer
        self._reports: dict[int, EventReport] = {}
        self._last_message_id = 0

    def take(self, message: Any, context: PresentationContext) -> bool:
        """Answer a request, or hear an answer; return whether the message is of DIMSE-N."""
        if not isinstance(message, _MESSAGES):
            return False
        if message.MessageIDBeingRespondedTo is not None:
            event = self._reports.pop(message.MessageIDBeingRespondedTo, None)
            if event is not None:
                event.on_answer(message.Status)
            return True
        if not message.is_valid_request:
            return False
        response, answer = respond(message, context, self.offer, self._peer)
        self._send(response, context.context_id)
        if answer.event is not None:
            self._report(answer.event, message, context)
        return True

    def _report(self, event: EventReport, about: Any, context: PresentationContext) -> None:
        """Tell the peer of an event; what it answers is heard in its turn, among its requests."""
        self._last_message_id = self._last_message_id % _HIGHEST_MESSAGE_ID + 1
        request = report(event, about, context, self._last_message_id)
        if request is None:
            event.on_answer(None)
            return
        self._reports[self._last_message_id] = event
        self._send(request, context.context_id)

    def end(self) -> None:
        """Have nobody wait any longer: the association has ended."""
        for event in self._reports.values():
            event.on_answer(None)


def respond(
    message: Any, context: PresentationContext, offer: Offer, peer: Peer
) -> tuple[Any, Answer]:
    """Have a request answered; return the response, and what the service said."""
    sop_class_uid = _text(message, "SOPClassUID")
    sop_instance_uid = _text(message, "SOPInstanceUID")
    answer = _answer(message, context, offer, peer)
    response = type(message)()
    response.MessageIDBeingRespondedTo = message.MessageID
    response.AffectedSOPClassUID = sop_class_uid
    response.AffectedSOPInstanceUID = sop_instance_uid or answer.sop_instance_uid or None
    response.Status = answer.status
    if isinstance(message, N_EVENT_REPORT):
        response.EventTypeID = message.EventTypeID
    if answer.comment:
        response.ErrorComment = answer.comment
    if answer.error_id is not None:
        response.ErrorID = answer.error_id
    return response, answer


def report(
    event: EventReport, about: Any, context: PresentationContext, message_id: int
) -> N_EVENT_REPORT | None:
    """Return the N-EVENT-REPORT-RQ about what ``about`` asked for; none where it has no form."""
    transfer_syntax = context.transfer_syntax[0]
    information = encode(
        event.information,
        transfer_syntax.is_implicit_VR,
        transfer_syntax.is_little_endian,
        transfer_syntax.is_deflated,
    )
    if information is None:
        return None
    request = N_EVENT_REPORT()
    request.MessageID = message_id
    request.AffectedSOPClassUID = _text(about, "SOPClassUID")
    request.AffectedSOPInstanceUID = _text(about, "SOPInstanceUID")
    request.EventTypeID = event.event_type_id
    request.EventInformation = BytesIO(information)
    return request


def _answer(message: Any, context: PresentationContext, offer: Offer, peer: Peer) -> Answer:
    sop_class_uid = _text(message, "SOPClassUID")
    if sop_class_uid not in offer.known:
        return Answer(NO_SUCH_SOP_CLASS, "No service for this SOP Class")
    if sop_class_uid != context.abstract_syntax:
        return Answer(NOT_AUTHORIZED, "The SOP Class is not that of the presentation context")
    operation = _operation(message, sop_class_uid, offer)
    if operation is None:
        return Answer(UNRECOGNIZED_OPERATION, "The SOP Class has no such operation here")
    try:
        request = Request(
            peer=peer,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=_text(message, "SOPInstanceUID"),
            data_set=_data_set(message, context),
            action_type_id=getattr(message, "ActionTypeID", None)
            or getattr(message, "EventTypeID", None),
        )
    except Exception as error:
        log.warning("request.not_decoded", sop_class_uid=sop_class_uid, exc_info=error)
        return Answer(PROCESSING_FAILURE, "The data set cannot be decoded")
    try:
        return operation(request)
    except Exception:
        log.exception("request.failed", sop_class_uid=sop_class_uid)
        return Answer(PROCESSING_FAILURE, "Internal error; please ask again")


def _operation(
    message: Any, sop_class_uid: str, offer: Offer
) -> Callable[[Request], Answer] | None:
    service = offer.services.get(sop_class_uid)
    receiver = offer.receivers.get(sop_class_uid)
    if isinstance(message, N_EVENT_REPORT):
        return receiver.n_event_report if receiver else None
    if service is None:
        return None
    operations: dict[type, Callable[[Request], Answer]] = {
        N_CREATE: service.n_create,
        N_SET: service.n_set,
        N_ACTION: service.n_action,
    }
    return operations.get(type(message))


def _data_set(message: Any, context: PresentationContext) -> Dataset:
    encoded = getattr(message, _DATA_SET[type(message)])
    if encoded is None or not encoded.getbuffer().nbytes:
        return Dataset()
    transfer_syntax = context.transfer_syntax[0]
    decoded: Dataset = decode(
        encoded,
        transfer_syntax.is_implicit_VR,
        transfer_syntax.is_little_endian,
        transfer_syntax.is_deflated,
    )
    return decoded


def _text(message: Any, name: str) -> str:
    """Return a UID of the command, which is Affected in some messages and Requested in others."""
    value = getattr(message, f"Affected{name}", None) or getattr(message, f"Requested{name}", None)
    return str(value or "")
