"""What may be let go of, and when; on both databases."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest
from sqlalchemy import text, update

from imaging_store.holdings import Amount, holdings
from imaging_store.instances import FileInstanceStore
from imaging_store.retention import Retention
from imaging_store.schema.ingest import (
    commitment,
    committed_instance,
    conflict,
    duplicate_instance,
    open_association,
    removal,
    study,
)
from imaging_store.schema.results import result_object
from imaging_store.schema.workflow import cases
from message_contracts.case import CaseStatus, DeliveryState
from message_contracts.identifiers import case_id_of
from service_runtime.database import Database
from tests.integration.dicom_listener.kept_studies import MONTH, NOW, KeptStudies, a_purge, days_ago
from tests.peers.processes import wait_until


def commit_to(kept: KeptStudies, uid: str, kept_until: datetime | None) -> None:
    asked = uuid4()
    kept.write(commitment, id=asked, transaction_uid="1.2.3", requested_at=NOW)
    kept.write(committed_instance, commitment_id=asked, sop_instance_uid=uid, kept_until=kept_until)


def test_instances_go_a_month_after_their_case_has_ended(kept: KeptStudies) -> None:
    kept.add("1.1", ended_at=days_ago(31))
    kept.add("1.2", ended_at=days_ago(29))

    gone = a_purge(kept).some()

    assert gone == Amount(2, 10)
    assert kept.purged() == {"1.1.1", "1.1.2"}
    assert [key.split("/")[2] for key in kept.files()] == ["1.2", "1.2"]
    assert {row.study_instance_uid: row.purged_at for row in kept.rows(study)} == {
        "1.1": NOW,
        "1.2": None,
    }
    assert kept.rows(removal) == []
    assert a_purge(kept).some() == Amount(0, 0)


@pytest.mark.parametrize("status", sorted(CaseStatus))
def test_only_what_nobody_has_to_act_on_goes(
    kept_in_sqlite: KeptStudies, status: CaseStatus
) -> None:
    kept_in_sqlite.add("1.1", status=status)

    gone = a_purge(kept_in_sqlite).some()

    ended = {CaseStatus.REPORT_READY, CaseStatus.REJECTED, CaseStatus.NO_MODEL}
    assert gone.instances == (2 if status in ended else 0)


@pytest.mark.parametrize("state", sorted(DeliveryState))
def test_a_report_that_was_not_delivered_keeps_its_instances(
    kept_in_sqlite: KeptStudies, state: DeliveryState
) -> None:
    kept_in_sqlite.add("1.1", delivery=state)

    gone = a_purge(kept_in_sqlite).some()

    served = {DeliveryState.DELIVERED, DeliveryState.REJECTED}
    assert gone.instances == (2 if state in served else 0)


def test_a_case_ends_when_its_last_destination_has_answered(kept: KeptStudies) -> None:
    kept.add("1.1", ended_at=days_ago(29))
    kept.change(cases, cases.c.id == case_id_of("1.1"), changed_at=days_ago(31))

    assert a_purge(kept).some() == Amount(0, 0)


def test_a_case_on_hold_keeps_its_instances(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1", on_hold=True)

    assert a_purge(kept_in_sqlite).some() == Amount(0, 0)


def test_a_version_that_was_not_taken_up_yet_keeps_the_study(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1")
    kept_in_sqlite.change(study, study.c.study_instance_uid == "1.1", version=2)

    assert a_purge(kept_in_sqlite).some() == Amount(0, 0)


def test_what_still_arrives_or_contradicts_keeps_its_study(kept: KeptStudies) -> None:
    for uid in ("1.1", "1.2", "1.3", "1.4"):
        kept.add(uid)
    kept.change(study, study.c.study_instance_uid == "1.1", pending_since=NOW)
    kept.write(
        conflict,
        id=uuid4(),
        study_instance_uid="1.2",
        known={},
        claimed={},
        differing=[],
        opened_at=NOW,
    )
    kept.write(open_association, id="a", study_instance_uid="1.3", since=NOW)

    a_purge(kept).some()

    assert kept.purged() == {"1.4.1", "1.4.2"}


def test_a_case_that_is_opened_by_hand_just_then_keeps_its_instances(
    postgresql_database_url: str, tmp_path: Path
) -> None:
    database = Database(postgresql_database_url)
    kept = KeptStudies(database, FileInstanceStore(tmp_path / "store"))
    kept.add("1.1", status=CaseStatus.NO_MODEL)
    purging_it = Thread(target=a_purge(kept).some)

    with database.transaction() as transaction:
        transaction.connection.execute(update(cases).values(status=CaseStatus.DOCTOR_VERIFIED))
        purging_it.start()
        wait_until(
            lambda: not purging_it.is_alive() or is_waiting(database),
            timeout_s=30,
            what="the purge, which looks at the case",
        )
    purging_it.join()

    assert kept.purged() == set()
    database.close()


def is_waiting(database: Database) -> bool:
    """Whether one connection to this database waits for what another holds."""
    with database.reading() as connection:
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(connection.execute(waiting).scalar())


def test_what_came_again_and_is_to_be_compared_keeps_its_study(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive_duplicate("1.99", "1.1.1", NOW - timedelta(minutes=59), b"other")

    assert a_purge(kept).some() == Amount(0, 0)
    kept.change(duplicate_instance, duplicate_instance.c.sop_instance_uid == "1.1.1", difference="")
    assert a_purge(kept).some().instances == 2


def test_what_nobody_compares_does_not_keep_its_study(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive_duplicate("1.1", "1.1.1", NOW - timedelta(minutes=61), b"other")

    assert a_purge(kept).some().instances == 2


def test_what_we_committed_to_is_kept_until_then(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive_duplicate("1.1", "1.1.1", days_ago(41), b"other")
    commit_to(kept, "1.1.1", NOW + timedelta(seconds=1))
    commit_to(kept, "1.1.2", NOW - timedelta(seconds=1))
    commit_to(kept, "1.1.2", None)

    a_purge(kept).some()

    assert kept.purged() == {"1.1.2"}
    assert len(kept.files()) == 2
    assert kept.rows(study)[0].purged_at is None
    a_purge(kept, now=NOW + timedelta(seconds=1)).some()
    assert kept.files() == []
    assert kept.rows(study)[0].purged_at is not None


def test_what_came_late_is_kept_as_long_as_what_came_first(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive("1.1", "1.1.9", days_ago(3))

    a_purge(kept).some()

    assert kept.purged() == {"1.1.1", "1.1.2"}
    a_purge(kept, now=NOW + timedelta(days=28)).some()
    assert kept.files() == []


def test_duplicates_go_with_the_study_of_the_first(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.receive_duplicate("1.99", "1.1.1", days_ago(41), b"of another study")

    assert a_purge(kept).some().instances == 3

    assert kept.files() == []
    assert kept.rows(duplicate_instance)[0].purged_at == NOW


def test_results_stay(kept: KeptStudies) -> None:
    kept.add("1.1")
    kept.store.put_artifact("results/x/SC.dcm", b"capture")
    kept.write(
        result_object,
        sop_instance_uid="9",
        case_id=case_id_of("1.1"),
        key="results/x/SC.dcm",
        made_at=NOW,
    )

    a_purge(kept).some()

    assert kept.store.read("results/x/SC.dcm") == b"capture"
    assert len(kept.rows(result_object)) == 1


def test_without_a_retention_nothing_ever_goes(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1", ended_at=days_ago(3000))
    purge = a_purge(kept_in_sqlite, Retention(None, watermark_bytes=2**80, reserve_bytes=0))

    assert purge.some() == purge.some_early() == Amount(0, 0)


def test_the_figures_say_what_is_kept_and_what_may_go(kept: KeptStudies) -> None:
    kept.add("1.1", ended_at=days_ago(31))
    kept.add("1.2", ended_at=days_ago(29), count=3)
    kept.add("1.3", ended_at=days_ago(35), status=CaseStatus.AI_ANALYZED)
    kept.receive_duplicate("1.1", "1.1.1", days_ago(32), b"other")
    commit_to(kept, "1.3.1", NOW + timedelta(days=1))

    with kept.database.reading() as connection:
        before = holdings(connection, MONTH, NOW)
    a_purge(kept).some()
    with kept.database.reading() as connection:
        after = holdings(connection, MONTH, NOW)

    assert before.kept == Amount(8, 40)
    assert before.purgeable == Amount(3, 15)
    assert before.oldest_received_at == days_ago(36)
    assert before.next_due_at == days_ago(29) + timedelta(days=30)
    assert before.committed_instances == 1
    assert after.kept == Amount(5, 25)
    assert after.purged == Amount(3, 15)
    assert after.purgeable == Amount(0, 0)
