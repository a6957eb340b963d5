from __future__ import annotations

from service_runtime.messaging.lanes import Lanes, Received


def a_message(queue: str, tag: int, delivery_count: int = 0) -> Received:
    return Received(
        queue=queue,
        message_id="",
        routing_key="",
        body=b"",
        attempt=0,
        delivery_count=delivery_count,
        death=None,
        tag=tag,
        channel=None,
    )


def lanes_with(*messages: Received) -> Lanes:
    lanes = Lanes()
    lanes.order(["urgent", "routine"])
    for each in messages:
        lanes.put(each.queue, each)
    return lanes


def tags(lanes: Lanes) -> list[int]:
    taken = iter(lambda: lanes.take(0), None)
    return [each.tag for each in taken]


def test_an_urgent_message_overtakes() -> None:
    lanes = lanes_with(a_message("routine", 1), a_message("routine", 2), a_message("urgent", 3))

    assert tags(lanes) == [3, 1, 2]


def test_what_comes_again_goes_before_what_is_new_in_its_lane() -> None:
    lanes = lanes_with(
        a_message("routine", 1), a_message("routine", 2, delivery_count=1), a_message("urgent", 3)
    )

    assert tags(lanes) == [3, 2, 1]


def test_what_is_forgotten_is_not_taken() -> None:
    lanes = lanes_with(a_message("urgent", 1))

    lanes.clear()

    assert lanes.take(0) is None
