"""A reading in shadow is recorded for comparison, and nobody hears of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from imaging_store.instances import FileInstanceStore
from imaging_store.schema.results import result_object, shadow_result
from inference_worker.handlers import Worker
from service_runtime.database import Database
from service_runtime.messaging.tables import message
from tests.integration.inference_worker.requests_to_read import a_request, an_instance
from tests.readings import a_model


def shadows_of(database: Database) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(select(shadow_result)))


def test_a_shadow_reading_is_recorded_and_nothing_else(
    worker: Worker,
    database: Database,
    store: FileInstanceStore,
    keep: Callable[..., None],
) -> None:
    dataset = an_instance()
    keep(dataset)
    before = sorted(path for path in store.root.rglob("*") if path.is_file())
    request = a_request(str(dataset.SOPInstanceUID), shadow=True)

    effect = worker.on_inference_requested(request)
    for _ in range(2):
        with database.transaction() as transaction:
            effect(transaction)

    [row] = shadows_of(database)
    assert (row.label, row.uncertain, row.failure) == (a_model().labels[2], False, None)
    assert list(row.probabilities.values()) == pytest.approx([0.2, 0.1, 0.7])
    with database.reading() as connection:
        assert connection.execute(select(result_object)).all() == []
        assert connection.execute(select(message)).all() == []
    assert sorted(path for path in store.root.rglob("*") if path.is_file()) == before


def test_a_shadow_that_fails_tells_nobody(worker: Worker, database: Database) -> None:
    request = a_request(shadow=True)

    for effect in (worker.on_inference_requested(request), worker.on_exhausted(request, "away")):
        with database.transaction() as transaction:
            effect(transaction)

    [row] = shadows_of(database)
    assert row.label is None
    assert row.failure == "The model could not be run: away"
    with database.reading() as connection:
        assert connection.execute(select(message)).all() == []
