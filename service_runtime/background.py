"""A thread that works beside the rest of a process, for as long as that runs."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Background(ABC):
    """A thread as a context: it begins with it, and is told to stop at its end and waited for."""

    def __init__(self, name: str, *, wait_s: float | None = None) -> None:
        """Prepare the thread; at the end no longer than ``wait_s`` is waited for it."""
        self._stopping = threading.Event()
        self._wait_s = wait_s
        self._thread = threading.Thread(
            target=self.work, args=(self._stopping,), name=name, daemon=True
        )

    @abstractmethod
    def work(self, stopping: threading.Event) -> None:
        """Work until ``stopping`` is set; what is raised ends the thread, and nothing else."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join(self._wait_s)
