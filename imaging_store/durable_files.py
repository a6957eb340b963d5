"""Files that are whole when they are entered or answered for, and stay so after a power cut.

Bytes go to a file without a name, which is linked to its place. A process that dies leaves nothing,
or a whole file, if the disk does not fail just then. Where a file system has no files without names
(NFS), and while one replaces an older file, it is a locked file in the folder ``incoming``: what
nobody has locked there was left by the dead, and `discard_unfinished` removes it.

What may replace another file (`UnfinishedFile.sync`, `publish_together`) is fsynced, gets its
name, and the directory is fsynced. What replaces none (`UnfinishedFile.publish`) gets its name
first, then file and directory are fsynced at once: one commit of a journal holds both. A power cut
may leave the name without all of the bytes, for which nobody has been answered: the digest in its
name tells, see `imaging_store.instances.is_intact`. Until both are durable the file is locked;
whoever keeps the same meanwhile waits.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from typing_extensions import override

from imaging_store.block_writing import BlockWriter, Digest
from imaging_store.directories import Directories, open_directory
from service_runtime.errors import TransientError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REMOVED = {errno.ENOENT, errno.ESTALE}
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}
_MODE = 0o640
_COMPARED_BYTES = 1024 * 1024
_ATTEMPTS = 4
"""To do something in a directory while others remove what is in it."""

_Result = TypeVar("_Result")


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
        directories: Directories,
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
        self._is_synced = False
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
    def _write_all(self, left: memoryview, offset: int) -> None:
        try:
            super()._write_all(left, offset)
        except OSError as error:
            raise _as_ours(error) from error

    @override
    def begin_flush(self) -> None:
        try:
            super().begin_flush()
        except OSError as error:
            raise _as_ours(error) from error

    def publish(self, key: str) -> None:
        """Give the bytes the name ``key`` under the root, made as needed; make both durable.

        Only of one that was not begun as replacing. A file that is there already stays, and has to
        end with what this one has after ``start``.

        Raises
        ------
        OtherBytes
            It has not.
        """
        assert not self._is_replacing  # noqa: S101 - what it replaces could be lost
        directory, _, name = key.rpartition("/")
        try:
            if not self._is_synced:
                self.begin_flush()
            # Before anybody can find it, see `_keep_anew`.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            link = partial(self.link, name=name)
            is_linked = _in_directory(self._directories, directory, link)
            parent = self._directories.hold(directory)
            if is_linked and not self._is_synced:
                self._sync_named(parent, name)
            else:
                os.fsync(parent)
        except OSError as error:
            raise _as_ours(error) from error
        finally:
            self.abort()

    def _sync_named(self, parent: int, name: str) -> None:
        try:
            self._sync_with(parent)
        except BaseException:
            # Who has found it waits for the lock, then finds it gone, and keeps his own.
            with suppress(OSError):
                if _has_name(self._descriptor, parent, name):
                    os.unlink(name, dir_fd=parent)
            raise

    def _sync_with(self, parent: int) -> None:
        """Make the bytes durable and what an open directory has, at once where that can be."""
        end_sync = self._ring.begin_sync(parent)
        try:
            self._sync_bytes()
        finally:
            end_sync()

    def _sync_bytes(self) -> None:
        self.end_flush()
        os.fsync(self._descriptor)

    def sync(self) -> None:
        """Make the bytes durable; nothing more can be written."""
        self.begin_flush()
        try:
            self._sync_bytes()
        except OSError as error:
            raise _as_ours(error) from error
        self._is_synced = True
        self.give_back()

    def link(self, parent: int, name: str) -> bool:
        """Give the bytes a name in an open directory; return whether they have it.

        If not, another file has it, which stays, and whose bytes are durable. One that was begun as
        replacing takes its place.
        """
        if self._is_replacing and self._name is not None:
            self._replace(parent, name)
            return True
        # Without the descriptor of a directory Python would link the symbolic link itself.
        try:
            os.link(self._readable, name, dst_dir_fd=parent, follow_symlinks=True)
        except FileExistsError:
            if _has_name(self._descriptor, parent, name):
                return True  # by an earlier try, over NFS, whose answer was lost
            self.was_there = True
            if self._is_replacing:
                self._replace(parent, name)
            else:
                # They are compared as the files have them.
                self.end_flush()
                _keep_anew(parent, name, self._descriptor, self.size_bytes)
                return False
        return True

    def _replace(self, parent: int, name: str) -> None:
        if self._name is None:
            self._name = _link_locked(self._incoming, self._descriptor)
        os.rename(self._name, name, dst_dir_fd=parent)
        self._name = None

    def abort(self) -> None:
        """Leave nothing but what was published."""
        if self._name is not None:
            with suppress(FileNotFoundError):
                Path(self._name).unlink()
            self._name = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.give_back()


def publish_together(directories: Directories, files: Mapping[str, UnfinishedFile]) -> None:
    """Make the names of files durable whose bytes are; a directory that they share is synced once.

    What went before stays published where it fails.
    """
    by_directory: dict[str, dict[str, UnfinishedFile]] = {}
    for key, file in files.items():
        directory, _, name = key.rpartition("/")
        by_directory.setdefault(directory, {})[name] = file
    try:
        for directory, named in by_directory.items():
            _in_directory(directories, directory, partial(_link_all, named))
    except OSError as error:
        raise _as_ours(error) from error


def _link_all(files: Mapping[str, UnfinishedFile], parent: int) -> None:
    for name, file in files.items():
        file.link(parent, name)
    os.fsync(parent)


def _in_directory(
    directories: Directories, directory: str, act: Callable[[int], _Result]
) -> _Result:
    """Do something in an open directory, which is made where it is missing."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return act(directories.hold(directory))
        except OSError as error:
            directories.forget(directory)
            if error.errno not in _REMOVED:
                raise
            # The directory was empty, and removed before anything was in it; or the file went.
    return act(directories.hold(directory))


