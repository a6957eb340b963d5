"""What was marked goes, and what was kept since stays."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imaging_store.removal import is_kept_after, remove, remove_marked

KEY = "instances/ab/1.2/1.2.3-00.dcm"
MOMENT = timedelta(seconds=10)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")
    return path


def kept_at(file: Path) -> datetime:
    return datetime.fromtimestamp(file.stat().st_ctime, UTC)


def test_what_was_kept_before_it_was_marked_goes_with_its_folder(
    tmp_path: Path, file: Path
) -> None:
    marked_at = kept_at(file) + MOMENT

    left = remove_marked(tmp_path, {KEY: marked_at}, marked_at)

    assert left == ({}, [])
    assert not file.parent.exists()
    assert remove_marked(tmp_path, {KEY: marked_at}, marked_at) == ({}, [])


@pytest.mark.parametrize("how", ["named", "kept anew"])
def test_what_was_kept_after_it_was_marked_stays(tmp_path: Path, file: Path, how: str) -> None:
    long_ago = 1e9
    if how == "named":
        os.utime(file, (long_ago, long_ago))
        unnamed = file.rename(tmp_path / "unnamed")
        os.link(unnamed, file)
    else:
        os.utime(file)
    marked_at = kept_at(file) - MOMENT

    left = remove_marked(tmp_path, {KEY: marked_at}, kept_at(file))

    assert left == ({}, [KEY])
    assert file.exists()
    assert is_kept_after(tmp_path, KEY, marked_at, kept_at(file))


def test_a_moment_that_has_not_come_yet_says_nothing(tmp_path: Path, file: Path) -> None:
    at = kept_at(file)
    marked_at = at - timedelta(days=2)

    assert is_kept_after(tmp_path, KEY, marked_at, at - timedelta(minutes=59))
    assert not is_kept_after(tmp_path, KEY, marked_at, at - timedelta(minutes=61))
    assert not is_kept_after(tmp_path, "instances/ab/1.2/gone.dcm", marked_at, at)


@pytest.mark.parametrize("is_marked", [True, False])
def test_what_is_kept_as_soon_as_it_was_not_there_stays(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, *, is_marked: bool
) -> None:
    marked_at = kept_at(file) - MOMENT
    file.unlink()
    lstat = Path.lstat

    def comes_then(path: Path) -> os.stat_result:
        try:
            return lstat(path)
        except FileNotFoundError:
            file.write_bytes(b"1")
            raise

    monkeypatch.setattr(Path, "lstat", comes_then)

    if is_marked:
        remove_marked(tmp_path, {KEY: marked_at}, marked_at)
    else:
        remove(tmp_path, [KEY])

    assert file.exists()
