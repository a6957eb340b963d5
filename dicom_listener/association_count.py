"""How many associations each receiving process serves, in memory that all of them share."""

import mmap
from threading import Lock


class AssociationCount:
    """One number per process; made before forking, so that all share it.

    Each process writes its own number only. A process that dies leaves its number standing until
    its parent calls `clear`.
    """

    def __init__(self, processes: int, limit: int) -> None:
        self._numbers = memoryview(mmap.mmap(-1, processes * 8)).cast("q")
        self._limit = limit

    def of_process(self, process: int) -> "AssociationsOfProcess":
        """Return the view of process number ``process``, counted from 0."""
        return AssociationsOfProcess(self._numbers, process, self._limit)

    def clear(self, process: int) -> None:
        """Forget the associations of a process that has died."""
        self._numbers[process] = 0

    @property
    def total(self) -> int:
        """Associations of all processes."""
        return sum(self._numbers)


class AssociationsOfProcess:
    """The associations of one process, beside those of the others."""

    def __init__(self, numbers: "memoryview[int]", process: int, limit: int) -> None:
        self._numbers = numbers
        self._process = process
        self._limit = limit
        self._lock = Lock()

    def enter(self) -> bool:
        """Count one more, unless there are as many as there may be in all processes."""
        with self._lock:
            if sum(self._numbers) >= self._limit:
                return False
            self._numbers[self._process] += 1
            return True

    def leave(self) -> None:
        """Count one less."""
        with self._lock:
            self._numbers[self._process] -= 1

    def has_more_than_others(self) -> bool:
        """Whether another process should rather accept the next connection."""
        return self._numbers[self._process] > min(self._numbers)
