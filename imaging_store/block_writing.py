"""Writes a new file in whole blocks, past the page cache where the file system lets it (O_DIRECT).

An instance is written once and read much later. Through the page cache that costs three times the
processor time: each page is found, filled, looked for again and written back, and what is read all
the time is pushed out for it. While one block is written the next is filled.
"""

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

from imaging_store.kernel_io import KernelIo, write_back

Bytes = bytes | bytearray | memoryview

BLOCK_BYTES = 256 * 1024
_ALIGNED_BYTES = 64 * 1024
"""What every device takes for aligned, and a page of any machine: none may be written in both ways,
which would be at once. Less is not worth it either."""
_RING_BYTES = 4 * BLOCK_BYTES
_KEPT_RINGS = 32
"""More than most processes serve associations at once: to let one go takes the kernel tens of
milliseconds, before an answer."""
_HUGE_PAGE_BYTES = 2 * 1024 * 1024


class Ring:
    """A few blocks at the bounds of pages, and what writes some while the next is filled."""

    def __init__(self, memory: memoryview) -> None:
        self.blocks = [
            memory[start : start + BLOCK_BYTES] for start in range(0, _RING_BYTES, BLOCK_BYTES)
        ]
        self.addresses = [
            ctypes.addressof(ctypes.c_char.from_buffer(block)) for block in self.blocks
        ]
        self._kernel_io: KernelIo | None = None
        self._may_have_kernel_io = True

    @property
    def kernel_io(self) -> KernelIo | None:
        """What writes the blocks, and syncs one thing more, meanwhile; none where there is none."""
        if self._kernel_io is None and self._may_have_kernel_io:
            try:
                self._kernel_io = KernelIo(len(self.blocks) + 1)
            except OSError:
                self._may_have_kernel_io = False
        return self._kernel_io

    def begin_sync(self, descriptor: int) -> Callable[[], None]:
        """Begin what `os.fsync` does; return what has to be called, which ends it or raises."""
        if self.kernel_io is not None:
            with suppress(OSError):
                return partial(_end_sync, self.kernel_io, self.kernel_io.sync(descriptor))
        return partial(os.fsync, descriptor)

    def close(self) -> None:
        """Give back what the kernel has for it."""
        if self._kernel_io is not None:
            self._kernel_io.close()


def _end_sync(kernel_io: KernelIo, operation: int) -> None:
    if (result := kernel_io.result(operation)) < 0:
        raise OSError(-result, os.strerror(-result))


class Blocks:
    """Blocks, lent to one file at a time by rings; safe to use from many threads.

    They lie in huge pages where there are any: of each page the processor has to find the place,
    and the kernel to hold it while the device reads it, which is as much work for a huge one.
    """

    def __init__(self) -> None:
        self._free: list[Ring] = []
        self._process_id = os.getpid()
        self.may_be_direct = True
        """Whether the file system is not known to refuse O_DIRECT."""

    def lend(self) -> Ring:
        """Return a ring; what its blocks hold is whatever it was."""
        if self._process_id != os.getpid():
            # The kernel does nothing for a ring of the process that this one was forked from.
            self._free, self._process_id = [], os.getpid()
        try:
            return self._free.pop()
        except IndexError:
            ring, *others = _huge_page_of_rings()
            self._free += others
            return ring

    def take_back(self, ring: Ring) -> None:
        """Keep a ring for the next file, or let it go."""
        if len(self._free) < _KEPT_RINGS:
            self._free.append(ring)
        else:
            ring.close()


