"""Files that appear whole and durable, or not at all.

Bytes go to a file without a name, are fsynced, then linked to their place, and the directory is
fsynced. A process that dies leaves nothing. Where a file system has no files without names (NFS),
and while one replaces an older file, it is a locked file in the folder ``incoming``: what nobody
has locked there was left by the dead, and `discard_unfinished` removes it.
"""

import errno
import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

from imaging_store.block_writing import Blocks, BlockWriter, Digest
from service_runtime.errors import TransientError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REMOVED = {errno.ENOENT, errno.ESTALE}
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}
_MODE = 0o640
_DIRECTORIES_KNOWN = 4096
_COMPARED_BYTES = 1024 * 1024


class StorageFull(TransientError):
    """The store has no room, or has reached the reserve that is kept free."""


class OtherBytes(Exception):
    """What is there under the name ends with other bytes than what was to be published."""


class UnfinishedFile(BlockWriter):
    """A file that nobody sees before `publish`. Ends with exactly one of ``publish``, ``abort``.

    What is written to a small one is only taken until it is flushed.

    Raises
    ------
    StorageFull
        There is no room to create it, or to write to it where a `BlockWriter` raises `OSError`.
    """

    def __init__(
        self,
        incoming: str,
        directories: "Directories",
        *,
        is_replacing: bool = False,
        start: bytes = b"",
        digest: Digest | None = None,
    ) -> None:
        self._incoming = incoming
        self._directories = directories
        self._is_replacing = is_replacing
        self._name: str | None = None
        descriptor = _open_unnamed(incoming)
        if descriptor < 0:
            self._name, descriptor = _create(incoming)
        super().__init__(descriptor, directories.blocks, start, digest)
        self.was_there = False
        """Whether the name had a file already when this one was to get it."""

    @property
    def path(self) -> Path:
        """Where this process can read what has been flushed."""
        return Path(self._readable)

    @property
    def _readable(self) -> str:
        return self._name or f"/proc/self/fd/{self._descriptor}"

    @override
    def _write_all(self, left: memoryview) -> None:
        try:
            super()._write_all(left)
        except OSError as error:
            raise _as_ours(error) from error

    def publish(self, key: str) -> None:
        """Make the bytes durable, then the name ``key`` under the root, which is made as needed.

        A file that is there already is replaced by one that was begun as replacing; else it stays,
        and has to end with what this one has after ``start``.

        Raises
        ------
        OtherBytes
            It has not.
        """
        try:
            self.sync()
            publish_together(self._directories, {key: self})
        finally:
            self.abort()

    def sync(self) -> None:
        """Make the bytes durable; nothing more can be written."""
        self.flush()
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _as_ours(error) from error
        self.give_back()

    def link(self, parent: int, name: str) -> None:
        """Give what is durable its name in an open directory, as `publish` does."""
        if self._is_replacing and self._name is not None:
            self._replace(parent, name)
            return
        # Without the descriptor of a directory Python would link the symbolic link itself.
        try:
            os.link(self._readable, name, dst_dir_fd=parent, follow_symlinks=True)
        except FileExistsError:
            self.was_there = True
            if self._is_replacing:
                self._replace(parent, name)
            else:
                _keep_anew(parent, name, self._descriptor, self.size_bytes)

    def _replace(self, parent: int, name: str) -> None:
        if self._name is None:
            self._name = _link_locked(self._incoming, self._descriptor)
        os.rename(self._name, name, dst_dir_fd=parent)
        self._name = None

    def abort(self) -> None:
        """Leave nothing but what was published."""
        self.give_back()
        if self._name is not None:
            with suppress(FileNotFoundError):
                Path(self._name).unlink()
            self._name = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def publish_together(directories: "Directories", files: Mapping[str, UnfinishedFile]) -> None:
    """Make the names of files durable whose bytes are; a directory that they share is synced once.

    What went before stays published where it fails.
    """
    by_directory: dict[str, dict[str, UnfinishedFile]] = {}
    for key, file in files.items():
        directory, _, name = key.rpartition("/")
        by_directory.setdefault(directory, {})[name] = file
    try:
        for directory, named in by_directory.items():
            try:
                _link_all(directories, directory, named)
            except OSError as error:
                directories.forget(directory)
                if error.errno not in _REMOVED:
                    raise
                # The directory was empty, and removed before anything was in it.
                _link_all(directories, directory, named)
    except OSError as error:
        raise _as_ours(error) from error


