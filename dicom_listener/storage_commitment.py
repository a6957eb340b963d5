"""The Storage Commitment Push Model SCP (PS3.4 Annex J): promises to keep, and keeps the promise.

An instance that we committed to is not purged before its time. The decision is durable before the
request is answered; its result is told on the same association where the peer has no address, else
by `CommitmentTelling`, which goes on until it is heard.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import Connection, delete, select, update

from dicom_listener.commitment_decision import (
    CommitmentRequest,
    Decided,
    FailureReason,
    Indexed,
    MalformedRequest,
    Reference,
    decide,
    event_of,
    request_of,
)
from dicom_listener.metrics import COMMITMENTS
from dicom_listener.normalized import (
    INVALID_ARGUMENT_VALUE,
    NO_SUCH_ACTION,
    NO_SUCH_SOP_INSTANCE,
    NOT_AUTHORIZED,
    PROCESSING_FAILURE,
    SUCCESS,
    Answer,
    EventReport,
    Request,
)
from dicom_listener.peers import Peer
from imaging_store.instances import InstanceStore
from imaging_store.schema.administration import application_entity
from imaging_store.schema.ingest import commitment, committed_instance, instance, study
from message_contracts.topology import RetryPolicy
from service_runtime.database import Database, Transaction

STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its one, well-known SOP Instance."""
REQUEST_STORAGE_COMMITMENT = 1
"""Action Type ID."""

RETRY = RetryPolicy(first_delay_s=5, multiplier=2, cap_s=3600, attempts=130)
"""When a result that was not acknowledged is told again: for about five days."""

