"""Enters by itself what is kept and that no row claims.

A C-STORE is answered when its instance is durable; the row follows. Whoever is killed in between
leaves a file that says all that its row is made of, but for two things: the priority that it was
sent with, and the title that it was sent to.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import islice

import structlog
from typing_extensions import override

from dicom_listener.application_entities import look_up
from dicom_listener.arrival import Arrival
from dicom_listener.claims import claimed, purged_since
from dicom_listener.entered import is_kept
from dicom_listener.index import OwnIndex
from dicom_listener.instance_header import NotUnderstood
from dicom_listener.key_object_selection import KEY_OBJECT_SELECTION, rejected_studies
from dicom_listener.metrics import SWEPT
from dicom_listener.peers import Peer, peer_of
from dicom_listener.quarantine import REFUSED_BY_INDEX, set_aside
from dicom_listener.rereading import Rereader, Source, skip_file_meta
from imaging_store.instances import FileInstanceStore, Kept, NotInStore, instance_key
from imaging_store.removal import is_kept_after
from imaging_store.unclaimed import kept_between
from service_runtime.background import Background
from service_runtime.database import Database, DatabaseUnavailable
from service_runtime.errors import TransientError

_LATELY = timedelta(days=1)
"""What is older is the sweep's."""
_AT_ONCE = 500
_GROUP = 64
_SETTLING_S = 1.5
"""Within it the living have entered what was on its way: they know the priority."""
_LOOK_S = 0.25
_SHORTEST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0
_ENDING_S = 5.0
_KEY = re.compile(r"instances/[^/]+/[^/]+/[^/]+-([0-9a-f]{32}|[0-9a-f]{64})\.dcm")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Recovery:
    """Enters instances that are kept and that no row claims.

    Their receiver was killed before it had them entered, or the index is older than the store.
    """

    database: Database
    rereader: Rereader
    index: OwnIndex
    now: Callable[[], datetime]
    called_ae_title: str
    """That they count as sent to: their files do not say."""

    def run_lately(self) -> int:
        """Enter those of the last day; the sweep enters what is older. See `run`."""
        now = self.now()
        return self.run(now - _LATELY, now)

    def run(
        self, since: datetime, before: datetime, stopping: threading.Event | None = None
    ) -> int:
        """Enter those that were kept in this time; return how many that were.

        Raises
        ------
        TransientError
            Some are left; try again.
        """
        found = kept_between(self.rereader.store.root, since, before)
        entered = 0
        while not (stopping and stopping.is_set()) and (keys := list(islice(found, _AT_ONCE))):
            entered += len(self.enter(self._unclaimed(keys)))
        return entered

    def enter(self, keys: Sequence[str]) -> set[str]:
        """Enter files that no row claims; return the keys of those that a row claims now.

        What is no instance of ours is left out, and so is what cannot be read. What the index
        refuses goes to quarantine.

        Raises
        ------
        TransientError
            Some are left; try again.
        """
        # An entry changed meanwhile holds for the next ones.
        rereader = replace(self.rereader, peer_of=cache(self.rereader.peer_of))
        entered: set[str] = set()
        refused: list[Arrival] = []
        try:
            for first in range(0, len(keys), _GROUP):
                read = [self._read(rereader, key) for key in keys[first : first + _GROUP]]
                self._enter([arrival for arrival in read if arrival], entered, refused)
        finally:
            if entered:
                log.warning("instances.recovered", count=len(entered))
                SWEPT.labels("entered").inc(len(entered))
        for arrival in refused:
            self._set_aside(arrival)
        return entered

    def _unclaimed(self, keys: Sequence[str]) -> list[str]:
        """Return which no row claims, or only as purged, and that were kept anew since."""
        known = claimed(self.database, keys)
        root, now = self.rereader.store.root, self.now()
        for key, since in purged_since(self.database, [*known]).items():
            if is_kept_after(root, key, since, now):
                known.remove(key)
        return [key for key in keys if key not in known]

    def _enter(
        self, arrivals: Sequence[Arrival], entered: set[str], refused: list[Arrival]
    ) -> None:
        if not arrivals:
            return
        database, store = self.database, self.rereader.store
        answers = self.index.enter(lambda: arrivals)
        for arrival, answer in zip(arrivals, answers, strict=True):
            if isinstance(answer, DatabaseUnavailable):
                raise answer
            if isinstance(answer, Exception):
                log.error("instance.not_indexed", key=arrival.kept.key, exc_info=answer)
                refused.append(arrival)
            elif answer is not None and is_kept(database, store, arrival, answer, self.now()):
                entered.add(arrival.kept.key)

    def _set_aside(self, arrival: Arrival) -> None:
        try:
            set_aside(self.database, self.rereader.store, arrival, REFUSED_BY_INDEX, self.now())
        except TransientError:
            raise
        except Exception:
            # One that is damaged keeps no other.
            log.exception("instance.not_quarantined", key=arrival.kept.key)

    def _read(self, rereader: Rereader, key: str) -> Arrival | None:
        """Return an instance as it would arrive now, or nothing where it is none, or damaged."""
        ours = _KEY.fullmatch(key)
        if ours is None:
            return None
        try:
            return self._arrival(rereader, key, ours[1])
        except TransientError:
            raise
        except NotInStore:
            pass  # it went meanwhile
        except NotUnderstood as error:
            log.warning("instance.not_recovered", key=key, reason=str(error))
        except Exception:
            log.exception("instance.not_recovered", key=key)
        return None

    def _arrival(self, rereader: Rereader, key: str, digest: str) -> Arrival:
        store = rereader.store
        with store.open(key) as file:
            meta = skip_file_meta(file)
            size_bytes = os.fstat(file.fileno()).st_size - meta.size_bytes
        source = Source(meta.transfer_syntax_uid, meta.source_ae_title, self.called_ae_title)
        arrival = rereader.arrival(Kept(key, size_bytes, digest), source, self.now())
        header = arrival.header
        if key != instance_key(header.study_instance_uid, header.sop_instance_uid, digest):
            raise NotUnderstood("it is kept under the name of another instance")
        if header.sop_class_uid != KEY_OBJECT_SELECTION:
            return arrival
        with store.open(key) as file:
            skip_file_meta(file)
            studies = rejected_studies(file, source.transfer_syntax_uid)
        return arrival._replace(rejected_studies=studies)


