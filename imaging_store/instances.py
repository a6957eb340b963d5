"""What is kept: instances as they came, and artifacts made from them, under keys.

A key is a relative path with ``/`` between its parts; the index and the messages carry keys, never
absolute paths, so that a store can be moved, and later be a bucket.

Nothing is visible under its key before its bytes are durable: bytes go to ``incoming/``, are
fsynced, renamed to their key, and the directory is fsynced. A process that dies leaves at most
files in ``incoming/`` that nobody has locked, which `FileInstanceStore.discard_unfinished` removes.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, Self
from urllib.parse import unquote, urlsplit

from service_runtime.errors import PermanentError, TransientError

Bytes = bytes | bytearray | memoryview

_KEY_PART = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,199}")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_INCOMING = "incoming"
_UID_LENGTH = 64
_DIRECTORIES_KNOWN = 4096


class StorageFull(TransientError):
    """The store has no room, or has reached the reserve that is kept free."""


class InvalidKey(PermanentError):
    """A key is not a relative path of plain names."""


class NotInStore(PermanentError):
    """Nothing is kept under this key."""


class UnsupportedStoreUrl(PermanentError):
    """``COUNTERSIGN_STORE_URL`` names a kind of store that this version does not have."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What `InstanceSink.commit` made durable."""

    key: str
    size_bytes: int
    """Of the data set: File Meta Information is not counted."""
    sha256: str
    """Of the data set alone, lower-case hexadecimal."""


class InstanceSink(Protocol):
    """Takes one data set, fragment by fragment. Ends with exactly one of ``commit``, ``abort``."""

    @property
    def sha256(self) -> str:
        """Digest of the data set bytes written so far."""

    def write(self, fragment: Bytes) -> None:
        """Append to the data set.

        Raises
        ------
        StorageFull
            Nothing more fits; ``abort`` is all that remains to be called.
        """

    def flush_to(self) -> Path:
        """Path of the unfinished file, for reading back what has been written."""

    def commit(self, key: str) -> Kept:
        """Make the bytes durable under ``key``. When this returns they survive a power cut.

        Raises
        ------
        StorageFull
            There is no room; nothing is left.
        """

    def abort(self) -> None:
        """Leave nothing. Does nothing after ``commit``."""


class InstanceStore(Protocol):
    """Where instances and artifacts are kept. Safe to use from many threads and processes."""

    def open_write(self, preamble: bytes = b"") -> InstanceSink:
        """Begin an instance; ``preamble`` (Part 10 header) comes before the data set."""

    def put_artifact(self, key: str, data: Bytes) -> None:
        """Keep ``data`` under ``key``, durable and whole; putting it again replaces it."""

    def path(self, key: str) -> Path:
        """Path of a file with the bytes of ``key``."""

    def open(self, key: str) -> BinaryIO:
        """Open for reading."""

    def read(self, key: str) -> bytes:
        """All bytes kept under ``key``."""

    def exists(self, key: str) -> bool:
        """Whether something is kept under ``key``."""


def instance_key(study_instance_uid: str, sop_instance_uid: str, sha256: str) -> str:
    """Key of a received instance: one directory per study, the digest in the name.

    The same bytes received again have the same key, so receiving is idempotent; other bytes under
    the same SOP Instance UID get a key of their own and never replace the first.
    """
    study = _plain(study_instance_uid)
    shard = hashlib.sha256(study.encode()).hexdigest()[:2]
    return f"instances/{shard}/{study}/{_plain(sop_instance_uid)}-{sha256[:16]}.dcm"


def _plain(uid: str) -> str:
    """Return ``uid`` as a file name: itself where it is well-formed, else a digest of it."""
    if len(uid) <= _UID_LENGTH and _UID.fullmatch(uid):
        return uid
    return "x" + hashlib.sha256(uid.encode(errors="surrogateescape")).hexdigest()[:32]


def open_instance_store(url: str, *, reserve_bytes: int = 0) -> "FileInstanceStore":
    """Open the store that ``COUNTERSIGN_STORE_URL`` names: ``file:/path``.

    Raises
    ------
    UnsupportedStoreUrl
        Any other scheme: instances of this version live in files.
    """
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path:
        msg = "COUNTERSIGN_STORE_URL must be file:/path; other kinds of store are not supported yet"
        raise UnsupportedStoreUrl(msg)
    return FileInstanceStore(Path(unquote(parts.path)), reserve_bytes=reserve_bytes)


