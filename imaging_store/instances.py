"""What is kept: instances as they came, and artifacts made from them, under keys.

A key is a relative path with ``/`` between its parts; the index and the messages carry keys, never
absolute paths, so that a store can be moved, and later be a bucket.

Nothing is answered for before its bytes and its key are durable, and of an artifact nothing is seen
before (see `imaging_store.durable_files`).
"""

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, Self
from urllib.parse import unquote, urlsplit

import xxhash

from imaging_store.block_writing import Bytes
from imaging_store.directories import Directories
from imaging_store.durable_files import (
    OtherBytes,
    StorageFull,
    UnfinishedFile,
    discard_unfinished,
    make_durable,
    publish_together,
)
from service_runtime.errors import PermanentError

__all__ = [
    "DigestClash",
    "FileInstanceStore",
    "FileSink",
    "InstanceSink",
    "InstanceStore",
    "InvalidKey",
    "Kept",
    "NotInStore",
    "StorageFull",
    "UnsupportedStoreUrl",
    "instance_key",
    "is_intact",
    "open_instance_store",
]

_KEY_PART = r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,199}"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_INCOMING = "incoming"
_KEY = re.compile(rf"(?!{_INCOMING}(?:/|\Z)){_KEY_PART}(?:/{_KEY_PART})*")
_UID_LENGTH = 64
_SHA256_LENGTH = 64
"""Of the digests of an earlier version."""
_PIECE_BYTES = 1024 * 1024


class InvalidKey(PermanentError):
    """A key is not a relative path of plain names."""


class NotInStore(PermanentError):
    """Nothing is kept under this key."""


class DigestClash(PermanentError):
    """Other bytes are kept under a key that is made of the digest: they are damaged, or forged."""


class UnsupportedStoreUrl(PermanentError):
    """``COUNTERSIGN_STORE_URL`` names a kind of store that this version does not have."""


class Kept(NamedTuple):
    """What `InstanceSink.commit` made durable."""

    key: str
    size_bytes: int
    """Of the data set: File Meta Information is not counted."""
    digest: str
    """XXH3-128 of the data set alone, lower-case hexadecimal. It finds what is the same, and twenty
    times faster than SHA-256; that it is the same is seen by comparing the bytes."""


class InstanceSink(Protocol):
    """Takes one data set, fragment by fragment. Ends with exactly one of ``commit``, ``abort``."""

    @property
    def digest(self) -> str:
        """Digest of the data set bytes written so far."""

    def write(self, *fragments: Bytes) -> None:
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

        What is there already stays as it is, and has to be the same.

        Raises
        ------
        DigestClash
            It is not.
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

    def put_artifacts(self, contents: Mapping[str, Bytes]) -> None:
        """Keep several by their keys; none is seen before the bytes of all are durable."""

    def path(self, key: str) -> Path:
        """Path of a file with the bytes of ``key``."""

    def open(self, key: str) -> BinaryIO:
        """Open for reading."""

    def read(self, key: str) -> bytes:
        """All bytes kept under ``key``."""

    def exists(self, key: str) -> bool:
        """Whether something is kept under ``key``."""


def instance_key(study_instance_uid: str, sop_instance_uid: str, digest: str) -> str:
    """Key of a received instance: one directory per study, the digest in the name.

    The same bytes received again have the same key, so receiving is idempotent; other bytes under
    the same SOP Instance UID get a key of their own and never replace the first.
    """
    return f"{_study_folder(study_instance_uid)}/{_plain(sop_instance_uid)}-{digest}.dcm"


@lru_cache(maxsize=256)
def _study_folder(study_instance_uid: str) -> str:
    study = _plain(study_instance_uid)
    shard = hashlib.sha256(study.encode()).hexdigest()[:2]
    return f"instances/{shard}/{study}"


def is_intact(data_set: BinaryIO, digest: str) -> bool:
    """Return whether a data set, from where its file stands to the end, has the digest of a key."""
    computed = hashlib.sha256() if len(digest) == _SHA256_LENGTH else xxhash.xxh3_128()
    while piece := data_set.read(_PIECE_BYTES):
        computed.update(piece)
    return computed.hexdigest() == digest


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
        incoming = root / _INCOMING
        self._incoming = str(incoming)
        self._reserve_bytes = reserve_bytes
        incoming.mkdir(parents=True, exist_ok=True)
        self._directories = Directories(root)

    def open_write(self, preamble: bytes = b"") -> "FileSink":
        """Begin an instance.

        Raises
        ------
        StorageFull
            Less than the reserve is free.
        """
        self.require_room()
        return FileSink(self._incoming, self._directories, preamble)

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
        self.put_artifacts({key: data})

    def put_artifacts(self, contents: Mapping[str, Bytes]) -> None:
        """Keep several by their keys, as `put_artifact` does.

        None is seen before the bytes of all are durable. A directory that they share is synced
        once.

        Raises
        ------
        StorageFull
            There is no room; those that are not kept are as they were before.
        """
        with ExitStack() as begun:
            files = {}
            for key, data in contents.items():
                _checked(key)
                file = UnfinishedFile(self._incoming, self._directories, is_replacing=True)
                begun.callback(file.abort)
                file.write(data)
                file.sync()
                files[key] = file
            publish_together(self._directories, files)

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

    def is_durable(self, key: str) -> bool:
        """Whether something is kept under ``key``, which is durable when this returns."""
        try:
            with self.open(key) as file:
                make_durable(file, waits=True)
        except (NotInStore, FileNotFoundError):
            return False
        return True

    def discard_unfinished(self) -> int:
        """Remove what dead processes left in ``incoming/``; return how many files that were.

        A living writer holds a lock on its file, so this may run at any time.
        """
        return discard_unfinished(self.root / _INCOMING)


class FileSink(UnfinishedFile):
    """One data set on its way into a `FileInstanceStore`; an `InstanceSink`, and ends as one.

    With ``commit`` or ``abort``, that is, and not with ``publish``, which takes any name.
    """

    def __init__(self, incoming: str, directories: Directories, preamble: bytes) -> None:
        self._xxh3 = xxhash.xxh3_128()
        super().__init__(incoming, directories, start=preamble, digest=self._xxh3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def digest(self) -> str:
        """Digest of the data set bytes written so far."""
        self.update_digest()
        return self._xxh3.hexdigest()

    def flush_to(self) -> Path:
        """Path of the unfinished file, with all that was written; for this process only."""
        self.flush()
        return self.path

    def commit(self, key: str) -> Kept:
        """Make the bytes durable under ``key``; what is there already stays.

        Raises
        ------
        DigestClash
            What is there are other bytes.
        """
        _checked(key)
        try:
            self.publish(key)
        except OtherBytes:
            raise DigestClash(
                "other bytes of the same digest are kept under this key; see whether the file in "
                "the store is damaged"
            ) from None
        return Kept(key, self.size_bytes, self.digest)


def _checked(key: str) -> str:
    """Return ``key`` if it names a place inside the store, and not in ``incoming/``."""
    if not _KEY.fullmatch(key):
        raise InvalidKey("a key is a relative path of letters, digits and . _ + -")
    return key