def _keep_anew(parent: int, name: str, again: int, tail_bytes: int) -> None:
    """Have a file that is there already count as kept just now; its bytes are durable then.

    Raises `FileNotFoundError` where somebody has just moved or removed it, and `OtherBytes` where
    its last ``tail_bytes`` are not those of ``again``.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _require_name(descriptor, parent, name)
        _make_durable(descriptor)
        if not _end_alike(again, descriptor, tail_bytes):
            raise OtherBytes
        os.utime(descriptor)
        # Who removes it from now on sees that it is kept anew; who has before took the name.
        _require_name(descriptor, parent, name)
    finally:
        os.close(descriptor)


def make_durable(file: BinaryIO, *, waits: bool) -> None:
    """Make a file durable that has a name, and its name, which may be neither.

    Whoever gave it the name may have died first, or still be at it: that is waited for, or not.
    Until the file is closed nobody moves it aside.

    Raises
    ------
    BlockingIOError
        It was not waited for.
    FileNotFoundError
        The name is another file's by now, or nobody's.
    """
    fcntl.flock(file, fcntl.LOCK_SH | (0 if waits else fcntl.LOCK_NB))
    path = Path(file.name)
    parent = open_directory(str(path.parent))
    try:
        _require_name(file.fileno(), parent, path.name)
        _make_durable(file.fileno())
        os.fsync(parent)
    finally:
        os.close(parent)


def _make_durable(descriptor: int) -> None:
    """Make the bytes durable of a file that others have written, and have it read as it is then."""
    os.fsync(descriptor)
    # Of an error that its writer was told of, fsync tells nobody else; the page cache may not know.
    with suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _require_name(descriptor: int, parent: int, name: str) -> None:
    if not _has_name(descriptor, parent, name):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _has_name(descriptor: int, parent: int, name: str) -> bool:
    return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=parent))


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
    parent = open_directory(folder)
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
