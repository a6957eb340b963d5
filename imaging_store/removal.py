"""Removing files from a store of files: durably, and never one that was just put back.

Whoever removes holds the lock of the store alone while it asks what is to be removed and removes
it; whoever puts back what was purged holds it with others like itself, while it looks whether the
file is there and says that it is. Who only adds needs no lock.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

_LOCK = ".removal.lock"
_SHARDS_DEPTH = 2
"""``instances/ab`` and what is above it is made once and stays."""


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
    folders: dict[PurePosixPath, None] = {}
    failed: dict[str, OSError] = {}
    for key in keys:
        try:
            (root / key).unlink(missing_ok=True)
        except OSError as error:
            failed[key] = error
        else:
            folders[PurePosixPath(key).parent] = None
    for folder in folders:
        leave(root, folder)
    return failed


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
