"""A listener lets go of what may go, and keeps again what comes again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from pydicom.uid import generate_uid

from imaging_store.schema.ingest import instance, study
from imaging_store.schema.workflow import cases
from message_contracts.identifiers import case_id_of
from tests.integration.dicom_listener.listener import Listener, a_slice, send, sendable
from tests.peers.processes import wait_until

A_TENTH_OF_A_SECOND = 1e-6


def end_case(listener: Listener, study_instance_uid: str) -> None:
    """Reject the case of a study, as its doctor would."""
    wait_until(lambda: listener.rows(study)[0].version == 1, what="version 1")
    now = datetime.now(UTC)
    listener.execute(
        cases.insert(),
        {
            "id": case_id_of(study_instance_uid),
            "study_instance_uid": study_instance_uid,
            "status": "REJECTED",
            "version": 1,
            "revision": 1,
            "on_hold": False,
            "opened_at": now,
            "changed_at": now,
        },
    )


def files(listener: Listener) -> list[str]:
    return [path.name for path in listener.store.root.glob("instances/**/*.dcm")]


def test_a_study_goes_when_its_time_has_come_and_is_kept_when_it_comes_again(
    start_listener: Callable[..., Listener],
) -> None:
    uid = generate_uid()
    sent = [sendable(a_slice(StudyInstanceUID=uid)) for _ in range(3)]
    listener = start_listener()
    assert send(listener.port, sent) == [0, 0, 0]
    end_case(listener, uid)
    listener.process.stop()

    letting_go = start_listener(retention_days=A_TENTH_OF_A_SECOND)
    wait_until(lambda: not files(letting_go), what="the purge")
    assert all(row.purged_at for row in letting_go.rows(instance))
    assert letting_go.rows(study)[0].purged_at
    letting_go.process.stop()

    keeping = start_listener(retention_days=30)
    assert send(keeping.port, sent) == [0, 0, 0]

    assert len(files(keeping)) == 3
    assert {row.purged_at for row in keeping.rows(instance)} == {None}
    for row in keeping.rows(instance):
        kept = keeping.store.read(row.key)
        assert any(kept.endswith(each.data) for each in sent)
