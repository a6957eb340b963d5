from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from imaging_store.schema.results import model, refused_model
from inference_worker.model_folder import ModelFolder, RefusedFolder
from inference_worker.registration import note_loading, register, replace_missing
from message_contracts.inference import ModelReference
from message_contracts.model_description import ModelDescription
from service_runtime.database import Database
from tests.readings import WEIGHTS_SHA256, a_model

NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
SHAPES = ModelReference(name="shapes", version="1.2.3")


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    opened = Database(request.getfixturevalue(request.param))
    yield opened
    opened.close()


def a_folder(path: str = "shapes", weights_sha256: str = WEIGHTS_SHA256, **of: Any) -> ModelFolder:
    described = a_model(weights_sha256=weights_sha256, **of)
    return ModelFolder(described, Path(path), Path(path) / "shapes.keras", weights_sha256)


def rows(database: Database) -> dict[str, Any]:
    with database.reading() as connection:
        return {row.version: row for row in connection.execute(select(model))}


def test_a_model_is_registered_with_all_that_it_says(database: Database) -> None:
    registered = register(database, [a_folder()], [], NOON)

    [row] = rows(database).values()
    assert [folder.path.name for folder in registered.folders] == ["shapes"]
    assert (row.name, row.version, row.device_uid) == ("shapes", "1.2.3", "2.25.271828")
    assert row.weights_sha256 == WEIGHTS_SHA256
    assert ModelDescription.model_validate(row.description) == a_model()
    assert row.retired_at is None


def test_registering_again_changes_nothing(database: Database) -> None:
    register(database, [a_folder()], [], NOON)
    before = rows(database)

    register(database, [a_folder()], [], NOON + timedelta(days=1))

    assert rows(database) == before


def test_of_a_new_name_the_newest_version_is_asked(database: Database) -> None:
    newest = a_folder(version="1.10.0", device_uid="2.25.2")

    register(database, [newest, a_folder()], [], NOON)

    assert rows(database)["1.10.0"].retired_at is None
    assert rows(database)["1.2.3"].retired_at == NOON


def test_a_version_that_comes_later_waits_for_a_decision(database: Database) -> None:
    register(database, [a_folder()], [], NOON)

    register(database, [a_folder(), a_folder(version="1.3.0", device_uid="2.25.2")], [], NOON)

    assert rows(database)["1.2.3"].retired_at is None
    assert rows(database)["1.3.0"].retired_at == NOON


def test_where_the_weights_of_what_is_asked_are_nowhere_another_takes_its_place(
    database: Database,
) -> None:
    later = a_folder(version="1.3.0", device_uid="2.25.2", weights_sha256="3" * 64)
    register(database, [a_folder()], [], NOON)
    register(database, [later], [], NOON)

    replace_missing(database, [later], lambda _: True, NOON)
    assert rows(database)["1.2.3"].retired_at is None

    replace_missing(database, [later], lambda sha256: sha256 == "3" * 64, NOON)
    assert rows(database)["1.2.3"].retired_at == NOON
    assert rows(database)["1.3.0"].retired_at is None


def refused(database: Database) -> list[tuple[str, str | None, str]]:
    with database.reading() as connection:
        found = connection.execute(select(refused_model).order_by(refused_model.c.folder))
        return [(row.folder, row.model_version, row.reason) for row in found]


def test_what_is_refused_is_noted_until_it_is_repaired(database: Database) -> None:
    broken = RefusedFolder(Path("shapes"), "shapes: weights: missing", ("shapes", "1.2.3"))

    register(database, [], [broken, RefusedFolder(Path("odd"), "odd: not YAML")], NOON)

    assert refused(database) == [
        ("odd", None, "odd: not YAML"),
        ("shapes", "1.2.3", "shapes: weights: missing"),
    ]

    register(database, [a_folder()], [], NOON)

    assert [folder for folder, _, _ in refused(database)] == ["odd"]