def recovery_of(
    database: Database,
    store: FileInstanceStore,
    site: Peer,
    ae_title: str,
    now: Callable[[], datetime],
) -> Recovery:
    """Return the recovery of an installation.

    ``site`` is a peer of which nothing is listed, ``ae_title`` the installation's own.
    """
    rereader = Rereader(
        store, lambda ae_title: peer_of(ae_title, look_up(database, ae_title).entry, site)
    )
    return Recovery(database, rereader, OwnIndex(database), now, ae_title)


class Recovering(Background):
    """A thread that enters what the dead have left, at its start and whenever it is told to look.

    It tries again until it is done. At the end no longer than a moment is waited for it.
    """

    def __init__(self, recovery: Recovery) -> None:
        super().__init__("recovering", wait_s=_ENDING_S)
        self._recovery = recovery
        self._lock = threading.Lock()
        self._before: datetime | None = None
        """Until when was kept what is to be looked at, if anything is."""
        self._due_s = 0.0
        # Whoever was to look before may have died over it.
        self.look()

    def look(self) -> None:
        """Have looked soon, once, at what has been kept until now; from any thread."""
        self._ask(self._recovery.now(), _SETTLING_S)

    def _ask(self, before: datetime, delay_s: float) -> None:
        with self._lock:
            if self._before is None:
                self._due_s = time.monotonic() + delay_s
            self._before = max(before, self._before or before)

    def _take(self) -> datetime | None:
        with self._lock:
            if self._before is None or time.monotonic() < self._due_s:
                return None
            before, self._before = self._before, None
            return before

    @override
    def work(self, stopping: threading.Event) -> None:
        delay_s = _SHORTEST_DELAY_S
        while not stopping.wait(_LOOK_S):
            before = self._take()
            if before is None:
                continue
            try:
                self._recovery.run(before - _LATELY, before, stopping)
            except TransientError as error:
                log.warning("recovering.delayed", exc_info=error)
            except Exception:
                # Without this thread what the dead have left waits for the sweep.
                log.exception("recovering.failed")
            else:
                delay_s = _SHORTEST_DELAY_S
                continue
            self._ask(before, delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
