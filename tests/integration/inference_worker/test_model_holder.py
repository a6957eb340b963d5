"""A worker's models follow the registry while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert, update

from imaging_store.model_registry import ModelDecision, RegisteredModel
from imaging_store.schema.administration import model_decision
from imaging_store.schema.results import model
from inference_worker.model_folder import InvalidModelFolder
from inference_worker.model_holder import Models, ModelUnavailable, StillLoading
from inference_worker.results import LoadedModel
from message_contracts.inference import ModelReference
from service_runtime.database import Database, DatabaseUnavailable
from tests.peers.processes import wait_until
from tests.readings import WEIGHTS_SHA256, a_model

NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
FIRST, SECOND, THIRD = (
    ModelReference(name="shapes", version=version) for version in ("1.0.0", "1.1.0", "1.2.0")
)


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    opened = Database(request.getfixturevalue(request.param))
    yield opened
    opened.close()


def add(database: Database, reference: ModelReference, *, asked: bool = False) -> None:
    described = a_model(
        version=reference.version, device_uid=f"2.25.{reference.version.replace('.', '')}"
    )
    with database.transaction() as transaction:
        transaction.connection.execute(
            insert(model),
            {
                "name": reference.name,
                "version": reference.version,
                "device_uid": described.device_uid,
                "weights_sha256": WEIGHTS_SHA256,
                "description": described.model_dump(mode="json"),
                "registered_at": NOON,
                "retired_at": None if asked else NOON,
            },
        )


def decide(database: Database, reference: ModelReference, decision: ModelDecision) -> None:
    with database.transaction() as transaction:
        transaction.connection.execute(
            insert(model_decision),
            {
                "model_name": reference.name,
                "model_version": reference.version,
                "decision": decision.value,
                "decided_at": NOON,
                "decided_by": "an admin",
                "why": "Tests.",
            },
        )


@dataclass
class Bench:
    """Loads without a network, and remembers what happened."""

    database: Database
    broken: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    let_go_on: threading.Event = field(default_factory=threading.Event)
    away: bool = False
    loads: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    told: dict[str, str | None] = field(default_factory=dict)

    def load(self, registered: RegisteredModel) -> LoadedModel:
        version = registered.reference.version
        if self.away:
            raise DatabaseUnavailable("away")
        self.loads.append(version)
        if version in self.hanging:
            assert self.let_go_on.wait(30)
        if version in self.broken:
            raise InvalidModelFolder(f"shapes-{version}: grad_cam_layer: there is none")
        described = a_model(version=version)
        loaded = LoadedModel(described, registered.weights_sha256, lambda _: [])
        return with_close(loaded, lambda: self.closed.append(version))

    def tell(self, registered: RegisteredModel, reason: str | None) -> None:
        self.told[registered.reference.version] = reason

    def models(self) -> Models:
        return Models(self.database, self.load, self.tell)

    def asked_for(self, *references: ModelReference) -> Models:
        """Return models of which messages have asked for these."""
        models = self.models()
        for each in references:
            ask(models, each)
        settle(models)
        return models


def with_close(loaded: LoadedModel, close: Any) -> LoadedModel:
    object.__setattr__(loaded, "close", close)
    return loaded


def ask(models: Models, reference: ModelReference) -> None:
    with pytest.raises(StillLoading):
        models.of(reference)


def settle(models: Models) -> None:
    """Look at the registry, wait for what is loaded, and have it take its place."""
    models.refresh()
    wait_until(lambda: not models._loading, what="nothing is being loaded")
    models.refresh()


@pytest.fixture
def bench(database: Database) -> Bench:
    add(database, FIRST, asked=True)
    add(database, SECOND)
    return Bench(database)


def test_nothing_is_loaded_before_it_is_asked_for(bench: Bench) -> None:
    models = bench.models()

    settle(models)

    assert bench.loads == []
    assert bench.told == {}


def test_of_a_model_that_is_asked_for_the_version_in_shadow_is_held_too(
    bench: Bench, database: Database
) -> None:
    decide(database, SECOND, ModelDecision.SHADOW)
    add(database, THIRD)

    models = bench.asked_for(FIRST)

    assert sorted(bench.loads) == ["1.0.0", "1.1.0"]
    assert models.of(FIRST).description.version == "1.0.0"
    assert models.of(SECOND).description.version == "1.1.0"


def test_nothing_is_loaded_twice(bench: Bench) -> None:
    models = bench.asked_for(FIRST)

    settle(models)

    assert bench.loads == ["1.0.0"]


def test_nothing_is_loaded_twice_while_it_is_being_loaded(bench: Bench) -> None:
    bench.hanging.add("1.0.0")
    models = bench.models()
    ask(models, FIRST)
    models.refresh()
    ask(models, FIRST)
    # So that the registry is looked at again.
    ask(models, SECOND)
    models.refresh()
    bench.let_go_on.set()
    settle(models)

    assert sorted(bench.loads) == ["1.0.0", "1.1.0"]


def test_one_that_hangs_while_it_is_loaded_keeps_no_other_waiting(
    bench: Bench, database: Database
) -> None:
    bench.hanging.add("1.0.0")
    models = bench.models()
    ask(models, FIRST)
    models.refresh()
    ask(models, SECOND)
    models.refresh()

    wait_until(lambda: SECOND in models._loaded, what="the other is loaded")
    assert models.of(SECOND).description.version == "1.1.0"
    ask(models, FIRST)

    bench.let_go_on.set()
    settle(models)
    assert models.of(FIRST)


def test_what_is_loaded_after_the_end_is_let_go_of(bench: Bench) -> None:
    bench.hanging.add("1.0.0")
    models = bench.models()
    ask(models, FIRST)
    models.refresh()

    models.close()
    bench.let_go_on.set()

    wait_until(lambda: bench.closed == ["1.0.0"], what="it is let go of")


def test_a_decision_swaps_while_it_runs(bench: Bench, database: Database) -> None:
    models, stop = bench.asked_for(FIRST), threading.Event()
    thread = threading.Thread(target=models.follow, args=(stop,))
    thread.start()
    try:
        decide(database, SECOND, ModelDecision.ACTIVATE)

        wait_until(lambda: bench.closed == ["1.0.0"], what="the swap")
        assert models.of(SECOND).description.version == "1.1.0"
    finally:
        stop.set()
        thread.join(timeout=30)
    models.close()
    assert bench.closed == ["1.0.0", "1.1.0"]


def test_what_is_asked_for_is_loaded_while_it_runs(bench: Bench) -> None:
    models, stop = bench.models(), threading.Event()
    thread = threading.Thread(target=models.follow, args=(stop,))
    thread.start()

    def of_first() -> LoadedModel | None:
        with suppress(StillLoading):
            return models.of(FIRST)
        return None

    try:
        assert wait_until(of_first, what="the model")
    finally:
        stop.set()
        thread.join(timeout=30)


def test_the_former_version_serves_on_while_the_next_is_loaded(
    bench: Bench, database: Database
) -> None:
    models = bench.asked_for(FIRST)
    bench.hanging.add("1.1.0")
    decide(database, SECOND, ModelDecision.ACTIVATE)

    models.refresh()
    models.refresh()

    assert models.of(FIRST)
    assert bench.closed == []
    bench.let_go_on.set()
    settle(models)
    assert bench.closed == ["1.0.0"]


def test_a_message_for_another_version_has_it_loaded_and_kept(
    bench: Bench, database: Database
) -> None:
    models = bench.asked_for(FIRST)

    with pytest.raises(StillLoading) as postponed:
        models.of(SECOND)
    settle(models)
    add(database, THIRD)

    assert postponed.value.delay_s == pytest.approx(1)
    assert models.of(SECOND).description.version == "1.1.0"
    assert models.of(FIRST).description.version == "1.0.0"
    # The registry changed: whoever still asks for it asks again.
    models.refresh()
    assert bench.closed == ["1.1.0"]


def test_a_loading_that_takes_long_is_asked_after_less_often() -> None:
    assert StillLoading(for_s=2).delay_s == pytest.approx(1)
    assert StillLoading(for_s=600).delay_s == pytest.approx(150)


def test_a_loading_that_cannot_begin_for_want_of_threads_begins_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = bench.models()
    with suppress(StillLoading):
        models.of(FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread_is_left)
        models.refresh()

    models.refresh()
    settle(models)

    assert models.of(FIRST)


def _no_thread_is_left(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_what_was_never_installed_is_a_reason(bench: Bench) -> None:
    models = bench.asked_for(THIRD)

    with pytest.raises(ModelUnavailable, match=r"shapes 1\.2\.0 is not installed on this worker"):
        models.of(THIRD)


def test_a_broken_model_is_refused_by_the_field_and_the_others_serve_on(
    bench: Bench, database: Database
) -> None:
    bench.broken.add("1.0.0")
    decide(database, SECOND, ModelDecision.SHADOW)

    models = bench.asked_for(FIRST)

    with pytest.raises(ModelUnavailable, match=r"cannot be used: shapes-1\.0\.0: grad_cam_layer"):
        models.of(FIRST)
    assert models.of(SECOND)
    wait_until(lambda: len(bench.told) == 2, what="both are told of")
    assert bench.told["1.1.0"] is None
    assert "grad_cam_layer" in (bench.told["1.0.0"] or "")
    # Once it has been repaired, the next change of the registry has it tried again.
    bench.broken.clear()
    add(database, THIRD)
    settle(models)
    assert models.of(FIRST)


def test_what_is_repaired_while_it_is_being_loaded_is_tried_anew(
    bench: Bench, database: Database
) -> None:
    bench.hanging.add("1.0.0")
    bench.broken.add("1.0.0")
    models = bench.models()
    ask(models, FIRST)
    models.refresh()
    add(database, THIRD)
    models.refresh()
    bench.let_go_on.set()
    wait_until(lambda: bench.told, what="it is told of")
    bench.broken.clear()
    settle(models)

    assert models.of(FIRST)
    assert bench.loads == ["1.0.0", "1.0.0"]


def test_the_registry_is_looked_at_again_after_an_error_that_nobody_foresaw(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, stop, looks = bench.models(), threading.Event(), []
    refresh = models.refresh

    def look() -> None:
        looks.append(1)
        if len(looks) == 1:
            raise RuntimeError("nobody foresaw it")
        refresh()

    monkeypatch.setattr(models, "refresh", look)
    models._asked_for.add(FIRST)
    thread = threading.Thread(target=models.follow, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: FIRST in models._loaded, what="the model")
    finally:
        stop.set()
        thread.join(timeout=30)


def test_while_the_store_is_away_what_is_held_serves_on(bench: Bench, database: Database) -> None:
    models = bench.asked_for(FIRST)
    bench.away = True
    decide(database, SECOND, ModelDecision.ACTIVATE)

    settle(models)
    assert models.of(FIRST)

    wait_until(lambda: not models._loading, what="the next try has ended")
    bench.away = False
    settle(models)
    assert models.of(SECOND)


def test_a_default_that_changes_is_followed(bench: Bench, database: Database) -> None:
    models = bench.asked_for(FIRST)
    with database.transaction() as transaction:
        for version, retired_at in (("1.0.0", NOON), ("1.1.0", None)):
            transaction.connection.execute(
                update(model).where(model.c.version == version).values(retired_at=retired_at)
            )

    settle(models)

    assert models.of(SECOND)
    assert bench.closed == ["1.0.0"]
