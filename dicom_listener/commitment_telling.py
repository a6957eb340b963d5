"""Tells the results of storage commitments to peers that have an address, until they are heard.

All that is owed is in the database: a killed process forgets nothing. A result whose acknowledgment
was recorded is not told again; one that was acknowledged just before a kill may be.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Protocol
from uuid import UUID

import structlog
from pydicom.dataset import Dataset
from sqlalchemy import select, update
from typing_extensions import override

from dicom_listener.commitment_decision import event_of
from dicom_listener.metrics import COMMITMENT_REPORTS
from dicom_listener.storage_commitment import RETRY, decided_of, told
from imaging_store.schema.administration import application_entity
from imaging_store.schema.ingest import commitment
from message_contracts.topology import RetryPolicy
from service_runtime.background import Background
from service_runtime.database import Database
from service_runtime.errors import TransientError

_AT_ONCE = 20
_POLL_S = 1.0
_LEASE = timedelta(minutes=5)
"""Longer than telling one takes; what a killed process was about to tell is due again after it."""
_SUCCESS = 0x0000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Address:
    """Where an AE hears of commitments."""

    ae_title: str
    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Event:
    """Event Type ID and Event Information of an N-EVENT-REPORT."""

    type_id: int
    information: Dataset


class Report(Protocol):
    """Sends events over one association of our own."""

    def __call__(self, address: Address, events: Sequence[Event]) -> Iterable[int | str]:
        """Give for each event the status that was answered, or why none was, as it becomes known.

        The next event is sent when the next answer is asked for.
        """


@dataclass(frozen=True, slots=True)
class _Owed:
    id: UUID
    ae_title: str
    transaction_uid: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells what is due; any number may do so at once."""

    database: Database
    report: Report
    now: Callable[[], datetime]
    retry: RetryPolicy = RETRY

    def tell_some(self) -> int:
        """Tell some of what is due; return how many results that were."""
        claimed = self._claim()
        untold = deque(claimed)
        for ae_title, group in groupby(claimed, key=lambda owed: owed.ae_title):
            owed = list(group)
            address = self._address(ae_title)
            if address is None:
                answers: Iterable[int | str] = ["the AE has no address"] * len(owed)
            else:
                answers = self.report(address, [self._event(each) for each in owed])
            for each, answer in zip(self._kept(owed, untold), answers, strict=True):
                self._record(each, answer)
        return len(claimed)

    def _kept(self, owed: Iterable[_Owed], untold: deque[_Owed]) -> Iterator[_Owed]:
        """Give each just before it is told; a slow peer before it has nobody else tell it too."""
        for each in owed:
            self._keep(untold)
            yield each
            untold.popleft()

    def _keep(self, untold: Iterable[_Owed]) -> None:
        with self.database.transaction() as transaction:
            transaction.connection.execute(
                update(commitment)
                .where(
                    commitment.c.id.in_([each.id for each in untold]),
                    commitment.c.told_at.is_(None),
                )
                .values(due_at=self.now() + _LEASE)
            )

    def _claim(self) -> list[_Owed]:
        now = self.now()
        columns = commitment.c
        is_due = columns.due_at <= now
        with self.database.reading() as connection:
            if connection.execute(select(columns.id).where(is_due).limit(1)).first() is None:
                return []
        with self.database.transaction() as transaction:
            rows = transaction.connection.execute(
                select(
                    columns.id, columns.calling_ae_title, columns.transaction_uid, columns.attempt
                )
                .where(is_due)
                .order_by(columns.due_at)
                .limit(_AT_ONCE)
                .with_for_update(skip_locked=True)
            ).all()
            transaction.connection.execute(
                update(commitment)
                .where(columns.id.in_([row.id for row in rows]))
                .values(due_at=now + _LEASE)
            )
        claimed = [
            _Owed(row.id, row.calling_ae_title, row.transaction_uid, row.attempt) for row in rows
        ]
        return sorted(claimed, key=lambda owed: owed.ae_title)

    def _address(self, ae_title: str) -> Address | None:
        columns = application_entity.c
        with self.database.reading() as connection:
            row = connection.execute(
                select(columns.host, columns.port, columns.tls).where(columns.ae_title == ae_title)
            ).one_or_none()
        if row is None or not row.host or not row.port:
            return None
        return Address(ae_title, row.host, row.port, row.tls)

    def _event(self, owed: _Owed) -> Event:
        with self.database.reading() as connection:
            decided = decided_of(connection, owed.id)
        return Event(*event_of(owed.transaction_uid, decided))

    def _record(self, owed: _Owed, answer: int | str) -> None:
        if answer == _SUCCESS:
            with self.database.transaction() as transaction:
                told(transaction, owed.id, self.now())
            COMMITMENT_REPORTS.labels("acknowledged").inc()
            return
        attempt = owed.attempt + 1
        is_over = attempt >= self.retry.attempts
        due_at = self.now() + timedelta(seconds=self.retry.delay_s(attempt))
        with self.database.transaction() as transaction:
            transaction.connection.execute(
                update(commitment)
                .where(commitment.c.id == owed.id, commitment.c.told_at.is_(None))
                .values(attempt=attempt, due_at=None if is_over else due_at)
            )
        COMMITMENT_REPORTS.labels("given up" if is_over else "failed").inc()
        tell = log.error if is_over else log.warning
        tell(
            "commitment.given_up" if is_over else "commitment.not_told",
            calling_ae_title=owed.ae_title,
            transaction_uid=owed.transaction_uid,
            attempt=attempt,
            reason=answer if isinstance(answer, str) else f"answered {answer:04X}",
        )


class Telling(Background):
    """A thread that tells what is due."""

    def __init__(self, teller: Teller) -> None:
        super().__init__("telling", wait_s=5)
        self._teller = teller

    @override
    def work(self, stopping: threading.Event) -> None:
        while not stopping.wait(_POLL_S):
            try:
                while self._teller.tell_some() and not stopping.is_set():
                    pass
            except TransientError as error:
                log.warning("telling.delayed", exc_info=error)
            except Exception:
                # Without this thread nobody hears of what was promised.
                log.exception("telling.failed")
