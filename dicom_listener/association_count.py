"""What each receiving process has open, in memory that all of them share."""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from threading import Lock

from dicom_listener.admission import Rejection

_WORD = 8


class AssociationCount:
    """Connections and associations per process; made before forking, so that all share it.

    Each process writes its own numbers only, and looks at all under one lock, which the kernel
    takes from a process that dies. What such a process had stays until its parent calls `clear`.
    """

    def __init__(self, processes: int, limit: int) -> None:
        self._file = os.memfd_create("associations", os.MFD_CLOEXEC)
        os.ftruncate(self._file, processes * (1 + limit) * _WORD)
        words = memoryview(mmap.mmap(self._file, 0)).cast("q")
        self._connections, self._places = words[:processes], words[processes:]
        self._limit = limit

    def of_process(self, process: int) -> "AssociationsOfProcess":
        """Return the view of process number ``process``, counted from 0."""
        return AssociationsOfProcess(
            self._file, self._connections, self._places, process, self._limit
        )

    def clear(self, process: int) -> None:
        """Forget what a process had that has died."""
        self._connections[process] = 0
        for place in range(process * self._limit, (process + 1) * self._limit):
            self._places[place] = 0

    @property
    def total(self) -> int:
        """Associations of all processes."""
        return sum(place != 0 for place in self._places)


class AssociationsOfProcess:
    """What one process has open, beside the others."""

    def __init__(
        self,
        file: int,
        connections: "memoryview[int]",
        places: "memoryview[int]",
        process: int,
        limit: int,
    ) -> None:
        self._file = file
        self._connections = connections
        self._all_places = places
        self._places = places[process * limit : (process + 1) * limit]
        self._process = process
        self._limit = limit
        self._lock = Lock()

    def connect(self) -> None:
        """Count one more connection, whatever becomes of it."""
        with self._lock:
            self._connections[self._process] += 1

    def disconnect(self) -> None:
        """Count one connection less."""
        with self._lock:
            self._connections[self._process] -= 1

    def has_more_than_others(self) -> bool:
        """Whether another process should rather accept the next connection."""
        return self._connections[self._process] > min(self._connections)

    def enter(self, ae_title: str, limit_of_peer: int | None) -> Rejection | None:
        """Count one more association of ``ae_title``, or say why there can be none.

        ``limit_of_peer`` is how many it may have at one time, in all processes.
        """
        mark = _mark(ae_title)
        with self._all_locked():
            places = self._all_places.tolist()
            if len(places) - places.count(0) >= self._limit:
                return Rejection.TOO_MANY
            if limit_of_peer is not None and places.count(mark) >= limit_of_peer:
                return Rejection.TOO_MANY_OF_PEER
            self._replace(0, mark)
        return None

    def leave(self, ae_title: str) -> None:
        """Count one association of ``ae_title`` less."""
        with self._all_locked():
            self._replace(_mark(ae_title), 0)

    def _replace(self, old: int, new: int) -> None:
        self._places[self._places.tolist().index(old)] = new

    @contextmanager
    def _all_locked(self) -> Iterator[None]:
        # The kernel's lock is the process's: between threads the other one is needed.
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)


def _mark(ae_title: str) -> int:
    """Return a number that stands for an AE title, and is not 0."""
    digest = blake2b(ae_title.encode(), digest_size=_WORD).digest()
    return int.from_bytes(digest, "little", signed=True) or 1
