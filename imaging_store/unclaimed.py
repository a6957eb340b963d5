"""Files of a store that nobody claims: what a killed process had kept and not entered.

Those that cannot be entered are moved aside first and removed much later: a person can still send
them again from there.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath

from imaging_store.removal import leave, remove

_ASIDE = "unclaimed"
_INSTANCES = "instances"
_SWEPT = (_INSTANCES, "quarantine")
"""Artifacts and results are never looked at."""


def kept_before(root: Path, moment: datetime) -> Iterator[str]:
    """Give the keys of received instances and of the quarantine that were kept before."""
    for folder in _SWEPT:
        yield from _older(root, root / folder, moment)


def _older(root: Path, folder: Path, moment: datetime) -> Iterator[str]:
    for path, _, names in os.walk(folder):
        for name in names:
            file = Path(path, name)
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < moment.timestamp():
                    yield str(file.relative_to(root))


def kept_between(root: Path, since: datetime, before: datetime) -> Iterator[str]:
    """Give the keys of received instances that were kept in this time.

    Only those folders of studies are read that were changed since: a file that gets its name
    changes its folder. One that had its name before, and was kept anew, may be left out.
    """
    first, end = since.timestamp(), before.timestamp()
    for shard in _entries(root / _INSTANCES):
        for study in _entries(shard):
            if _modified_at(study) < first:
                continue
            for file in _entries(study):
                if first <= _modified_at(file) < end:
                    yield f"{_INSTANCES}/{shard.name}/{study.name}/{file.name}"


def _entries(folder: Path | os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
    """Give what is in a folder, if it is one, and is there."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from entries


def _modified_at(entry: os.DirEntry[str]) -> float:
    """Return when it was, or that it was never if it is not there any more."""
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return float("-inf")


def move_aside(
    root: Path, key: str, moment: datetime, is_claimed: Callable[[str], bool], now: datetime
) -> bool:
    """Move a file aside that was kept before and that nobody claims; return whether it was.

    Whoever keeps the same bytes just now waits for that, and then keeps them anew; or has been
    there before, which the file's time tells.
    """
    with suppress(FileNotFoundError, BlockingIOError):
        descriptor = os.open(root / key, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_mtime >= moment.timestamp() or is_claimed(key):
                return False
            aside = root / _ASIDE
            aside.mkdir(exist_ok=True)
            # From now on it counts how long it has lain there.
            os.utime(descriptor, (now.timestamp(), now.timestamp()))
            (root / key).rename(aside / Path(key).name)
        finally:
            os.close(descriptor)
        # As after a removal, its folder goes with the last file. The key is not ours any more: the
        # same bytes may have been kept under it anew.
        leave(root, PurePosixPath(key).parent)
        return True
    return False


def remove_aside(root: Path, moment: datetime) -> int:
    """Remove what was moved aside before; return how many files that were."""
    keys = list(_older(root, root / _ASIDE, moment))
    return len(keys) - len(remove(root, keys))