class FileInstanceStore:
    """Instances as files under one directory of one file system.

    ``reserve_bytes`` are kept free: an instance is not begun when less is available, so that the
    database beside it can still write.
    """

    def __init__(self, root: Path, *, reserve_bytes: int = 0) -> None:
        self.root = root
        self._incoming = root / _INCOMING
        self._reserve_bytes = reserve_bytes
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._directories = _Directories(root)

    def open_write(self, preamble: bytes = b"") -> "FileSink":
        """Begin an instance.

        Raises
        ------
        StorageFull
            Less than the reserve is free.
        """
        self.require_room()
        sink = FileSink(self._directories, *_create(self._incoming))
        try:
            sink.write_preamble(preamble)
        except BaseException:
            sink.abort()
            raise
        return sink

    def require_room(self) -> None:
        """Raise `StorageFull` while less than the reserve is free."""
        if self._reserve_bytes:
            room = os.statvfs(self._incoming)
            if room.f_bavail * room.f_frsize < self._reserve_bytes:
                raise StorageFull("the instance store has reached its reserve; make room")

    def put_artifact(self, key: str, data: Bytes) -> None:
        """Keep ``data`` under ``key``, durable and whole; putting it again replaces it.

        Raises
        ------
        StorageFull
            There is no room; what was there before is unchanged.
        """
        _checked(key)
        sink = FileSink(self._directories, *_create(self._incoming))
        try:
            sink.write_preamble(data)
            sink.commit(key)
        finally:
            sink.abort()

    def path(self, key: str) -> Path:
        """Path of the file. It exists if something is kept under ``key``."""
        return self.root / _checked(key)

    def open(self, key: str) -> BinaryIO:
        """Open for reading; the caller closes it.

        Raises
        ------
        NotInStore
            Nothing is kept under ``key``.
        """
        try:
            return self.path(key).open("rb")
        except FileNotFoundError:
            raise NotInStore(f"nothing is kept under {key}") from None

    def read(self, key: str) -> bytes:
        """All bytes kept under ``key``. Raises `NotInStore`."""
        with self.open(key) as file:
            return file.read()

    def exists(self, key: str) -> bool:
        """Whether something is kept under ``key``."""
        return self.path(key).is_file()

    def discard_unfinished(self) -> int:
        """Remove what dead processes left in ``incoming/``; return how many files that were.

        A living writer holds a lock on its file, so this may run at any time.
        """
        discarded = 0
        for path in self._incoming.iterdir():
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    discarded += 1
                finally:
                    os.close(descriptor)
        return discarded


class FileSink:
    """One unfinished file of a `FileInstanceStore`."""

    def __init__(self, directories: "_Directories", path: Path, descriptor: int) -> None:
        self._directories = directories
        self._path = path
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def sha256(self) -> str:
        """Digest of the data set bytes written so far."""
        return self._digest.hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of the data set written so far."""
        return self._size_bytes

    def flush_to(self) -> Path:
        """Path of the unfinished file: nothing is buffered, so all that was written is there."""
        return self._path

    def write_preamble(self, data: Bytes) -> None:
        """Write bytes that are no part of the data set."""
        _write_all(self._descriptor, data)

    def write(self, fragment: Bytes) -> None:
        """Append to the data set."""
        _write_all(self._descriptor, fragment)
        self._digest.update(fragment)
        self._size_bytes += len(fragment)

    def commit(self, key: str) -> Kept:
        """Make the bytes durable under ``key``."""
        target = self._directories.root / _checked(key)
        try:
            os.fsync(self._descriptor)
            self._directories.make(target.parent)
            self._path.rename(target)
            os.close(self._descriptor)
            self._descriptor = -1
            _sync_directory(target.parent)
        except OSError as error:
            self.abort()
            raise _as_ours(error) from error
        return Kept(key, self._size_bytes, self.sha256)

    def abort(self) -> None:
        """Leave nothing. Does nothing after ``commit``."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def _create(directory: Path) -> tuple[Path, int]:
    """Create a locked file in ``directory``."""
    while True:
        path = directory / secrets.token_hex(12)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _as_ours(error) from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Between creating and locking, discard_unfinished may have taken it for a dead one's.
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _write_all(descriptor: int, data: Bytes) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        raise _as_ours(error) from error


def _as_ours(error: OSError) -> Exception:
    if error.errno in _NO_ROOM:
        return StorageFull("the instance store is full; make room")
    return error


class _Directories:
    """Directories of a store, each durable in its parent before anything is kept in it.

    That one is there says nothing: who made it may have died, or not have come to syncing it yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable: set[Path] = set()

    def make(self, directory: Path) -> None:
        """Create ``directory`` and its missing parents, and sync what was not synced by us."""
        if directory == self.root or (directory in self._durable and directory.is_dir()):
            return
        self.make(directory.parent)
        directory.mkdir(exist_ok=True)
        _sync_directory(directory.parent)
        if len(self._durable) >= _DIRECTORIES_KNOWN:
            self._durable.clear()
        self._durable.add(directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked(key: str) -> str:
    """Return ``key`` if it names a place inside the store, and not in ``incoming/``."""
    parts = key.split("/")
    if parts[0] == _INCOMING or not all(_KEY_PART.fullmatch(part) for part in parts):
        raise InvalidKey("a key is a relative path of letters, digits and . _ + -")
    return key
