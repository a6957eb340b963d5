"""The envelope in which every message travels: CloudEvents 1.0."""

from datetime import datetime
from typing import Self, TypeVar
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, SerializeAsAny

from message_contracts.message import Message

M = TypeVar("M", bound=Message)


class Envelope(BaseModel):
    """One message on its way, with what identifies it and what led to it.

    Attribute names on the wire are CloudEvents' (lower case, no separators); ``correlation_id`` and
    ``causation_id`` are extension attributes, ``traceparent`` is the Distributed Tracing extension.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID
    """The same id twice is the same message twice."""

    source: str
    """The package that sent it."""

    time: AwareDatetime
    body: SerializeAsAny[Message]
    correlation_id: UUID
    """One journey: the id of the message that began it."""

    causation_id: UUID | None = None
    """The message that led to this one."""

    traceparent: str | None = None
    """W3C Trace Context."""

    @classmethod
    def of(
        cls,
        message: Message,
        *,
        source: str,
        time: datetime,
        id: UUID | None = None,  # noqa: A002 - CloudEvents calls it so
        caused_by: "Envelope | None" = None,
        traceparent: str | None = None,
    ) -> Self:
        """Put ``message`` into an envelope; without ``caused_by`` it begins a journey."""
        own_id = id or uuid4()
        return cls(
            id=own_id,
            source=source,
            time=time,
            body=message,
            correlation_id=caused_by.correlation_id if caused_by else own_id,
            causation_id=caused_by.id if caused_by else None,
            traceparent=traceparent or (caused_by.traceparent if caused_by else None),
        )

    def leads_to(
        self,
        message: Message,
        *,
        source: str,
        time: datetime,
        id: UUID | None = None,  # noqa: A002 - CloudEvents calls it so
    ) -> "Envelope":
        """Put ``message`` into an envelope of the same journey, caused by this one."""
        return Envelope.of(message, source=source, time=time, id=id, caused_by=self)

    @property
    def event_type(self) -> str:
        """The CloudEvents ``type``, such as ``org.countersign.study.received.v1``."""
        return self.body.event_type()

    def data(self, expected: type[M]) -> M:
        """Return the body as the message it must be.

        Raises
        ------
        TypeError
            The body is another message: the handler is bound to a queue it was not made for.
        """
        if type(self.body) is not expected:
            reason = f"expected {expected.TYPE}, received {self.body.TYPE}"
            raise TypeError(reason)
        return self.body