def test_what_could_not_be_loaded_is_noted_until_it_could(database: Database) -> None:
    unloadable = RefusedFolder(Path("shapes"), "shapes: grad_cam_layer: x", ("shapes", "1.2.3"))

    register(database, [a_folder()], [], NOON)
    note_loading(database, SHAPES, unloadable, "shapes", NOON)
    note_loading(database, SHAPES, unloadable, "shapes", NOON)
    assert rows(database)["1.2.3"].loaded_at is None
    assert refused(database) == [("shapes", "1.2.3", "shapes: grad_cam_layer: x")]

    note_loading(database, SHAPES, None, "shapes", NOON)
    assert refused(database) == []
    assert rows(database)["1.2.3"].loaded_at == NOON


def test_other_weights_in_another_folder_stand_in_the_way_of_no_version(
    database: Database,
) -> None:
    register(database, [a_folder()], [], NOON)

    register(database, [a_folder("retrained", weights_sha256="0" * 64)], [], NOON)

    [(folder, version, _)] = refused(database)
    assert (folder, version) == ("retrained", None)


def test_what_was_wrong_with_another_folder_does_not_outlast_its_version(
    database: Database,
) -> None:
    broken = RefusedFolder(Path("old"), "old: weights: missing", ("shapes", "1.2.3"))
    register(database, [], [broken], NOON)

    register(database, [a_folder()], [], NOON)
    assert refused(database) == [("old", None, "old: weights: missing")]

    register(database, [], [broken], NOON)
    note_loading(database, SHAPES, None, "shapes-1.2.3", NOON)
    assert refused(database) == [("old", None, "old: weights: missing")]


def test_a_model_whose_folder_is_gone_stays_registered(database: Database) -> None:
    register(database, [a_folder()], [], NOON)

    register(database, [], [RefusedFolder(Path("shapes"), "weights: missing")], NOON)

    assert rows(database)["1.2.3"].retired_at is None


def test_other_weights_under_the_same_version_are_set_aside(database: Database) -> None:
    register(database, [a_folder()], [], NOON)

    registered = register(database, [a_folder(weights_sha256="0" * 64)], [], NOON)

    assert registered.folders == ()
    assert "version: 1.2.3 is registered with other weights" in registered.refused[0].reason
    assert rows(database)["1.2.3"].weights_sha256 == WEIGHTS_SHA256


def test_a_device_uid_of_another_model_is_set_aside_and_the_rest_serves(
    database: Database,
) -> None:
    thief = a_folder("forms", name="forms")

    registered = register(database, [a_folder(), thief], [], NOON)

    assert [folder.path.name for folder in registered.folders] == ["shapes"]
    assert "forms: device_uid" in registered.refused[0].reason
    assert len(rows(database)) == 1


def test_what_an_earlier_release_entered_stops_no_worker(database: Database) -> None:
    register(database, [a_folder()], [], NOON)
    with database.transaction() as transaction:
        transaction.connection.execute(update(model).values(description={"name": "shapes"}))

    registered = register(database, [a_folder()], [], NOON)

    assert [folder.path.name for folder in registered.folders] == ["shapes"]
    assert ModelDescription.model_validate(rows(database)["1.2.3"].description) == a_model()


@pytest.mark.parametrize(
    "change", [{"uncertain_below": 0.9}, {"intended_use": "Tests, still."}, {"limits": ("None.",)}]
)
def test_a_version_with_another_description_is_set_aside_by_the_field(
    database: Database, change: dict[str, Any]
) -> None:
    register(database, [a_folder()], [], NOON)

    registered = register(database, [a_folder(**change)], [], NOON)

    [field] = change
    [refused] = registered.refused
    assert refused.reason == (
        f"shapes: {field}: 1.2.3 is registered with another description; raise the version"
    )
    assert ModelDescription.model_validate(rows(database)["1.2.3"].description) == a_model()


def test_a_description_that_an_earlier_release_wrote_down_is_no_other(database: Database) -> None:
    register(database, [a_folder()], [], NOON)
    written = a_model().model_dump(mode="json", exclude_defaults=True)
    with database.transaction() as transaction:
        transaction.connection.execute(update(model).values(description=written))

    registered = register(database, [a_folder()], [], NOON)

    assert not registered.refused
    assert rows(database)["1.2.3"].description == a_model().model_dump(mode="json")
