"""Removing files from a store of files: durably, and never one that was just put back.

Whoever removes holds the lock of the store alone while it asks what is to be removed and removes
it; whoever puts back what was purged holds it with others like itself, while it sees that the file
is there, and durable, and says so. Who only adds needs it not: that a file was kept since it was
marked is seen by its ctime, which is set where it gets its name and where it is kept anew.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_LOCK = ".removal.lock"
_SHARDS_DEPTH = 2
"""``instances/ab`` and what is above it is made once and stays."""
_CLOCKS_DIFFER = timedelta(hours=1)
"""By no more, between this machine and who keeps the files; a later ctime is none."""


class Left(NamedTuple):
    """What was not removed."""

    failed: dict[str, OSError]
    """What could not be, and why."""
    kept_anew: list[str]


@contextmanager
def removing(root: Path) -> Iterator[None]:
    """Be the only one who removes, with nobody putting back."""
    with _locked(root, fcntl.LOCK_EX):
        yield


@contextmanager
def putting_back(root: Path) -> Iterator[None]:
    """Have nothing removed."""
    with _locked(root, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(root: Path, how: int) -> Iterator[None]:
    descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def remove(root: Path, keys: Iterable[str]) -> dict[str, OSError]:
    """Remove files and the folders that become empty; return what could not be, and why.

    When this returns they stay removed. What is not there is as good as removed. A folder that
    somebody is just adding to is not empty, or is made again by whoever adds.
    """
    return _remove(root, keys, lambda *_: False).failed


def remove_marked(root: Path, marked: Mapping[str, datetime], now: datetime) -> Left:
    """Remove files as `remove` does, unless they were kept after they had been marked.

    ``marked`` says when, by key.
    """
    return _remove(root, marked, lambda key, status: _is_kept_after(status, marked[key], now))


def is_kept_after(root: Path, key: str, moment: datetime, now: datetime) -> bool:
    """Return whether a file is there that was kept, or kept anew, after a moment."""
    try:
        status = (root / key).lstat()
    except FileNotFoundError:
        return False
    return _is_kept_after(status, moment, now)


def _is_kept_after(status: os.stat_result, moment: datetime, now: datetime) -> bool:
    return moment.timestamp() < status.st_ctime < (now + _CLOCKS_DIFFER).timestamp()


def _remove(root: Path, keys: Iterable[str], stays: Callable[[str, os.stat_result], bool]) -> Left:
    folders: dict[PurePosixPath, None] = {}
    left = Left({}, [])
    for key in keys:
        path = root / key
        try:
            if stays(key, path.lstat()):
                left.kept_anew.append(key)
                continue
            path.unlink()
        except FileNotFoundError:
            # Whoever keeps it from now on keeps it anew.
            pass
        except OSError as error:
            left.failed[key] = error
            continue
        folders[PurePosixPath(key).parent] = None
    for folder in folders:
        leave(root, folder)
    return left


def leave(root: Path, folder: PurePosixPath) -> None:
    """Make what was taken out of ``folder`` durable, or remove the folder too."""
    if len(folder.parts) > _SHARDS_DEPTH:
        try:
            (root / folder).rmdir()
        except OSError:
            pass  # it is not empty, or not there
        else:
            _sync(root / folder.parent)
            return
    with suppress(FileNotFoundError):
        _sync(root / folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
