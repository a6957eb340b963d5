"""Enters by itself what is kept and that no row claims.

A C-STORE is answered when its instance is durable; the row follows. Whoever is killed in between
leaves a file that says all that its row is made of, but for two things: the priority that it was
sent with, and the title that it was sent to. One that a power cut has left damaged was answered for
to nobody; it is moved aside, else its name would stay taken, and who sends the same again refused.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
from dicom_listener.recovered import NotRead, Recovered
from dicom_listener.rereading import Rereader, Source, skip_file_meta
from imaging_store.durable_files import make_durable
from imaging_store.instances import FileInstanceStore, Kept, NotInStore, instance_key, is_intact
from imaging_store.removal import is_kept_after
from imaging_store.unclaimed import kept_since, move_damaged_aside
from service_runtime.background import Background
from service_runtime.database import Database, DatabaseUnavailable
from service_runtime.errors import TransientError

_LATELY = timedelta(days=1)
"""What is older is the sweep's."""
_AT_ONCE = 500
_GROUP = 64
_SETTLING_S = 1.5
"""Within it the living have entered what was on its way: they know the priority."""
_TOGETHER_S = 0.5
"""Who tells of a death within it is heard together with who told first."""
_LOOK_S = 0.25
_SHORTEST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0
_ENDING_S = 5.0
_KEY = re.compile(r"instances/[^/]+/[^/]+/[^/]+-([0-9a-f]{32}|[0-9a-f]{64})\.dcm")

log = structlog.get_logger()


