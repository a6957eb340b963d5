"""Writing and syncing that the kernel does meanwhile (Linux).

A write takes a tenth of a millisecond; to wake a thread for each costs more than it gains. Python
has neither io_submit(2) and io_getevents(2) nor sync_file_range(2), the C library only the last;
io_uring is forbidden to most containers.
"""

import ctypes
import errno
import os
import platform
import sys
import weakref
from collections.abc import Callable
from ctypes import (
    c_int,
    c_int16,
    c_int32,
    c_int64,
    c_long,
    c_uint,
    c_uint16,
    c_uint32,
    c_uint64,
    c_ulong,
    c_void_p,
)
from functools import cache, partial
from typing import Any, NamedTuple

_PWRITE, _FSYNC = 1, 2
"""``IOCB_CMD_PWRITE`` and ``IOCB_CMD_FSYNC``."""

_NUMBERS = {"x86_64": (206, 207, 209, 208), "aarch64": (0, 1, 2, 4)}
"""Of the calls on each machine, in the order of `_SystemCalls`."""
_ARGUMENTS = (
    (c_long, c_void_p),
    (c_ulong,),
    (c_ulong, c_long, c_void_p),
    (c_ulong, c_long, c_long, c_void_p, c_void_p),
)
"""And what they take."""

_NO_DESCRIPTOR = -1
_SYNC_FILE_RANGE_WRITE = 2
_SYNCING_TRIES_AGAIN = {errno.ENOMEM, errno.EAGAIN, errno.EINTR}
"""What is not begun for one of these is written, or its failure told, by syncing the file."""

_EVENT_NUMBERS = 4
"""In a ``struct io_event``: data, block, result, second result. As numbers they are read faster."""

_LARGEST_LONG = 2**63 - 1
"""Of a process of 64 bits: one of 32 has other numbers on the same machine."""

_Call = Callable[..., int]


class _ControlBlock(ctypes.Structure):
    """``struct iocb`` of linux/aio_abi.h, little-endian."""

    _fields_ = (
        ("data", c_uint64),
        ("key", c_uint32),
        ("rw_flags", c_int32),
        ("opcode", c_uint16),
        ("reqprio", c_int16),
        ("descriptor", c_uint32),
        ("address", c_uint64),
        ("size_bytes", c_uint64),
        ("offset", c_int64),
        ("reserved", c_uint64),
        ("flags", c_uint32),
        ("eventfd", c_uint32),
    )


class KernelIo:
    """Operations, so many at once; for one thread at a time, of the process that made it.

    Raises
    ------
    OSError
        This system has none of it, or no more of it just now.
    """

    def __init__(self, at_once: int) -> None:
        self._calls = _system_calls()
        self._at_once = at_once
        self._blocks = (_ControlBlock * at_once)()
        # To submit one operation is to give the address of a list of one address.
        self._lists = [(c_void_p * 1)(ctypes.addressof(block)) for block in self._blocks]
        self._events = (c_int64 * (_EVENT_NUMBERS * at_once))()
        self._free = list(range(at_once))
        self._results: dict[int, int] = {}
        context = c_ulong(0)
        _checked(self._calls.setup, at_once, ctypes.byref(context))
        self._context = context.value
        self._finalizer = weakref.finalize(self, self._calls.destroy, self._context)
        self._finalizer.atexit = False

    def write(self, descriptor: int, address: int, size_bytes: int, offset: int) -> int:
        """Begin to write memory, which stays as it is until then; return what to ask `result` for.

        Raises
        ------
        OSError
            It has not begun.
        """
        return self._begin(_PWRITE, descriptor, address, size_bytes, offset)

    def sync(self, descriptor: int) -> int:
        """Begin what `os.fsync` does; return what to ask `result` for.

        Raises
        ------
        OSError
            It has not begun.
        """
        return self._begin(_FSYNC, descriptor, 0, 0, 0)

    def result(self, operation: int) -> int:
        """Wait until an operation has ended; return bytes written, or the error number, negated.

        To be asked for once.
        """
        while operation not in self._results:
            self._reap()
        self._free.append(operation)
        return self._results.pop(operation)

    def close(self) -> None:
        """Wait for what is under way, and give back what the kernel has for this."""
        self._finalizer()

    def _begin(
        self, opcode: int, descriptor: int, address: int, size_bytes: int, offset: int
    ) -> int:
        if not self._free:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        operation = self._free.pop()
        block = self._blocks[operation]
        block.data, block.opcode, block.descriptor = operation, opcode, descriptor
        block.address, block.size_bytes, block.offset = address, size_bytes, offset
        try:
            _checked(self._calls.submit, self._context, 1, self._lists[operation])
        except OSError:
            self._free.append(operation)
            raise
        return operation

    def _reap(self) -> None:
        try:
            count = _checked(
                self._calls.get_events, self._context, 1, self._at_once, self._events, None
            )
        except InterruptedError:
            return
        events = self._events
        for start in range(0, count * _EVENT_NUMBERS, _EVENT_NUMBERS):
            self._results[events[start]] = events[start + 2]


def write_back(descriptor: int, offset: int, size_bytes: int) -> None:
    """Begin to write to the disk what the page cache has of a part of a file, where that can be.

    To be synced all the same, for which there is less to do then.

    Raises
    ------
    OSError
        It could not begin: no room, or a disk that fails. It has to be told now, because ext4 may
        have dropped the bytes, and syncing then finds nothing to do.
    """
    if (call := _write_back_call()) is None:
        return
    try:
        _checked(call, descriptor, offset, size_bytes, _SYNC_FILE_RANGE_WRITE)
    except OSError as error:
        if error.errno not in _SYNCING_TRIES_AGAIN:
            raise


@cache
def _write_back_call() -> _Call | None:
    """Return sync_file_range(2), unless this system, or its sandbox, has none."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if call is None:
        return None
    call.argtypes = (c_int, c_int64, c_int64, c_uint)
    call.restype = c_int
    call(_NO_DESCRIPTOR, 0, 1, _SYNC_FILE_RANGE_WRITE)
    return call if ctypes.get_errno() == errno.EBADF else None


class _SystemCalls(NamedTuple):
    setup: _Call
    destroy: _Call
    submit: _Call
    get_events: _Call


@cache
def _system_calls() -> _SystemCalls:
    numbers = _NUMBERS.get(platform.machine())
    if sys.platform != "linux" or numbers is None or sys.maxsize < _LARGEST_LONG:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    library = ctypes.CDLL(None, use_errno=True)
    return _SystemCalls(*map(partial(_system_call, library), numbers, _ARGUMENTS))


def _system_call(library: ctypes.CDLL, number: int, arguments: tuple[Any, ...]) -> _Call:
    # By index it is a function of its own, else all would share their arguments.
    function = library["syscall"]
    function.argtypes = (c_long, *arguments)
    function.restype = c_long
    return partial(function, number)


def _checked(call: _Call, *arguments: object) -> int:
    result = call(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
