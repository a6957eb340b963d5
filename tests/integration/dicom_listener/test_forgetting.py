"""What is forgotten when it is over, and what never is; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from dicom_listener import forgetting
from dicom_listener.forgetting import forget_settled
from dicom_listener.purging import Purge
from imaging_store.instances import FileInstanceStore
from imaging_store.retention import Retention
from imaging_store.schema.ingest import (
    commitment,
    committed_instance,
    early_conflict,
    performed_procedure_step,
    quarantined_instance,
    step_of_study,
)
from service_runtime.database import Database
from tests.integration.dicom_listener.kept_studies import LONG_AGO, NOW, KeptStudies, days_ago

BEFORE = days_ago(30)
LATELY = days_ago(29)


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptStudies]:
    database = Database(request.getfixturevalue(request.param))
    yield KeptStudies(database, FileInstanceStore(tmp_path / "store"))
    database.close()


def commit_to(kept: KeptStudies, transaction_uid: str, **values: object) -> None:
    asked = uuid4()
    of_instance = {"kept_until": values.pop("kept_until", None)}
    defaults = {"id": asked, "transaction_uid": transaction_uid, "requested_at": LONG_AGO}
    kept.write(commitment, **{**defaults, **values})
    kept.write(committed_instance, commitment_id=asked, sop_instance_uid="1.1.1", **of_instance)


def perform(kept: KeptStudies, uid: str, **values: object) -> None:
    kept.write(
        performed_procedure_step,
        **{"sop_instance_uid": uid, "sop_instance_uids": [], "created_at": LONG_AGO, **values},
    )
    kept.write(step_of_study, study_instance_uid="1.1", step_sop_instance_uid=uid)


def test_what_is_over_is_forgotten_and_what_is_not_stays(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "_AT_ONCE", 1)
    commit_to(kept, "over", kept_until=NOW)
    commit_to(kept, "refused")
    commit_to(kept, "promised", kept_until=NOW + timedelta(seconds=1))
    commit_to(kept, "owed", due_at=NOW)
    commit_to(kept, "late", requested_at=LATELY)
    perform(kept, "ended", ended_at=LONG_AGO)
    perform(kept, "never ended")
    perform(kept, "ended lately", ended_at=LATELY)
    perform(kept, "begun lately", created_at=LATELY)
    for uid, outcome, at in [
        ("0", "released", LONG_AGO),
        ("1", "discarded", LATELY),
        ("2", None, None),
    ]:
        values = {"id": uid, "outcome": outcome, "settled_at": at}
        kept.write(quarantined_instance, received_at=LONG_AGO, **values)

    for uid, at in [("1.7", LONG_AGO), ("1.8", LATELY)]:
        doubt = {"study_instance_uid": "1.9", "sop_instance_uid": uid, "reason": "step"}
        kept.write(early_conflict, noted_at=at, **doubt)

    assert forget_settled(kept.database, BEFORE, NOW) == 6

    assert {row.transaction_uid for row in kept.rows(commitment)} == {"promised", "owed", "late"}
    assert len(kept.rows(committed_instance)) == 3
    steps = {"ended lately", "begun lately"}
    assert {row.sop_instance_uid for row in kept.rows(performed_procedure_step)} == steps
    assert {row.step_sop_instance_uid for row in kept.rows(step_of_study)} == steps
    assert {row.id for row in kept.rows(quarantined_instance)} == {"1", "2"}
    assert {row.sop_instance_uid for row in kept.rows(early_conflict)} == {"1.8"}


@pytest.mark.parametrize(("days", "left"), [(30, 0), (None, 1)])
def test_it_is_forgotten_when_instances_are_let_go_of(
    kept: KeptStudies, days: int | None, left: int
) -> None:
    perform(kept, "ended", ended_at=LONG_AGO)
    retention = Retention(None if days is None else timedelta(days=days), 0, 0)

    Purge(kept.database, kept.store, retention, lambda: NOW).forget()

    assert len(kept.rows(performed_procedure_step)) == left
