from __future__ import annotations

import threading

import pytest

from service_runtime.messaging import rabbitmq
from service_runtime.messaging.rabbitmq import RabbitMQ


def test_an_error_that_nobody_foresaw_does_not_end_the_connection_s_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = 0
    tried_again = threading.Event()

    def declare(_parameters: object) -> None:
        nonlocal tries
        tries += 1
        if tries > 1:
            tried_again.set()
        raise AssertionError("a frame that pika does not understand")

    monkeypatch.setattr(rabbitmq, "declare", declare)
    broker = RabbitMQ("amqp://127.0.0.1:1/", "tests")
    broker.start()

    came_back = tried_again.wait(10)
    broker.close()

    assert came_back
