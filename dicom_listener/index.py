"""The index: which instances there are. An instance is answered for when its row is durable.

Associations that finish an instance at the same time share one commit: the first that comes commits
for all that wait, the others wait for it, and whoever came meanwhile leads the next.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from threading import Lock

import structlog
from sqlalchemy.exc import IntegrityError

from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome, enter
from dicom_listener.open_associations import OpenAssociation, let_go
from dicom_listener.purging import put_back
from dicom_listener.quarantine import Quarantined, put
from imaging_store.instances import FileInstanceStore, Kept
from service_runtime.database import Database, DatabaseUnavailable

log = structlog.get_logger()

_GROUP = 64
_ATTEMPTS = 3


@dataclass(slots=True)
class _Entry:
    arrival: Arrival | None = None
    ended: OpenAssociation | None = None
    turn: Lock = field(default_factory=Lock)
    outcome: Outcome | None = None
    """Of the arrival, once it is entered."""
    is_done: bool = False
    error: Exception | None = None


Boarded = Callable[[], list[_Entry]]
"""Gives the entries of a group, settled when it is called first: once the database is ours to
write, so that who came while we waited for other processes comes along."""


class Index:
    """Enters arrivals into the database, those of several threads in one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = Lock()
        self._waiting: list[_Entry] = []
        self._is_led = False

    def add(self, arrival: Arrival) -> Outcome:
        """Enter an arrival; when this returns its row and what it announces are durable.

        Raises
        ------
        DatabaseUnavailable
            It is not entered, or may not be; the sender has to send again.
        """
        entry = _Entry(arrival)
        self._take_turn(entry)
        assert entry.outcome is not None  # noqa: S101 - it is entered
        return entry.outcome

    def end(self, association: OpenAssociation) -> None:
        """Have an association that has ended hold no study open; in whoever's commit is next.

        Where the database is away its row stays, and the association time-out bounds what it holds.
        """
        if not association.study_instance_uid:
            return
        try:
            self._take_turn(_Entry(ended=association))
        except DatabaseUnavailable as error:
            log.warning("association.left_open", association_id=association.id, exc_info=error)

    def _take_turn(self, entry: _Entry) -> None:
        """Return when somebody, perhaps this thread, has committed an entry, or raise why not."""
        entry.turn.acquire()
        with self._lock:
            self._waiting.append(entry)
            must_wait, self._is_led = self._is_led, True
        if must_wait:
            entry.turn.acquire()
        if not entry.is_done and entry.error is None:
            self._lead(entry)
        if entry.error is not None:
            raise entry.error

    def _lead(self, leader: _Entry) -> None:
        group: list[_Entry] = []

        def boarded() -> list[_Entry]:
            if not group:
                with self._lock:
                    group.extend(self._waiting[:_GROUP])
                    del self._waiting[:_GROUP]
            return group

        try:
            self._commit(boarded)
        finally:
            with self._lock:
                next_leader = self._waiting[0] if self._waiting else None
                self._is_led = next_leader is not None
            for entry in group:
                if entry is not leader:
                    entry.turn.release()
            if next_leader is not None:
                next_leader.turn.release()

    def _commit(self, boarded: Boarded) -> None:
        try:
            outcomes = iter(self._enter(boarded))
            for entry in boarded():
                if entry.arrival is not None:
                    entry.outcome = next(outcomes)
                entry.is_done = True
        except DatabaseUnavailable as error:
            for entry in boarded():
                entry.error = error
        except Exception as error:  # noqa: BLE001 - told to whoever waits for it
            group = boarded()
            if len(group) == 1:
                group[0].error = error
                return
            # One that the database refuses must not take the others with it.
            for entry in group:
                self._commit(partial(list, [entry]))

    def _enter(self, boarded: Boarded) -> list[Outcome]:
        for attempt in range(_ATTEMPTS):
            try:
                with self.database.transaction() as transaction:
                    group = boarded()
                    arrivals = [entry.arrival for entry in group if entry.arrival is not None]
                    let_go(transaction, [entry.ended for entry in group if entry.ended is not None])
                    return enter(transaction, arrivals) if arrivals else []
            except IntegrityError:
                # PostgreSQL: another process has just entered the same study or instance.
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    def put_back(
        self, store: FileInstanceStore, kept: Kept, sop_instance_uid: str, at: datetime
    ) -> bool:
        """Have what was purged count as kept again; return whether its bytes are there."""
        return put_back(self.database, store, kept.key, (sop_instance_uid, kept.sha256), at)

    def quarantine(self, store: FileInstanceStore, thing: Quarantined) -> bool:
        """Enter what could not be understood; return whether its bytes are there to be read."""
        return put(self.database, store, thing)