def _huge_page_of_rings() -> list[Ring]:
    # Private, so that a process that is forked has its own.
    memory = mmap.mmap(-1, _HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(memory)
    starts = range(0, _HUGE_PAGE_BYTES, _RING_BYTES)
    return [Ring(view[start : start + _RING_BYTES]) for start in starts]


class Digest(Protocol):
    """What is computed of the bytes of a file."""

    def update(self, data: Bytes, /) -> None:
        """Take the next bytes."""


class _Write(NamedTuple):
    """What the kernel writes meanwhile."""

    kernel_io: KernelIo
    operation: int
    part: memoryview
    offset: int


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
        self._ring = blocks.lend()
        self._number = 0
        """Of the block that is filled."""
        self._block = self._ring.blocks[0]
        self._block[: len(start)] = start
        self._filled_bytes = self._digested_bytes = len(start)
        self._start_bytes = len(start)
        self._offset = 0
        """Where in the file the block begins."""
        self._under_way: dict[int, _Write] = {}
        """By the number of their block."""
        self._digest = digest
        self._is_direct = False
        self._may_be_direct = True
        self._is_given_back = False

    @property
    def size_bytes(self) -> int:
        """Of what came after ``start`` so far."""
        return self._offset + self._filled_bytes - self._start_bytes

    def write(self, *pieces: Bytes) -> None:
        """Append ``pieces``, which may be reused when this returns.

        Raises
        ------
        OSError
            The file cannot be written, or there is no room. It may be told with what comes later,
            by `flush` at the latest.
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
        """Append what was put at the beginning of `room`. Raises as `write` does."""
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
        self.begin_flush()
        self.end_flush()

    def begin_flush(self) -> None:
        """Begin what `flush` does. Raises as it does."""
        filled = self._filled_bytes
        whole = filled - filled % _ALIGNED_BYTES if self._is_direct else 0
        if whole:
            self._begin_write(whole)
        self._end_direct()
        self._may_be_direct = False
        if whole < filled:
            self._write_all(self._block[whole:filled], self._offset + whole)
            # Else the disk would begin with it when the file is synced.
            write_back(self._descriptor, self._offset + whole, filled - whole)
        self._next_block()

    def end_flush(self) -> None:
        """Wait for what `begin_flush` began. Raises as `flush` does."""
        for number in tuple(self._under_way):
            self._end_write(number)

    def give_back(self) -> None:
        """Give the memory back; what has not been flushed is lost."""
        if self._is_given_back:
            return
        self._is_given_back = True
        try:
            while self._under_way:
                # The kernel still reads it.
                _, write = self._under_way.popitem()
                write.kernel_io.result(write.operation)
        except OSError:
            pass  # nobody else may have what it may still read
        else:
            self._blocks.take_back(self._ring)

    def _write_block(self) -> None:
        may_be_direct = self._may_be_direct and self._blocks.may_be_direct
        if self._is_direct or (may_be_direct and self._begin_direct()):
            self._begin_write(BLOCK_BYTES)
        else:
            self._write_all(self._block, self._offset)
        self._next_block()

    def _next_block(self) -> None:
        """Go on behind what the block holds, in the next one once that has been written."""
        self.update_digest()
        self._offset += self._filled_bytes
        self._filled_bytes = self._digested_bytes = 0
        if self._number in self._under_way:
            self._number = (self._number + 1) % len(self._ring.blocks)
            self._block = self._ring.blocks[self._number]
            self._end_write(self._number)

    def _begin_write(self, size_bytes: int) -> None:
        """Write the first bytes of the block, or have the kernel do it meanwhile."""
        part, offset = self._block[:size_bytes], self._offset
        if (kernel_io := self._ring.kernel_io) is not None:
            try:
                # What makes a file longer is not written meanwhile, but at once, by ext4.
                os.ftruncate(self._descriptor, offset + size_bytes)
                operation = kernel_io.write(
                    self._descriptor, self._ring.addresses[self._number], size_bytes, offset
                )
            except OSError:
                pass  # why not is told by writing it now
            else:
                self._under_way[self._number] = _Write(kernel_io, operation, part, offset)
                return
        self._write_all(part, offset)

    def _end_write(self, number: int) -> None:
        """Wait until a block has been written, if the kernel does it meanwhile."""
        if number not in self._under_way:
            return
        write = self._under_way[number]
        result = write.kernel_io.result(write.operation)
        del self._under_way[number]
        if result == -errno.EINVAL:
            self._refuse_direct()
        written = max(0, result)
        if written % _ALIGNED_BYTES:
            self._end_direct()
        # What was not written is now, or it is told why it cannot be.
        self._write_all(write.part[written:], write.offset + written)

    def _write_all(self, left: memoryview, offset: int) -> None:
        while left:
            try:
                written = os.pwrite(self._descriptor, left, offset)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._is_direct:
                    raise
                self._refuse_direct()
                continue
            left = left[written:]
            offset += written
            if self._is_direct and written % _ALIGNED_BYTES:
                self._end_direct()

    def _begin_direct(self) -> bool:
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            self._blocks.may_be_direct = False
        else:
            self._is_direct = True
        return self._is_direct

    def _refuse_direct(self) -> None:
        """Write to no file directly any more: some systems take the flag and refuse the writing."""
        self._blocks.may_be_direct = False
        self._end_direct()

    def _end_direct(self) -> None:
        if self._is_direct:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, 0)
        self._is_direct = False
        self._may_be_direct = False
