from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier, BrokenBarrierError

import pytest

from admin_api import passwords
from admin_api.passwords import hashed, lock_time, matches


def test_a_password_matches_its_own_digest_only() -> None:
    digest = hashed("correct horse")

    assert matches(digest, "correct horse")
    assert not matches(digest, "correct hors")
    assert not matches(None, "correct horse")
    assert not matches("no digest", "correct horse")


def test_many_passwords_are_not_checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    five = Barrier(5)
    met: list[bool] = []

    class Hasher:
        def verify(self, _digest: str, _password: str) -> bool:
            try:
                five.wait(0.2)
            except BrokenBarrierError:
                return True
            met.append(True)
            return True

    monkeypatch.setattr(passwords, "_HASHER", Hasher())

    with ThreadPoolExecutor(8) as people:
        right = list(people.map(matches, ["digest"] * 8, ["password"] * 8))

    assert right == [True] * 8
    assert not met


def test_the_same_password_has_another_digest_each_time() -> None:
    assert hashed("correct horse") != hashed("correct horse")


def test_the_delay_grows_from_the_fifth_wrong_password_to_a_quarter_of_an_hour() -> None:
    delays = [lock_time(attempts) for attempts in range(40)]

    assert delays[:5] == [None] * 5
    assert delays[5:8] == [timedelta(seconds=seconds) for seconds in (2, 4, 8)]
    assert delays[-1] == timedelta(minutes=15)
    assert delays[5:] == sorted(delays[5:])
