"""What a power cut has left damaged was answered for to nobody, and is in nobody's way."""

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dicom_listener import recovering
from dicom_listener.recovered import NotRead, Recovered
from dicom_listener.recovering import Recovery
from imaging_store.schema.ingest import instance
from tests.integration.dicom_listener.listener import a_slice
from tests.integration.dicom_listener.reading_room import ReadingRoom
from tests.integration.dicom_listener.test_recovering import keep, recovery

_MINUTE = timedelta(minutes=1)
_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "within the file meta": lambda whole: whole[:140],
    "within the header": lambda whole: whole[:400],
    "one byte short": lambda whole: whole[:-1],
    "a byte changed": lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
    "pages of zeros": lambda whole: bytes(len(whole)),
    "more than there was": lambda whole: whole + b"0",
}


@pytest.fixture(autouse=True)
def none_is_living(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for none."""
    monkeypatch.setattr(recovering, "_SETTLING_S", 0)


def damage(path: Path, how: Callable[[bytes], bytes]) -> None:
    path.write_bytes(how(path.read_bytes()))


def recovery_after(room: ReadingRoom, passed: timedelta = timedelta()) -> Recovery:
    """Return a recovery some time after what the files say."""
    return recovery(room, lambda: datetime.now(UTC) + passed)


@pytest.mark.parametrize("passed", [_MINUTE, -10 * _MINUTE], ids=["later", "the clock is behind"])
@pytest.mark.parametrize("how", _DAMAGES.values(), ids=_DAMAGES)
def test_what_is_damaged_is_moved_aside_and_can_be_sent_again(
    room_in_sqlite: ReadingRoom, how: Callable[[bytes], bytes], passed: timedelta
) -> None:
    room = room_in_sqlite
    name = "Recognizable^Patient"
    bad, good = a_slice(PatientName=name), a_slice()
    [bad_key] = keep(room, bad)
    keep(room, good)
    damage(room.store.path(bad_key), how)

    with capture_logs() as logged:
        assert recovery_after(room, passed).run_lately() == 1

    assert room.row(instance).sop_instance_uid == good.SOPInstanceUID
    assert [each["key"] for each in logged if each["event"] == "instance.damaged"] == [bad_key]
    assert name not in str(logged)
    assert not room.store.exists(bad_key)
    assert (room.store.root / "unclaimed" / Path(bad_key).name).exists()

    assert room.arrive(bad) == [0]
    assert room.row(instance, sop_instance_uid=bad.SOPInstanceUID).key == bad_key


def test_what_is_still_being_copied_to_its_place_is_left_until_the_next_time(
    room: ReadingRoom,
) -> None:
    [key] = keep(room, a_slice())
    path = room.store.path(key)
    whole = path.read_bytes()
    damage(path, lambda whole: whole[:-1000])

    with pytest.raises(NotRead):
        recovery_after(room).run_lately()
    path.write_bytes(whole)

    assert recovery_after(room).run_lately() == 1


def test_one_that_cannot_be_moved_keeps_no_other(
    room_in_sqlite: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = room_in_sqlite
    monkeypatch.setattr(recovering, "_GROUP", 1)
    keys = keep(room, *(a_slice() for _ in range(3)))
    for key in keys[:2]:
        damage(room.store.path(key), lambda whole: whole[:-1])
    moves = recovering.move_damaged_aside

    def moved(root: Path, key: str, *others: Any) -> bool:
        if key == keys[0]:
            raise PermissionError(errno.EACCES, "not ours")
        return moves(root, key, *others)

    monkeypatch.setattr(recovering, "move_damaged_aside", moved)
    with pytest.raises(NotRead):
        recovery_after(room, _MINUTE).run_lately()

    assert room.row(instance).key == keys[2]
    assert [room.store.exists(key) for key in keys] == [True, False, True]


def test_what_has_changed_since_it_was_seen_damaged_stays(
    room: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    [key] = keep(room, a_slice())
    path = room.store.path(key)
    whole, status = path.read_bytes(), path.stat()
    damage(path, lambda whole: whole[:-1000])
    enter = Recovery.enter

    def copied_meanwhile(recovery: Recovery, keys: Sequence[str]) -> Recovered:
        recovered = enter(recovery, keys)
        path.write_bytes(whole)
        # As `cp -p` does at its end.
        os.utime(path, (status.st_atime, status.st_mtime))
        return recovered

    with monkeypatch.context() as patches:
        patches.setattr(Recovery, "enter", copied_meanwhile)
        with pytest.raises(NotRead):
            recovery_after(room, _MINUTE).run_lately()

    assert recovery_after(room).run_lately() == 1


def test_what_its_writer_is_making_durable_is_left_until_the_next_time(room: ReadingRoom) -> None:
    [key] = keep(room, a_slice())

    with room.store.open(key) as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with pytest.raises(NotRead):
            recovery_after(room).run_lately()
    assert room.rows(instance) == []

    assert recovery_after(room).run_lately() == 1


def test_what_is_entered_was_made_durable_before(
    room: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    [key] = keep(room, a_slice())
    path = room.store.path(key)
    synced: dict[int, int] = {}
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced[os.fstat(descriptor).st_ino] = len(room.rows(instance))

    monkeypatch.setattr(os, "fsync", noted)

    assert recovery_after(room).run_lately() == 1

    assert (synced[path.stat().st_ino], synced[path.parent.stat().st_ino]) == (0, 0)