class _Damaged(Exception):
    """A file has no File Meta Information, or its data set not the digest that its name says."""

    def __init__(self, seen: os.stat_result) -> None:
        super().__init__()
        self.seen = seen


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
        return self.run(self.now() - _LATELY)

    def run(self, since: datetime, stopping: threading.Event | None = None) -> int:
        """Enter those that were kept since then; return how many. What is damaged is moved aside.

        Clocks differ, and jump: what the living have on its way is told from what the dead have
        left by waiting a moment for them.

        Raises
        ------
        NotRead
            Those are entered that could be read; try again.
        TransientError
            Some are left; try again.
        """
        stopping = stopping or threading.Event()
        passed_over: list[OSError] = []
        found = kept_since(self.rereader.store.root, since, passed_over.append)
        left: list[str] = []
        while not stopping.is_set() and (keys := list(islice(found, _AT_ONCE))):
            left += self._unclaimed(keys)
        if left:
            stopping.wait(_SETTLING_S)
        entered = not_read = 0
        for first in range(0, len(left), _GROUP):
            if stopping.is_set():
                break
            recovered = self.enter(left[first : first + _GROUP])
            entered += len(recovered.entered)
            not_read += len(recovered.not_read) + self._move_aside(recovered.damaged)
        if not_read or passed_over:
            raise NotRead(f"store: {not_read + len(passed_over)} could not be read")
        return entered

    def _move_aside(self, damaged: Mapping[str, os.stat_result]) -> int:
        """Move files aside that nobody writes to any more; return how many are to be seen again."""
        store, left = self.rereader.store, 0
        for key, seen in damaged.items():
            try:
                is_moved = move_damaged_aside(store.root, key, seen, self._is_claimed, self.now())
            except OSError as error:
                # One that cannot be moved keeps no other.
                log.warning("instance.not_recovered", key=key, exc_info=error)
                left += 1
                continue
            if is_moved:
                log.warning("instance.damaged", key=key)
                SWEPT.labels("moved aside").inc()
            else:
                left += store.exists(key)
        return left

    def _is_claimed(self, key: str) -> bool:
        """Whether a row claims a file, and not only as purged before it was kept anew."""
        return not self._unclaimed([key])

    def enter(self, keys: Sequence[str]) -> Recovered:
        """Enter of these files those that no row claims; return what became of those.

        What the index refuses goes to quarantine. What is not told of stays where it is: it went
        meanwhile, or reading it fails in a way that nobody foresaw.

        Raises
        ------
        TransientError
            Some are left; try again.
        """
        # An entry changed meanwhile holds for the next ones.
        rereader = replace(self.rereader, peer_of=cache(self.rereader.peer_of))
        recovered = Recovered([], [], [], {})
        refused: list[Arrival] = []
        unclaimed = self._unclaimed(keys)
        try:
            for first in range(0, len(unclaimed), _GROUP):
                group = unclaimed[first : first + _GROUP]
                read = [self._read(rereader, key, recovered) for key in group]
                self._enter([arrival for arrival in read if arrival], recovered, refused)
        finally:
            if entered := len(recovered.entered):
                log.warning("instances.recovered", count=entered)
                SWEPT.labels("entered").inc(entered)
        for arrival in refused:
            self._set_aside(arrival, recovered)
        return recovered

    def _unclaimed(self, keys: Sequence[str]) -> list[str]:
        """Return which no row claims, or only as purged, and that were kept anew since."""
        known = claimed(self.database, keys)
        root, now = self.rereader.store.root, self.now()
        for key, since in purged_since(self.database, [*known]).items():
            if is_kept_after(root, key, since, now):
                known.remove(key)
        return [key for key in keys if key not in known]

    def _enter(
        self, arrivals: Sequence[Arrival], recovered: Recovered, refused: list[Arrival]
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
                recovered.entered.append(arrival.kept.key)

    def _set_aside(self, arrival: Arrival, recovered: Recovered) -> None:
        try:
            set_aside(self.database, self.rereader.store, arrival, REFUSED_BY_INDEX, self.now())
        except TransientError:
            raise
        except OSError as error:
            self._pass_over(arrival.kept.key, error, recovered)
        except Exception:
            # One that is damaged keeps no other.
            log.exception("instance.not_quarantined", key=arrival.kept.key)

    def _pass_over(self, key: str, error: OSError, recovered: Recovered) -> None:
        log.warning("instance.not_recovered", key=key, exc_info=error)
        recovered.not_read.append(key)

    def _read(self, rereader: Rereader, key: str, recovered: Recovered) -> Arrival | None:
        """Return an instance as it would arrive now, or nothing where it is none, or not read."""
        ours = _KEY.fullmatch(key)
        if ours is None:
            recovered.unusable.append(key)
            return None
        try:
            return self._arrival(rereader, key, ours[1])
        except TransientError:
            raise
        except (NotInStore, FileNotFoundError):
            pass  # it went meanwhile
        except BlockingIOError:
            recovered.not_read.append(key)  # who gave it its name is still at it
        except _Damaged as error:
            recovered.damaged[key] = error.seen
        except (NotUnderstood, IsADirectoryError) as error:
            log.warning("instance.not_recovered", key=key, reason=str(error))
            recovered.unusable.append(key)
        except OSError as error:
            self._pass_over(key, error, recovered)
        except Exception:
            log.exception("instance.not_recovered", key=key)
        return None

    def _arrival(self, rereader: Rereader, key: str, digest: str) -> Arrival:
        store = rereader.store
        with store.open(key) as file:
            make_durable(file, waits=False)
            seen = os.fstat(file.fileno())
            try:
                meta = skip_file_meta(file)
            except NotUnderstood as error:
                raise _Damaged(seen) from error
            size_bytes = seen.st_size - meta.size_bytes
            if not is_intact(file, digest):
                raise _Damaged(seen)
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
        self._told_at: datetime | None = None
        """When somebody told first, if it has not been looked since."""
        self._due_s = 0.0
        # Whoever was to look before may have died over it.
        self.look()

    def look(self) -> None:
        """Have looked soon, once, at what has been kept lately; from any thread."""
        self._ask(self._recovery.now(), _TOGETHER_S)

    def _ask(self, told_at: datetime, delay_s: float) -> None:
        with self._lock:
            if self._told_at is None:
                self._due_s = time.monotonic() + delay_s
            self._told_at = min(told_at, self._told_at or told_at)

    def _take(self) -> datetime | None:
        with self._lock:
            if self._told_at is None or time.monotonic() < self._due_s:
                return None
            told_at, self._told_at = self._told_at, None
            return told_at

    @override
    def work(self, stopping: threading.Event) -> None:
        delay_s = _SHORTEST_DELAY_S
        while not stopping.wait(_LOOK_S):
            told_at = self._take()
            if told_at is None:
                continue
            try:
                self._recovery.run(told_at - _LATELY, stopping)
            except Exception as error:
                # Also where the log cannot be written, on a full disk.
                with suppress(OSError):
                    if isinstance(error, TransientError):
                        log.warning("recovering.delayed", exc_info=error)
                    else:
                        log.exception("recovering.failed")
                self._ask(told_at, delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            else:
                delay_s = _SHORTEST_DELAY_S
