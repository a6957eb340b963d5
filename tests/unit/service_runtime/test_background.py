import threading

import pytest
from typing_extensions import override

from service_runtime.background import Background


class Counting(Background):
    def __init__(self, wait_s: float | None = None) -> None:
        super().__init__("counting", wait_s=wait_s)
        self.begun = threading.Event()
        self.ended = False
        self.may_end = threading.Event()

    @override
    def work(self, stopping: threading.Event) -> None:
        self.begun.set()
        stopping.wait()
        self.may_end.wait()
        self.ended = True


def test_the_thread_works_while_the_context_lasts() -> None:
    counting = Counting()
    counting.may_end.set()

    with counting:
        assert counting.begun.wait(30)
        assert not counting.ended

    assert counting.ended


def test_it_is_told_to_stop_by_an_error_too() -> None:
    counting = Counting()
    counting.may_end.set()

    with pytest.raises(KeyError), counting:
        raise KeyError

    assert counting.ended


def test_what_takes_too_long_is_not_waited_for() -> None:
    counting = Counting(wait_s=0)

    with counting:
        pass

    assert not counting.ended
    counting.may_end.set()
