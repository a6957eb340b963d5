"""What every message is."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """The payload of an event. It carries references; pixels and names stay in the store.

    Unknown fields are passed over, so that a newer sender may add optional ones.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    TYPE: ClassVar[str]
    """``noun.past_participle``."""

    VERSION: ClassVar[int] = 1
    """Raised when a field changes its meaning or goes; the old version stays beside it."""

    @classmethod
    def event_type(cls) -> str:
        """Return the CloudEvents ``type``: reverse domain name, message type and version."""
        return f"org.countersign.{cls.TYPE}.v{cls.VERSION}"

    @property
    def routing_key(self) -> str:
        """The AMQP routing key; the message type, unless the message chooses a lane."""
        return self.TYPE