_AT_ONCE = 500
_ON_ITS_WAY_S = 3.0
"""For so long what is not in the index may still be on its way there, of what was answered for."""
_LOOK_AGAIN_S = 0.1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StorageCommitment:
    """Answers N-ACTION of Storage Commitment; nothing is promised where ``period`` is ``None``."""

    database: Database
    store: InstanceStore
    period: timedelta | None
    """How long what we commit to is kept at least."""
    now: Callable[[], datetime]
    sop_class_uid: str = STORAGE_COMMITMENT

    def is_offered_to(self, peer: Peer) -> bool:
        """Whether the site lets this AE ask, and has said how long a promise holds."""
        return peer.commitment and self.period is not None

    def n_create(self, request: Request) -> Answer:
        """Refuse: the service has no N-CREATE."""
        return _refused(request, NO_SUCH_ACTION, "Storage Commitment has N-ACTION only")

    def n_set(self, request: Request) -> Answer:
        """Refuse: the service has no N-SET."""
        return _refused(request, NO_SUCH_ACTION, "Storage Commitment has N-ACTION only")

    def n_action(self, request: Request) -> Answer:
        """Decide, make the decision durable, and answer that the result will be told."""
        if not request.peer.commitment or self.period is None:
            return _refused(request, NOT_AUTHORIZED, "Storage Commitment is off for this AE title")
        if request.sop_instance_uid != STORAGE_COMMITMENT_INSTANCE:
            return _refused(request, NO_SUCH_SOP_INSTANCE, "Not the well-known SOP Instance")
        if request.action_type_id != REQUEST_STORAGE_COMMITMENT:
            return _refused(request, NO_SUCH_ACTION, "Action Type ID is not 1")
        try:
            asked = request_of(request.peer.ae_title, request.data_set)
        except MalformedRequest as error:
            return _refused(request, INVALID_ARGUMENT_VALUE, str(error))
        try:
            return self._answer(asked, self.period)
        except Exception:
            # Nothing is durable, or a repetition will find it.
            log.exception("commitment.failed", transaction_uid=asked.transaction_uid)
            return Answer(PROCESSING_FAILURE, "Internal error, nothing was promised; ask again")

    def _answer(self, asked: CommitmentRequest, period: timedelta) -> Answer:
        has_address, decided = self._decided(asked, period)
        refused = sum(each.failure_reason is not None for each in decided)
        COMMITMENTS.labels("committed").inc(len(decided) - refused)
        COMMITMENTS.labels("refused").inc(refused)
        log.info(
            "commitment.decided",
            calling_ae_title=asked.calling_ae_title,
            transaction_uid=asked.transaction_uid,
            instance_count=len(decided),
            count=refused,
        )
        if has_address:
            return Answer(SUCCESS)
        event_type_id, information = event_of(asked.transaction_uid, decided)

        def on_answer(status: int | None) -> None:
            if status == SUCCESS:
                with self.database.transaction() as transaction:
                    told(transaction, asked.id, self.now())

        return Answer(SUCCESS, event=EventReport(event_type_id, information, on_answer))

    def _decided(
        self, asked: CommitmentRequest, period: timedelta
    ) -> tuple[bool, tuple[Decided, ...]]:
        uids = [each.sop_instance_uid for each in asked.references]
        self._wait_for(uids)
        with self.database.reading() as connection:
            has_address = _has_address(connection, asked.calling_ae_title)
            bytes_there = dict(self._bytes_there(connection, uids))
        now = self.now()
        due_at = now if has_address else now + timedelta(seconds=RETRY.delay_s(1))
        with self.database.transaction() as transaction:
            connection = transaction.connection
            earlier = _earlier(connection, asked)
            if asked.id in earlier:
                if not _is_over(connection, asked.id, now):
                    _tell_again(connection, asked.id, due_at)
                    return has_address, decided_of(connection, asked.id)
                _forget(connection, asked.id)
                earlier.remove(asked.id)
            if earlier:
                reason = FailureReason.DUPLICATE_TRANSACTION_UID
                decided = tuple(Decided(each, reason) for each in asked.references)
            else:
                # What is being purged is either purged by now, or waits until we have promised.
                index = _locked_index(connection, uids)
                decided = decide(asked.references, index, bytes_there)
            _enter(transaction, asked, decided, now=now, due_at=due_at, kept_until=now + period)
        return has_address, decided

    def _wait_for(self, uids: Sequence[str]) -> None:
        """Give the index a moment to enter what has just been answered for."""
        deadline = time.monotonic() + _ON_ITS_WAY_S
        while (uids := self._unknown(uids)) and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_S)

    def _unknown(self, uids: Sequence[str]) -> list[str]:
        column = instance.c.sop_instance_uid
        known: set[str] = set()
        with self.database.reading() as connection:
            for some in _in_pieces(uids):
                known.update(connection.execute(select(column).where(column.in_(some))).scalars())
        return [uid for uid in uids if uid not in known]

    def _bytes_there(
        self, connection: Connection, uids: Sequence[str]
    ) -> Iterator[tuple[str, bool | None]]:
        columns = instance.c
        for some in _in_pieces(uids):
            rows = connection.execute(
                select(columns.sop_instance_uid, columns.key, columns.size_bytes).where(
                    columns.sop_instance_uid.in_(some), columns.purged_at.is_(None)
                )
            )
            for row in rows:
                try:
                    size_bytes = self.store.path(row.key).stat().st_size
                except FileNotFoundError:
                    yield row.sop_instance_uid, False
                except OSError:
                    log.exception("commitment.not_examined", key=row.key)
                    yield row.sop_instance_uid, None
                else:
                    yield row.sop_instance_uid, size_bytes >= row.size_bytes


def told(transaction: Transaction, commitment_id: UUID, at: datetime) -> None:
    """Note that the peer has acknowledged a result: it is not told again."""
    transaction.connection.execute(
        update(commitment)
        .where(commitment.c.id == commitment_id)
        .values(told_at=at, due_at=None, attempt=commitment.c.attempt + 1)
    )


def decided_of(connection: Connection, commitment_id: UUID) -> tuple[Decided, ...]:
    """Return what was decided about a request."""
    columns = committed_instance.c
    rows = connection.execute(
        select(columns.sop_class_uid, columns.sop_instance_uid, columns.failure_reason)
        .where(columns.commitment_id == commitment_id)
        .order_by(columns.sop_instance_uid)
    )
    return tuple(
        Decided(
            Reference(row.sop_class_uid, row.sop_instance_uid),
            None if row.failure_reason is None else FailureReason(row.failure_reason),
        )
        for row in rows
    )


