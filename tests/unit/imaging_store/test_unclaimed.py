"""Which files were kept since a moment, without looking at all of them."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from imaging_store.instances import FileInstanceStore, instance_key
from imaging_store.unclaimed import kept_before, kept_since

NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def never(error: OSError) -> None:
    raise error


@pytest.fixture
def store(tmp_path: Path) -> FileInstanceStore:
    return FileInstanceStore(tmp_path / "store")


def keep(store: FileInstanceStore, study: str, at: datetime, folder_at: datetime = NOON) -> str:
    """Keep an instance that was written, and whose folder was changed, at these times."""
    uid = f"{study}.{at.timestamp():.0f}"
    with store.open_write() as sink:
        sink.write(uid.encode())
        key = sink.commit(instance_key(study, uid, sink.digest)).key
    path = store.path(key)
    os.utime(path, (at.timestamp(), at.timestamp()))
    os.utime(path.parent, (folder_at.timestamp(), folder_at.timestamp()))
    return key


def test_those_are_found_that_were_kept_since_whatever_the_clock_says(
    store: FileInstanceStore,
) -> None:
    keep(store, "1.1", NOON - 2 * HOUR)
    found = [
        keep(store, "1.1", NOON - HOUR),
        keep(store, "1.1", NOON - HOUR / 2),
        keep(store, "1.2", NOON - HOUR / 2),
        keep(store, "1.2", datetime.now(UTC) + 1000 * HOUR),
    ]
    assert sorted(kept_since(store.root, NOON - HOUR, never)) == sorted(found)


def test_folders_that_were_not_changed_since_are_not_read(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = keep(store, "1.1", NOON, folder_at=NOON - 2 * HOUR)
    new = keep(store, "1.2", NOON, folder_at=NOON - HOUR)
    scandir, read = os.scandir, []

    def remembered(folder: Path | os.DirEntry[str]) -> AbstractContextManager[Any]:
        read.append(os.fspath(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", remembered)

    assert list(kept_since(store.root, NOON - HOUR, never)) == [new]
    assert str(store.path(new).parent) in read
    assert str(store.path(old).parent) not in read


def test_what_goes_meanwhile_and_what_else_lies_there_is_passed_over(
    store: FileInstanceStore,
) -> None:
    assert list(kept_since(store.root, NOON - HOUR, never)) == []
    going = [keep(store, f"1.{number}", NOON) for number in range(4)]
    (store.root / "instances" / "notes").write_text("not a folder")

    found = []
    for key in kept_since(store.root, NOON - HOUR, never):
        found.append(key)
        for each in going:
            store.path(each).unlink(missing_ok=True)
            if store.path(each).parent.exists():
                store.path(each).parent.rmdir()

    assert len(found) == 1


def test_what_cannot_be_looked_at_is_told_of_and_hides_no_other(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = keep(store, "1.1", NOON), keep(store, "1.2", NOON)
    folder = os.fspath(store.path(bad).parent)
    scandir = os.scandir

    def fails(path: str | os.PathLike[str]) -> AbstractContextManager[Any]:
        if os.fspath(path) == folder:
            raise OSError(errno.EIO, "")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fails)
    errors: list[OSError] = []

    assert list(kept_since(store.root, NOON - HOUR, errors.append)) == [good]
    assert list(kept_before(store.root, NOON + HOUR, errors.append)) == [good]
    assert [error.errno for error in errors] == [errno.EIO, errno.EIO]
