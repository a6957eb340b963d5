"""The index: which instances there are."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import structlog
from sqlalchemy.exc import IntegrityError

from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome, enter
from dicom_listener.open_associations import OpenAssociation, let_go
from service_runtime.database import Database, DatabaseUnavailable, Deadlock

log = structlog.get_logger()

_ATTEMPTS = 3

Entry = Arrival | OpenAssociation
"""An instance that has arrived, or an association that has ended."""
Answer = Outcome | Exception | None
"""What became of an entry; of an association that has ended ``None``."""
Board = Callable[[], Sequence[Entry]]
"""Gives the entries of a group, settled when it is called first: once the database is ours to
write, so that who came while we waited for other processes comes along."""


class Index(Protocol):
    """What enters arrivals into the database."""

    def take(self, arrival: Arrival) -> bool:
        """Take an arrival to be entered soon, whatever happens; return whether it was taken.

        Its file must be durable, under a name that nothing had before: where everything is killed
        it is entered from there. What was not taken is for `add`.
        """

    def add(self, arrival: Arrival) -> Outcome:
        """Enter an arrival; when this returns its row and what it announces are durable.

        Raises
        ------
        DatabaseUnavailable
            It is not entered, or may not be; the sender has to send again.
        """

    def end(self, association: OpenAssociation) -> None:
        """Have an association that has ended hold no study open.

        When this returns all that came over it is entered, too. Where the database is away that has
        to wait; the association time-out bounds what it holds.
        """


class OwnIndex:
    """Enters arrivals by itself, each at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, _: Arrival) -> bool:
        """Take nothing; see `Index.take`."""
        return False

    def add(self, arrival: Arrival) -> Outcome:
        """Enter an arrival, in a transaction of its own; see `Index.add`."""
        (answer,) = self.enter(lambda: [arrival])
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None  # noqa: S101 - it has arrived
        return answer

    def end(self, association: OpenAssociation) -> None:
        """Have an association that has ended hold no study open; see `Index.end`."""
        if association.study_instance_uid:
            self.enter(lambda: [association])

    def enter(self, board: Board) -> list[Answer]:
        """Enter a group in one transaction; return what became of each.

        One that the database refuses does not take the others with it.
        """
        try:
            return self._enter(board)
        except DatabaseUnavailable as error:
            log.warning("index.away", exc_info=error)
            return [error] * len(board())
        except Exception as error:
            # Told to whoever waits for it.
            group = board()
            if len(group) == 1:
                if isinstance(group[0], OpenAssociation):
                    log.exception("association.left_open")
                return [error]
            return [answer for each in group for answer in self.enter(partial(list, [each]))]

    def _enter(self, board: Board) -> list[Answer]:
        for attempt in range(_ATTEMPTS):
            try:
                with self._database.transaction() as transaction:
                    group = board()
                    arrivals = [each for each in group if isinstance(each, Arrival)]
                    outcomes = iter(enter(transaction, arrivals) if arrivals else ())
                    # After what has come over them.
                    let_go(transaction, [each for each in group if not isinstance(each, Arrival)])
                return [next(outcomes) if isinstance(each, Arrival) else None for each in group]
            except (IntegrityError, Deadlock):
                # PostgreSQL: another process has just entered the same study or instance, or wants
                # what we have while it has what we want.
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError
