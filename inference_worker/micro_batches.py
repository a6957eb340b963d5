"""Pictures of several studies, given to a model together.

A model takes sixteen pictures in less time than sixteen times one. While it is at work, requests
wait; when it is free, as many as fit go to it at once, without waiting for more. Urgent ones go
first, and into the next batch whatever waits before them.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imaging_pixels.render import Picture

MOST_PICTURES = 16

Forward = Callable[[Picture, Sequence[str], int | None], Sequence[Any]]
"""Of a batch, of whose pictures are in it, and of the class that is to be explained, unless that is
the most probable one: a prediction for each picture."""


class Closed(RuntimeError):
    """It takes no requests any more."""


@dataclass
class _Request:
    owner: str
    batch: Picture
    explained: int | None = None
    answer: Future[Sequence[Any]] = field(default_factory=Future)


class MicroBatches:
    """Requests of many threads, taken to ``forward`` by one.

    Where a batch of several requests fails, each of them is tried alone, so that one that a model
    cannot bear fails no other.
    """

    def __init__(self, forward: Forward, name: str) -> None:
        self._forward = forward
        self._urgent: deque[_Request] = deque()
        self._routine: deque[_Request] = deque()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def predict(
        self, batch: Picture, owner: str, *, urgent: bool, explained: int | None = None
    ) -> Sequence[Any]:
        """Return what ``forward`` makes of a batch of at most `MOST_PICTURES`.

        Raises
        ------
        Closed
            Before it came to its turn.
        Exception
            Whatever ``forward`` raised for this batch alone.
        """
        request = _Request(owner, batch, explained)
        with self._changed:
            if self._closed:
                raise Closed
            (self._urgent if urgent else self._routine).append(request)
            self._changed.notify()
        return request.answer.result()

    def close(self) -> None:
        """Take nothing more; what waits raises `Closed`, what is under way is waited for."""
        with self._changed:
            self._closed = True
            for request in (*self._urgent, *self._routine):
                request.answer.set_exception(Closed())
            self._urgent.clear()
            self._routine.clear()
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._urgent or self._routine)
                if self._closed:
                    return
                together = self._next()
            self._answer(together)

    def _next(self) -> list[_Request]:
        """Take the first request, and those after it that fit into the same batch."""
        together: list[_Request] = []
        for lane in (self._urgent, self._routine):
            while lane and (not together or _fits(lane[0], together)):
                together.append(lane.popleft())
        return together

    def _answer(self, together: Sequence[_Request]) -> None:
        try:
            # In here as well: where there is no memory for it, each may still fit alone.
            batch = together[0].batch
            if len(together) > 1:
                batch = np.concatenate([each.batch for each in together])
            predictions = self._forward(
                batch, [each.owner for each in together], together[0].explained
            )
        except Exception as error:  # noqa: BLE001
            # It goes to whoever asked.
            if len(together) == 1:
                together[0].answer.set_exception(error)
                return
            for each in together:
                self._answer([each])
            return
        place = 0
        for each in together:
            each.answer.set_result(predictions[place : place + len(each.batch)])
            place += len(each.batch)


def _fits(request: _Request, together: Sequence[_Request]) -> bool:
    count = sum(len(each.batch) for each in together) + len(request.batch)
    first = together[0]
    is_alike = request.batch.shape[1:] == first.batch.shape[1:]
    return count <= MOST_PICTURES and is_alike and request.explained == first.explained
