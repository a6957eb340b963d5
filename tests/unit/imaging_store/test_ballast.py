import errno
import os
from pathlib import Path

import pytest

from imaging_store.ballast import Ballast


def test_room_is_held_once_and_given_up_once(tmp_path: Path) -> None:
    ballast = Ballast.of(tmp_path, 1024 * 1024)

    ballast.hold()
    ballast.hold()

    assert ballast.path.stat().st_blocks * 512 >= ballast.size_bytes == 256 * 1024
    assert ballast.drop()
    assert not ballast.drop()
    assert list(tmp_path.iterdir()) == []


def test_of_a_large_reserve_it_is_a_small_part(tmp_path: Path) -> None:
    assert Ballast.of(tmp_path, 2**40).size_bytes == 16 * 1024 * 1024


def test_without_a_reserve_nothing_is_held(tmp_path: Path) -> None:
    Ballast.of(tmp_path, 0).hold()

    assert list(tmp_path.iterdir()) == []


def test_room_that_cannot_be_had_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "posix_fallocate", fail)

    Ballast.of(tmp_path, 1024 * 1024).hold()

    assert list(tmp_path.iterdir()) == []
