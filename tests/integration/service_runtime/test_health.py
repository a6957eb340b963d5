from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from message_contracts import topology
from service_runtime.database import Database
from service_runtime.health import Check, HealthServer, database_check
from tests.integration.service_runtime.journeys import send_all, study_opened


@pytest.fixture
def checks() -> dict[str, Check]:
    return {}


@pytest.fixture
def client(sqlite_url: str, checks: dict[str, Check]) -> Iterator[httpx.Client]:
    database = Database(sqlite_url)
    send_all(database, study_opened())
    checks["database"] = database_check(database)
    server = HealthServer("127.0.0.1", 0, checks, database)
    server.start()
    address = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=address, trust_env=False) as opened:
        yield opened
    server.close()
    database.close()


def test_a_process_that_answers_is_live(client: httpx.Client) -> None:
    assert client.get("/health/live").status_code == 200


def test_it_is_ready_when_every_check_is_well(client: httpx.Client) -> None:
    answer = client.get("/health/ready")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"database": "ok"}}


def test_a_check_says_what_is_wrong_and_one_that_raises_quotes_nothing(
    client: httpx.Client, checks: dict[str, Check]
) -> None:
    def broken() -> str:
        raise KeyError("DOE^JANE")

    checks["model"] = lambda: "weights: missing"
    checks["broken"] = broken

    answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json()["checks"]["model"] == "weights: missing"
    assert answer.json()["checks"]["broken"].startswith("KeyError at ")
    assert "DOE" not in answer.text


def test_metrics_tell_what_waits_and_that_nothing_is_dead(client: httpx.Client) -> None:
    text = client.get("/metrics").text

    assert f'countersign_deliveries_waiting{{queue="{topology.WORKFLOW}"}} 1.0' in text
    assert f'countersign_dead_letters{{queue="{topology.REPORT}"}} 0.0' in text


def test_any_other_path_is_not_found(client: httpx.Client) -> None:
    assert client.get("/").status_code == 404
