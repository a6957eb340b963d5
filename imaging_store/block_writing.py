"""Writes a new file in whole blocks, past the page cache where the file system lets it (O_DIRECT).

An instance is written once and read much later. Through the page cache that costs three times the
processor time: each page is found, filled, looked for again and written back, and what is read all
the time is pushed out for it.
"""

import errno
import fcntl
import mmap
import os
from contextlib import suppress
from typing import Protocol

Bytes = bytes | bytearray | memoryview

BLOCK_BYTES = 512 * 1024
_ALIGNED_BYTES = 4096
"""What every device and file system takes for aligned."""
_WORTH_IT_BYTES = 64 * 1024
_KEPT_BLOCKS = 16
_HUGE_PAGE_BYTES = 2 * 1024 * 1024


class Blocks:
    """Memory at the bounds of pages, lent to one file at a time; safe to use from many threads.

    It lies in huge pages where there are any: of each page the processor has to find the place, and
    the kernel to hold it while the device reads it, which is as much work for a huge one.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self.may_be_direct = True
        """Whether the file system is not known to refuse O_DIRECT."""

    def lend(self) -> memoryview:
        """Return a block; its content is whatever it was."""
        try:
            return self._free.pop()
        except IndexError:
            block, *others = _huge_page_of_blocks()
            self._free += others
            return block

    def take_back(self, block: memoryview) -> None:
        """Keep a block for the next file, or let it go."""
        if len(self._free) < _KEPT_BLOCKS:
            self._free.append(block)


def _huge_page_of_blocks() -> list[memoryview]:
    # Private, so that a process that is forked has its own.
    memory = mmap.mmap(-1, _HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(memory)
    return [view[start : start + BLOCK_BYTES] for start in range(0, _HUGE_PAGE_BYTES, BLOCK_BYTES)]


class Digest(Protocol):
    """What is computed of the bytes of a file."""

    def update(self, data: Bytes, /) -> None:
        """Take the next bytes."""


class BlockWriter:
    """Appends to one new file. Ends with ``give_back``, which leaves the descriptor open.

    The file begins with ``start``, which fits a block. ``digest`` is told what comes after it, a
    block at a time where it can be.
    """

    def __init__(
        self, descriptor: int, blocks: Blocks, start: bytes = b"", digest: Digest | None = None
    ) -> None:
        self._descriptor = descriptor
        self._blocks = blocks
        self._block = blocks.lend()
        self._block[: len(start)] = start
        self._filled_bytes = self._digested_bytes = len(start)
        # Less than nothing while ``start``, which does not count, is in the block.
        self._before_block_bytes = -len(start)
        self._digest = digest
        self._is_direct = False
        self._may_be_direct = True
        self._is_given_back = False

    @property
    def size_bytes(self) -> int:
        """Of what came after ``start`` so far."""
        return self._before_block_bytes + self._filled_bytes

    def write(self, *pieces: Bytes) -> None:
        """Append ``pieces``, which may be reused when this returns.

        Raises
        ------
        OSError
            The file cannot be written, or there is no room.
        """
        for piece in pieces:
            size_bytes = len(piece)
            taken = 0
            while taken < size_bytes:
                filled = self._filled_bytes
                end = min(BLOCK_BYTES, filled + size_bytes - taken)
                part = piece if end - filled == size_bytes else memoryview(piece)[taken:]
                self._block[filled:end] = part[: end - filled]
                taken += end - filled
                self._filled_bytes = end
                if end == BLOCK_BYTES:
                    self._write_block()

    def room(self) -> memoryview:
        """Return the rest of the block: what is put there need not be copied, see `took`.

        There is room for one byte at least; it is valid until anything else is called.
        """
        return self._block[self._filled_bytes :]

    def took(self, size_bytes: int) -> None:
        """Append what was put at the beginning of `room`.

        Raises
        ------
        OSError
            The file cannot be written, or there is no room.
        """
        self._filled_bytes += size_bytes
        if self._filled_bytes == BLOCK_BYTES:
            self._write_block()

    def update_digest(self) -> None:
        """Have the digest know all that has been taken so far."""
        if self._digest is not None and self._digested_bytes < self._filled_bytes:
            self._digest.update(self._block[self._digested_bytes : self._filled_bytes])
        self._digested_bytes = self._filled_bytes

    def flush(self) -> None:
        """Write what has been taken so far; what comes after it goes through the page cache.

        Raises
        ------
        OSError
            The file cannot be written, or there is no room.
        """
        filled = self._begin_block()
        whole = filled - filled % _ALIGNED_BYTES
        if not self._is_direct or whole < _WORTH_IT_BYTES:
            whole = 0
        if whole:
            self._write_all(self._block[:whole])
        self._end_direct()
        self._may_be_direct = False
        self._write_all(self._block[whole:filled])

    def give_back(self) -> None:
        """Give the memory back; what has not been flushed is lost."""
        if not self._is_given_back:
            self._is_given_back = True
            self._blocks.take_back(self._block)

    def _begin_block(self) -> int:
        """Have what is in the block digested and counted; return how many bytes that is."""
        self.update_digest()
        filled = self._filled_bytes
        self._before_block_bytes += filled
        self._filled_bytes = self._digested_bytes = 0
        return filled

    def _write_block(self) -> None:
        self._begin_block()
        if not self._is_direct and self._may_be_direct and self._blocks.may_be_direct:
            self._begin_direct()
        self._write_all(self._block)

    def _write_all(self, left: memoryview) -> None:
        while left:
            try:
                written = os.write(self._descriptor, left)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._is_direct:
                    raise
                # Some take the flag and refuse the writing.
                self._blocks.may_be_direct = False
                self._end_direct()
                continue
            left = left[written:]
            if self._is_direct and written % _ALIGNED_BYTES:
                self._end_direct()

    def _begin_direct(self) -> None:
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            self._blocks.may_be_direct = False
        else:
            self._is_direct = True

    def _end_direct(self) -> None:
        if self._is_direct:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, 0)
        self._is_direct = False
        self._may_be_direct = False
