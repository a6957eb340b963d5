"""Files of a store that nobody claims: what a killed process had kept and not entered.

One may be damaged: a power cut can leave its name without all of its bytes, see
`imaging_store.durable_files`. Those that cannot be entered are moved aside first and removed much
later: a person can still send them again from there.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath

from imaging_store.removal import leave, remove

_ASIDE = "unclaimed"
_INSTANCES = "instances"
_SWEPT = (_INSTANCES, "quarantine")
"""Artifacts and results are never looked at."""
_AT_REST_S = 10.0
"""Whoever is still copying a file to its place has written to it within this."""

OnError = Callable[[OSError], None]
"""Is told why something could not be looked at, but for what is not there; it is passed over."""
IsClaimed = Callable[[str], bool]
"""Whether somebody claims the file of a key."""


def kept_before(root: Path, moment: datetime, on_error: OnError) -> Iterator[str]:
    """Give the keys of received instances and of the quarantine that were kept before."""
    for folder in _SWEPT:
        yield from _older(root, root / folder, moment, on_error)


def _older(root: Path, folder: Path, moment: datetime, on_error: OnError) -> Iterator[str]:
    for path, _, names in os.walk(folder, onerror=partial(_tell, on_error)):
        for name in names:
            file = Path(path, name)
            try:
                modified_at = file.stat().st_mtime
            except OSError as error:
                _tell(on_error, error)
                continue
            if modified_at < moment.timestamp():
                yield str(file.relative_to(root))


def kept_since(root: Path, since: datetime, on_error: OnError) -> Iterator[str]:
    """Give the keys of received instances that were kept since, whatever the clock says now.

    After a power cut it may be behind what the files say. Only those folders of studies are read
    that were changed since: a file that gets its name changes its folder. One that had its name
    before, and was kept anew, may be left out.
    """
    first = since.timestamp()
    for shard in _entries(root / _INSTANCES, on_error):
        for study in _entries(shard, on_error):
            if _modified_at(study, on_error) < first:
                continue
            for file in _entries(study, on_error):
                if _modified_at(file, on_error) >= first:
                    yield f"{_INSTANCES}/{shard.name}/{study.name}/{file.name}"


def _entries(folder: Path | os.DirEntry[str], on_error: OnError) -> Iterator[os.DirEntry[str]]:
    """Give what is in a folder, if it is one, and is there."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError as error:
        _tell(on_error, error)
        return
    yield from found


def _modified_at(entry: os.DirEntry[str], on_error: OnError) -> float:
    """Return when it was, or that it was never if it cannot be told."""
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except OSError as error:
        _tell(on_error, error)
        return float("-inf")


def _tell(on_error: OnError, error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        on_error(error)


def move_aside(
    root: Path, key: str, moment: datetime, is_claimed: IsClaimed, now: datetime
) -> bool:
    """Move a file aside that was kept before and that nobody claims; return whether it was.

    Whoever keeps the same bytes just now waits for that, and then keeps them anew; or has been
    there before, which the file's time tells.
    """
    was_before = moment.timestamp()
    return _move_aside(
        root, key, lambda status: status.st_mtime < was_before and not is_claimed(key), now
    )


def move_damaged_aside(
    root: Path, key: str, seen: os.stat_result, is_claimed: IsClaimed, now: datetime
) -> bool:
    """Move a file aside that was seen to be damaged and that nobody claims; return whether it was.

    It stays if it has changed since, and for a moment after it last has: somebody may be copying
    it to its place. After a power cut the clock may be behind that.
    """

    def may_go(status: os.stat_result) -> bool:
        is_as_seen = os.path.samestat(status, seen) and status.st_ctime_ns == seen.st_ctime_ns
        is_at_rest = abs(now.timestamp() - status.st_ctime) > _AT_REST_S
        return is_as_seen and is_at_rest and not is_claimed(key)

    return _move_aside(root, key, may_go, now)


def _move_aside(
    root: Path, key: str, may_go: Callable[[os.stat_result], bool], now: datetime
) -> bool:
    with suppress(FileNotFoundError, BlockingIOError):
        descriptor = os.open(root / key, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            # Last, since to ask who claims it takes a moment.
            if not (may_go(status) and os.path.samestat(status, (root / key).stat())):
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
    # What cannot be looked at is, the next time.
    keys = list(_older(root, root / _ASIDE, moment, lambda _: None))
    return len(keys) - len(remove(root, keys))
