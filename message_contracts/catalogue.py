"""Every message there is, and how it is written down."""

import json
from typing import Any

from pydantic import ValidationError

from message_contracts.delivery import (
    AttachmentDelivered,
    AttachmentFailed,
    AttachmentRequested,
    CommitmentReported,
    RejectionDelivered,
    RejectionFailed,
    RejectionRequested,
    ReportDelivered,
    ReportFailed,
    ReportRequested,
)
from message_contracts.envelope import Envelope
from message_contracts.inference import (
    ExplanationRequested,
    InferenceCompleted,
    InferenceFailed,
    InferenceRequested,
)
from message_contracts.ingest import StudyConflicted, StudyOpened, StudyReceived, StudyUpdated
from message_contracts.intake import (
    CompletionRequested,
    ConflictDecided,
    ConflictSettled,
    ConflictUnsettled,
    InstanceDuplicated,
    QuarantineDecided,
)
from message_contracts.message import Message

MESSAGES: dict[str, type[Message]] = {
    message.event_type(): message
    for message in (
        StudyOpened,
        StudyReceived,
        StudyUpdated,
        StudyConflicted,
        CompletionRequested,
        ConflictDecided,
        ConflictSettled,
        ConflictUnsettled,
        InstanceDuplicated,
        QuarantineDecided,
        InferenceRequested,
        InferenceCompleted,
        InferenceFailed,
        ExplanationRequested,
        AttachmentRequested,
        AttachmentDelivered,
        AttachmentFailed,
        CommitmentReported,
        RejectionRequested,
        RejectionDelivered,
        RejectionFailed,
        ReportRequested,
        ReportDelivered,
        ReportFailed,
    )
}
"""CloudEvents ``type`` to message."""

_SPEC_VERSION = "1.0"
_CONTENT_TYPE = "application/json"


class UndecodableMessage(ValueError):
    """The bytes are not an event of this catalogue; the reason names the attribute at fault."""


def encode(envelope: Envelope) -> bytes:
    """Return the event in CloudEvents' JSON format, structured mode."""
    event: dict[str, Any] = {
        "specversion": _SPEC_VERSION,
        "id": str(envelope.id),
        "source": envelope.source,
        "type": envelope.event_type,
        "time": envelope.time.isoformat(),
        "datacontenttype": _CONTENT_TYPE,
        "correlationid": str(envelope.correlation_id),
        "data": envelope.body.model_dump(mode="json"),
    }
    if envelope.causation_id is not None:
        event["causationid"] = str(envelope.causation_id)
    if envelope.traceparent is not None:
        event["traceparent"] = envelope.traceparent
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def decode(body: bytes) -> Envelope:
    """Return the event that ``body`` holds.

    Raises
    ------
    UndecodableMessage
        Not JSON, not CloudEvents 1.0, of a type or version that is not in the catalogue, or with a
        field at fault. The reason quotes no value.
    """
    try:
        event = json.loads(body)
    except ValueError as error:
        reason = "the body is not JSON"
        raise UndecodableMessage(reason) from error
    if not isinstance(event, dict) or event.get("specversion") != _SPEC_VERSION:
        reason = "specversion: not a CloudEvents 1.0 event"
        raise UndecodableMessage(reason)
    message = MESSAGES.get(str(event.get("type")))
    if message is None:
        reason = "type: not in the catalogue"
        raise UndecodableMessage(reason)
    try:
        return Envelope(
            id=event.get("id"),
            source=event.get("source"),
            time=event.get("time"),
            body=message.model_validate(event.get("data")),
            correlation_id=event.get("correlationid"),
            causation_id=event.get("causationid"),
            traceparent=event.get("traceparent"),
        )
    except ValidationError as error:
        fields = ", ".join(
            sorted({".".join(str(part) for part in fault["loc"]) for fault in error.errors()})
        )
        reason = f"{message.TYPE}: at fault: {fields}"
        raise UndecodableMessage(reason) from error
