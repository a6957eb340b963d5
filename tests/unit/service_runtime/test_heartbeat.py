from __future__ import annotations

from datetime import UTC, datetime

from service_runtime.heartbeat import Heartbeat, readiness_of

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def beat(service: str, *, ready: bool, detail: str = "") -> Heartbeat:
    return Heartbeat(service, 1, NOON, NOON, ready, detail)


def test_a_service_is_ready_when_one_of_its_processes_is() -> None:
    beats = [beat("a", ready=False, detail="loading"), beat("a", ready=True)]

    assert readiness_of(beats, ["a"]) == {"a": ""}
    assert readiness_of(reversed(beats), ["a"]) == {"a": ""}


def test_a_service_that_is_not_ready_says_why() -> None:
    beats = [beat("a", ready=False, detail="loading the model"), beat("b", ready=False)]

    assert readiness_of(beats, ["a", "b", "c"]) == {
        "a": "loading the model",
        "b": "starting",
        "c": "not running",
    }
