from __future__ import annotations

import os

import pytest

from service_runtime.process_identity import token_of


def test_a_process_is_known_by_number_and_start_time() -> None:
    number, start = token_of().split("-")

    assert int(number) == os.getpid()
    assert int(start) > 0
    assert token_of(os.getpid()) == token_of()


def test_a_process_that_is_gone_has_no_token() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

    with pytest.raises(ProcessLookupError):
        token_of(child)
