"""The delivery table: send, claim, settle, retry, give back, bury; the same on both databases."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Update,
    and_,
    bindparam,
    delete,
    select,
    tuple_,
    update,
)

from message_contracts import catalogue, topology
from message_contracts.envelope import Envelope
from service_runtime.database import Transaction
from service_runtime.errors import PermanentError, TransientError
from service_runtime.messaging.backlog import FOR_THE_RELAY
from service_runtime.messaging.tables import RELAY_QUEUE, dead_letter, delivery, inbox, message
from service_runtime.telemetry import trace


class UnboundMessage(PermanentError):
    """No queue is bound to the message: nobody would ever read it."""


class LeaseLost(TransientError):
    """Somebody else has the delivery by now, or it is done: nothing of this handling counts."""


@dataclass(frozen=True)
class Delivery:
    """A message on its way to one queue, as its holder sees it."""

    queue: str
    message_id: str
    routing_key: str
    body: bytes
    attempt: int
    """How often its handling has failed before."""

    claims: int
    """How often it was taken since then, this time included."""

    lease_token: str
    last_error: str | None = None


@dataclass(frozen=True)
class Again:
    """How a delivery comes again."""

    attempt: int
    """How often its handling has failed by then."""

    delay_s: float
    reason: str


def send(transaction: Transaction, envelope: Envelope) -> None:
    """Send a message as part of the transaction: it leaves if, and only if, that commits.

    The same message id sent again is the same message: nothing happens.

    Raises
    ------
    UnboundMessage
        No queue of the topology is bound to it.
    """
    queues = topology.queues_for(envelope.body)
    if not queues:
        reason = f"{envelope.body.routing_key}: no queue is bound to it"
        raise UnboundMessage(reason)
    if envelope.traceparent is None:
        envelope = envelope.model_copy(update={"traceparent": trace.begin()})
    body = catalogue.encode(envelope)
    if keep(transaction, str(envelope.id), envelope.body.routing_key, body):
        bound = (RELAY_QUEUE,) if transaction.database.via_relay else queues
        deliver(transaction, str(envelope.id), bound)


def keep(transaction: Transaction, message_id: str, routing_key: str, body: bytes) -> bool:
    """Keep a message; return whether it was new."""
    kept = transaction.connection.execute(
        transaction.database.insert_new(message),
        {
            "id": message_id,
            "routing_key": routing_key,
            "body": body,
            "created_at": _now(),
        },
    )
    return kept.rowcount == 1


def deliver(
    transaction: Transaction,
    message_id: str,
    queues: Sequence[str],
    *,
    delay_s: float = 0,
    attempt: int = 0,
    error: str | None = None,
) -> None:
    """Have a message that is kept delivered to ``queues``, where it does not wait already."""
    transaction.connection.execute(
        transaction.database.insert_new(delivery),
        [
            {
                "queue": queue,
                "message_id": message_id,
                "due_at": time.time() + delay_s,
                "attempt": attempt,
                "last_error": error,
            }
            for queue in queues
        ],
    )
    transaction.after_commit(transaction.database.wake)


def deliver_again(transaction: Transaction, held: Delivery, again: Again) -> None:
    """Have a message that the broker gave us come again, to the queue that it came by.

    The row by which the relay published it may still be there: a handler can be done before the
    relay has its confirm. It is taken from the relay, which then no longer ends it.
    """
    values = {
        "due_at": time.time() + again.delay_s,
        "attempt": again.attempt,
        "last_error": again.reason,
    }
    key = {"queue": held.queue, "message_id": held.message_id}
    connection = transaction.connection
    entered = 0
    while not entered:
        entered = connection.execute(
            transaction.database.insert_new(delivery), key | values
        ).rowcount
        if not entered:
            # None where the relay has ended it between the two.
            entered = connection.execute(
                update(delivery)
                .where(*(delivery.c[name] == value for name, value in key.items()))
                .values(**values, claims=0, leased_until=0, lease_token="")
            ).rowcount
    transaction.after_commit(transaction.database.wake)


def claim(
    transaction: Transaction,
    queue: str | None,
    limit: int,
    lease_token: str,
    lease_s: float,
) -> list[Delivery]:
    """Lease up to ``limit`` deliveries that are due, the longest due first.

    ``queue`` of ``None`` is every queue and no branch: what the relay publishes.
    """
    now = time.time()
    parameters = {
        "now": now,
        "until": now + lease_s,
        "token": lease_token,
        "limit": limit,
        "from_queue": queue,
    }
    statement = _CLAIM_ANY if queue is None else _CLAIM
    rows = transaction.connection.execute(statement, parameters).all()
    claimed = [
        (
            row.due_at,
            Delivery(
                queue=row.queue,
                message_id=row.message_id,
                routing_key=row.routing_key,
                body=bytes(row.body),
                attempt=row.attempt,
                claims=row.claims,
                lease_token=lease_token,
                last_error=row.last_error,
            ),
        )
        for row in rows
    ]
    return [taken for _, taken in sorted(claimed, key=lambda pair: pair[0])]


def renew(transaction: Transaction, lease_token: str, lease_s: float) -> None:
    """Hold everything that ``lease_token`` holds for longer."""
    transaction.connection.execute(
        update(delivery)
        .where(delivery.c.lease_token == lease_token)
        .values(leased_until=time.time() + lease_s)
    )


def first_time(transaction: Transaction, queue: str, message_id: str) -> bool:
    """Enter a message in the inbox; return whether it was not there."""
    entered = transaction.connection.execute(
        transaction.database.insert_new(inbox),
        {"queue": queue, "message_id": message_id, "at": _now()},
    )
    return entered.rowcount == 1


def settle(transaction: Transaction, held: Delivery) -> None:
    """End a delivery.

    Raises
    ------
    LeaseLost
        It is no longer ours to end; the transaction must not commit.
    """
    ended = transaction.connection.execute(
        _SETTLE,
        {
            "the_queue": held.queue,
            "the_message": held.message_id,
            "token": held.lease_token,
        },
    )
    if ended.rowcount != 1:
        reason = f"{held.queue}: the lease has run out"
        raise LeaseLost(reason)


def settle_all(transaction: Transaction, held: Sequence[Delivery]) -> None:
    """End deliveries that were published; one that is not ours any more is passed over."""
    if held:
        transaction.connection.execute(delete(delivery).where(_any_of(held)))


def retry(transaction: Transaction, held: Delivery, again: Again) -> None:
    """Have a delivery whose handling failed, or was postponed, come again.

    Raises
    ------
    LeaseLost
        It is no longer ours.
    """
    moved = transaction.connection.execute(
        update(delivery)
        .where(_any_of([held]))
        .values(
            due_at=time.time() + again.delay_s,
            attempt=again.attempt,
            claims=0,
            leased_until=0,
            lease_token="",
            last_error=again.reason,
        )
    )
    if moved.rowcount != 1:
        reason = f"{held.queue}: the lease has run out"
        raise LeaseLost(reason)


def give_back(
    transaction: Transaction, held: Sequence[Delivery], *, delay_s: float = 0, error: str = ""
) -> None:
    """Let go of deliveries that were claimed and not handled."""
    if not held:
        return
    values: dict[str, object] = {
        "leased_until": 0,
        "lease_token": "",
        "claims": delivery.c.claims - 1,
    }
    if delay_s:
        values |= {"due_at": time.time() + delay_s, "last_error": error}
    transaction.connection.execute(update(delivery).where(_any_of(held)).values(values))


def release_leases_of(transaction: Transaction, process_token: str) -> int:
    """Let go of everything that a dead process held; return how many deliveries that were.

    ``process_token`` is its process id and start time (``process_identity.token_of``), so that
    a process that has the same number by now keeps what it holds.
    """
    released = transaction.connection.execute(
        update(delivery)
        .where(delivery.c.lease_token.startswith(process_token + "/", autoescape=True))
        .values(leased_until=0, lease_token="")
    )
    if released.rowcount:
        transaction.after_commit(transaction.database.wake)
    return released.rowcount


def bury(transaction: Transaction, held: Delivery, reason: str, attempts: int) -> bool:
    """Make a dead letter; return ``False`` where the message lies there already."""
    made = transaction.connection.execute(
        transaction.database.insert_new(dead_letter),
        {
            "id": str(uuid4()),
            "queue": held.queue,
            "message_id": held.message_id or None,
            "routing_key": held.routing_key,
            "body": held.body,
            "reason": reason,
            "attempts": attempts,
            "at": _now(),
        },
    )
    return made.rowcount == 1


def _now() -> datetime:
    return datetime.now(UTC)


def _any_of(held: Sequence[Delivery]) -> ColumnElement[bool]:
    ours = [(each.queue, each.message_id) for each in held]
    return and_(
        tuple_(delivery.c.queue, delivery.c.message_id).in_(ours),
        delivery.c.lease_token == held[0].lease_token,
    )


def _claim_statement(*, any_queue: bool) -> Update:
    free = and_(delivery.c.due_at <= bindparam("now"), delivery.c.leased_until < bindparam("now"))
    of_queue = FOR_THE_RELAY if any_queue else delivery.c.queue == bindparam("from_queue")
    free = and_(of_queue, free)
    due = (
        select(delivery.c.queue, delivery.c.message_id)
        .where(free)
        .order_by(delivery.c.due_at)
        .limit(bindparam("limit"))
        .with_for_update(skip_locked=True)
    )
    of_message = message.c.id == delivery.c.message_id
    return (
        update(delivery)
        .where(tuple_(delivery.c.queue, delivery.c.message_id).in_(due))
        .values(
            leased_until=bindparam("until"),
            lease_token=bindparam("token"),
            claims=delivery.c.claims + 1,
        )
        .returning(
            delivery.c.queue,
            delivery.c.message_id,
            delivery.c.due_at,
            delivery.c.attempt,
            delivery.c.claims,
            delivery.c.last_error,
            select(message.c.body).where(of_message).scalar_subquery().label("body"),
            select(message.c.routing_key).where(of_message).scalar_subquery().label("routing_key"),
        )
    )


_CLAIM = _claim_statement(any_queue=False)
_CLAIM_ANY = _claim_statement(any_queue=True)
_SETTLE = delete(delivery).where(
    delivery.c.queue == bindparam("the_queue"),
    delivery.c.message_id == bindparam("the_message"),
    delivery.c.lease_token == bindparam("token"),
)
