"""Work on pixels: two instances at a time, and in no thread that other requests wait for."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

AT_ONE_TIME = 2
PIXEL_WORK = CapacityLimiter(AT_ONE_TIME)
"""A lane for what has the pixels of an instance in memory; who waits for it waits in no thread.

Of each that passes there may be a gibibyte, and none of what other requests need is behind it.
"""

Lane = CapacityLimiter | None
"""``None`` for that of whatever takes little: the threads that all other requests share."""

T = TypeVar("T")


async def at_work(function: Callable[..., T], *arguments: object) -> T:
    """Call a function that works on pixels when its turn has come."""
    return await to_thread.run_sync(function, *arguments, limiter=PIXEL_WORK)


async def begun(values: Iterator[bytes], lane: Lane) -> AsyncIterator[bytes]:
    """Return a body whose first piece is there already: what raises does so now."""
    return _rest(values, lane, await _piece(values, lane))


def streamed(values: Iterator[bytes], lane: Lane) -> AsyncIterator[bytes]:
    """Return a body: each of its pieces is made when the one before it has been sent."""
    return _rest(values, lane, b"")


async def _piece(values: Iterator[bytes], lane: Lane) -> bytes | None:
    return await to_thread.run_sync(next, values, None, limiter=lane)


async def _rest(values: Iterator[bytes], lane: Lane, piece: bytes | None) -> AsyncIterator[bytes]:
    while piece is not None:
        yield piece
        piece = await _piece(values, lane)