def _refused(request: Request, status: int, comment: str) -> Answer:
    log.warning(
        "commitment.refused",
        calling_ae_title=request.peer.ae_title,
        status_code=f"{status:04X}",
        error_comment=comment,
    )
    return Answer(status, comment[:64])


def _has_address(connection: Connection, ae_title: str) -> bool:
    columns = application_entity.c
    found = connection.execute(
        select(columns.ae_title).where(
            columns.ae_title == ae_title, columns.host.is_not(None), columns.port.is_not(None)
        )
    )
    return found.first() is not None


def _earlier(connection: Connection, asked: CommitmentRequest) -> set[UUID]:
    """Return, locked, the requests that this AE made with the same Transaction UID."""
    columns = commitment.c
    return set(
        connection.execute(
            select(columns.id)
            .where(
                columns.calling_ae_title == asked.calling_ae_title[:16],
                columns.transaction_uid == asked.transaction_uid,
            )
            .with_for_update()
        ).scalars()
    )


def _tell_again(connection: Connection, commitment_id: UUID, due_at: datetime) -> None:
    connection.execute(
        update(commitment)
        .where(commitment.c.id == commitment_id)
        .values(due_at=due_at, attempt=0, told_at=None)
    )


def _is_over(connection: Connection, commitment_id: UUID, now: datetime) -> bool:
    """Whether what was promised need not be there any more."""
    columns = committed_instance.c
    over = select(columns.sop_instance_uid).where(
        columns.commitment_id == commitment_id, columns.kept_until <= now
    )
    return connection.execute(over.limit(1)).first() is not None


def _forget(connection: Connection, commitment_id: UUID) -> None:
    connection.execute(
        delete(committed_instance).where(committed_instance.c.commitment_id == commitment_id)
    )
    connection.execute(delete(commitment).where(commitment.c.id == commitment_id))


def _locked_index(connection: Connection, uids: Sequence[str]) -> dict[str, Indexed]:
    """Return what the index knows, and hold their studies, as the purge does, until the end."""
    columns = instance.c
    studies: set[str] = set()
    for some in _in_pieces(uids):
        studies.update(
            connection.execute(
                select(columns.study_instance_uid)
                .distinct()
                .where(columns.sop_instance_uid.in_(some))
            ).scalars()
        )
    # In one order over all pieces, which is that of receiving too: neither waits for ever.
    for some in _in_pieces(sorted(studies)):
        connection.execute(
            select(study.c.study_instance_uid)
            .where(study.c.study_instance_uid.in_(some))
            .order_by(study.c.study_instance_uid)
            .with_for_update()
        ).all()
    index = {}
    for some in _in_pieces(uids):
        for row in connection.execute(
            select(columns.sop_instance_uid, columns.sop_class_uid, columns.purged_at).where(
                columns.sop_instance_uid.in_(some)
            )
        ):
            index[row.sop_instance_uid] = Indexed(row.sop_class_uid, row.purged_at is not None)
    return index


def _enter(
    transaction: Transaction,
    asked: CommitmentRequest,
    decided: Iterable[Decided],
    *,
    now: datetime,
    due_at: datetime,
    kept_until: datetime,
) -> None:
    connection = transaction.connection
    # Once: it is the digest of all that is asked about.
    commitment_id = asked.id
    row = {
        "id": commitment_id,
        "transaction_uid": asked.transaction_uid,
        "calling_ae_title": asked.calling_ae_title[:16],
        "requested_at": now,
        "due_at": due_at,
        "attempt": 0,
    }
    connection.execute(commitment.insert(), row)
    connection.execute(
        committed_instance.insert(),
        [
            {
                "commitment_id": commitment_id,
                "sop_instance_uid": each.reference.sop_instance_uid,
                "sop_class_uid": each.reference.sop_class_uid,
                "failure_reason": each.failure_reason,
                "kept_until": kept_until if each.failure_reason is None else None,
            }
            for each in decided
        ],
    )


def _in_pieces(uids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(uids), _AT_ONCE):
        yield uids[start : start + _AT_ONCE]