def _link_all(
    directories: "Directories", directory: str, files: Mapping[str, UnfinishedFile]
) -> None:
    parent = directories.hold(directory)
    for name, file in files.items():
        file.link(parent, name)
    os.fsync(parent)


def _keep_anew(parent: int, name: str, again: int, tail_bytes: int) -> None:
    """Have a file that is there already count as kept just now: nobody sweeps it away.

    Raises `FileNotFoundError` where somebody has just moved or removed it, and `OtherBytes` where
    its last ``tail_bytes`` are not those of ``again``.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.stat(name, dir_fd=parent)
        if not _end_alike(again, descriptor, tail_bytes):
            raise OtherBytes
        os.utime(descriptor)
    finally:
        os.close(descriptor)


def discard_unfinished(incoming: Path) -> int:
    """Remove what dead processes left in ``incoming``; return how many files that were.

    A living writer holds a lock on its file, so this may run at any time.
    """
    discarded = 0
    for path in incoming.iterdir():
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                discarded += 1
            finally:
                os.close(descriptor)
    return discarded


class Directories:
    """Directories under a root, each durable in its parent before anything is kept in it.

    That one is there says nothing: who made it may have died, or not have come to syncing it yet.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._durable = {""}
        self._held = threading.local()
        self.blocks = Blocks()
        """For writing the files of these directories."""

    def hold(self, directory: str) -> int:
        """Return an open descriptor of ``directory``, relative to the root, made where missing.

        It stays open until this thread asks for another, forgets it, or ends: the files of a study
        come one after another. Who asked does not close it.
        """
        held: _Held | None = getattr(self._held, "last", None)
        if held is None or held.directory != directory:
            held = self._held.last = _Held(directory, self._open(directory))
        return held.descriptor

    def forget(self, directory: str) -> None:
        """Look anew for a directory that somebody has removed."""
        self._durable.discard(directory)
        self._held.last = None

    def _open(self, directory: str) -> int:
        path = f"{self._root}/{directory}"
        if directory in self._durable:
            with suppress(FileNotFoundError):
                return _open_directory(path)
        parent = self._open(directory.rpartition("/")[0])
        try:
            with suppress(FileExistsError):
                Path(path).mkdir()
            os.fsync(parent)
        finally:
            os.close(parent)
        if len(self._durable) >= _DIRECTORIES_KNOWN:
            self._durable = {""}
        self._durable.add(directory)
        return _open_directory(path)


class _Held:
    """An open directory, closed when nobody has it any more."""

    def __init__(self, directory: str, descriptor: int) -> None:
        self.directory = directory
        self.descriptor = descriptor

    # At the end of the interpreter nothing is left of modules.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.descriptor)


def _end_alike(one: int, other: int, tail_bytes: int) -> bool:
    """Return whether the last bytes of two files are the same."""
    start, other_start = (os.fstat(each).st_size - tail_bytes for each in (one, other))
    if other_start < 0:
        return False
    return all(
        os.pread(one, min(_COMPARED_BYTES, tail_bytes - done), start + done)
        == os.pread(other, min(_COMPARED_BYTES, tail_bytes - done), other_start + done)
        for done in range(0, tail_bytes, _COMPARED_BYTES)
    )


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _open_unnamed(folder: str) -> int:
    """Open a file without a name; return -1 where the file system has none."""
    try:
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, _MODE)
    except OSError as error:
        if error.errno in _NO_UNNAMED_FILES:
            return -1
        raise _as_ours(error) from error


def _new_name(folder: str) -> str:
    return f"{folder}/{secrets.token_hex(12)}"


def _link_locked(folder: str, descriptor: int) -> str:
    """Give a file that has no name one in ``folder``; it is locked before anybody sees it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    name = _new_name(folder)
    parent = _open_directory(folder)
    try:
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=parent, follow_symlinks=True)
    finally:
        os.close(parent)
    return name


def _create(folder: str) -> tuple[str, int]:
    """Create a locked file in ``folder``."""
    while True:
        name = _new_name(folder)
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise _as_ours(error) from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Between creating and locking, discard_unfinished may have taken it for a dead one's.
        if os.fstat(descriptor).st_nlink:
            return name, descriptor
        os.close(descriptor)


def _as_ours(error: OSError) -> Exception:
    if error.errno in _NO_ROOM:
        return StorageFull("the instance store is full; make room")
    return error
