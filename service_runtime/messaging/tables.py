"""The tables of messaging: outbox, delay queue, embedded queue and dead letters are these four."""

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from service_runtime.database import UtcDateTime, metadata

RELAY_QUEUE = "relay"
"""Where a new message waits that goes to the broker; the topology has no queue of this name."""

message = Table(
    "message",
    metadata,
    Column("id", String(36), primary_key=True),
    # The routing key: the message type and, where it has one, the lane.
    Column("routing_key", String(100), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

delivery = Table(
    "delivery",
    metadata,
    Column("queue", String(100), primary_key=True),
    Column("message_id", String(36), ForeignKey("message.id"), primary_key=True),
    # Seconds since 1970, as the two below: they are only compared.
    Column("due_at", Float(53), nullable=False),
    # How often its handling has failed.
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    # How often it was taken since then: high where its consumers die of it.
    Column("claims", Integer, nullable=False, server_default=text("0")),
    Column("leased_until", Float(53), nullable=False, server_default=text("0")),
    # Process id, start time and a random part of whoever has claimed it; empty when nobody has.
    Column("lease_token", String(100), nullable=False, server_default=text("''")),
    Column("last_error", Text),
    Index("ix_delivery_queue_due_at", "queue", "due_at"),
)

inbox = Table(
    "inbox",
    metadata,
    Column("queue", String(100), primary_key=True),
    Column("message_id", String(36), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("queue", String(100), nullable=False),
    # Null where the body told no id.
    Column("message_id", String(36)),
    Column("routing_key", String(100), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    # Null until somebody has decided; then who, "replayed" or "discarded", and why.
    Column("resolved_at", UtcDateTime),
    Column("resolved_by", String(200)),
    Column("resolution", String(20)),
    Column("why", Text),
    # Whoever answers a message asks how often that was replayed.
    Index("ix_dead_letter_message_id", "message_id"),
    # One open dead letter per queue and message, however often the broker tells of it.
    Index(
        "uq_dead_letter_open",
        "queue",
        "message_id",
        unique=True,
        sqlite_where=text("resolved_at IS NULL"),
        postgresql_where=text("resolved_at IS NULL"),
    ),
)
