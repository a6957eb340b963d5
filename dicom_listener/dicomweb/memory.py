"""How much may be in memory for answers that are being sent, however slowly they are taken."""

from collections.abc import Callable
from threading import Lock

from service_runtime.problem_details import Problem

RETRY_AFTER_S = 10


class OutOfMemory(Problem):
    """There is no room now: 503, to be asked again."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "busy",
            "too much of what was asked for is in memory until it has been sent; ask again",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )


class Memory:
    """So many bytes, for all requests of a process together."""

    def __init__(self, size_bytes: int) -> None:
        self._free_bytes = size_bytes
        self._lock = Lock()

    def take(self, size_bytes: int) -> Callable[[], None]:
        """Take so many; return what gives them back, which is to be called once.

        Raises
        ------
        OutOfMemory
            There are not as many left.
        """
        with self._lock:
            if size_bytes > self._free_bytes:
                raise OutOfMemory
            self._free_bytes -= size_bytes

        def give_back() -> None:
            with self._lock:
                self._free_bytes += size_bytes

        return give_back
