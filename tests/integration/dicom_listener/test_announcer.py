"""Which studies are announced, and why, whatever else goes on in the database."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from sqlalchemy import insert, select, update

from dicom_listener import announcer as announcing
from dicom_listener import early_conflicts, open_associations
from dicom_listener.announcer import Announcer
from dicom_listener.completion import Limits
from dicom_listener.early_conflicts import Doubt
from dicom_listener.index import OwnIndex
from dicom_listener.normalized import (
    DUPLICATE_SOP_INSTANCE,
    INVALID_SOP_INSTANCE,
    NO_SUCH_SOP_INSTANCE,
    PROCESSING_FAILURE,
    SUCCESS,
    Answer,
    Request,
)
from dicom_listener.peers import Peer
from dicom_listener.performed_procedure_steps import PerformedProcedureSteps
from dicom_listener.procedure_step import SOP_CLASS_UID
from imaging_store.schema.ingest import early_conflict, instance, open_association, study
from message_contracts import catalogue
from message_contracts.ingest import (
    CompletionReason,
    ConflictReason,
    StudyConflicted,
    StudyReceived,
    StudyUpdated,
)
from service_runtime.database import Database
from service_runtime.messaging.tables import message
from tests.sending_order import sending_order

NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)
LIMITS = Limits(association_timeout=timedelta(seconds=300), deadline=timedelta(hours=4))
PEER = Peer("MODALITY", timedelta(seconds=30), "", UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
def announcer(database: Database) -> Announcer:
    return Announcer(database, LIMITS)


def write(database: Database, *statements: Any) -> None:
    with database.transaction() as transaction:
        for statement in statements:
            transaction.connection.execute(statement)


def a_study(uid: str, **values: object) -> Any:
    """Make the row of a study that waits since noon, and until 30 s later."""
    text = {column.name: "" for column in study.c if not column.nullable}
    return insert(study).values(
        text
        | {
            "study_instance_uid": uid,
            "opened_at": NOON,
            "pending_since": NOON,
            "quiet_until": at(30),
            "version": 0,
        }
        | values
    )


def an_instance(uid: str, of: str, **values: object) -> Any:
    text = {column.name: "" for column in instance.c if not column.nullable}
    return insert(instance).values(
        text
        | {
            "sop_instance_uid": uid,
            "study_instance_uid": of,
            "image_type": [],
            "number_of_frames": 1,
            "makes_version": True,
            "urgent": False,
            "study_version": 1,
            "size_bytes": 1,
            "received_at": NOON,
        }
        | values
    )


def an_association(of: str, **values: object) -> Any:
    return insert(open_association).values(
        {
            "id": str(uuid4()),
            "process": "elsewhere:1-1",
            "calling_ae_title": "MODALITY",
            "study_instance_uid": of,
            "since": NOON,
        }
        | values
    )


def said(database: Database, *kinds: type[Any]) -> list[Any]:
    with database.reading() as connection:
        rows = connection.execute(select(message.c.body).order_by(sending_order(database.dialect)))
        bodies = [catalogue.decode(row.body).body for row in rows]
    return [body for body in bodies if type(body) in kinds]


def announced(database: Database) -> list[tuple[str, int, CompletionReason]]:
    return [
        (body.study_instance_uid, body.study_version, body.reason)
        for body in said(database, StudyReceived, StudyUpdated)
    ]


def an_item(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


class Modality:
    """Tells of its procedure steps, without a network between."""

    def __init__(self, database: Database) -> None:
        self._service = PerformedProcedureSteps(database, lambda: NOON)

    def begin(self, step: str, *studies: str) -> Answer:
        scheduled = [an_item(StudyInstanceUID=uid) for uid in studies]
        return self._service.n_create(
            self._request(
                step,
                PerformedProcedureStepStatus="IN PROGRESS",
                ScheduledStepAttributesSequence=Sequence(scheduled),
            )
        )

    def end(self, step: str, status: str, *listed: str, reason: str = "") -> Answer:
        references = [an_item(ReferencedSOPInstanceUID=uid) for uid in listed]
        series = an_item(ReferencedImageSequence=Sequence(references))
        codes = [an_item(CodeValue=reason, CodingSchemeDesignator="DCM")] if reason else []
        return self._service.n_set(
            self._request(
                step,
                PerformedProcedureStepStatus=status,
                PerformedSeriesSequence=Sequence([series]),
                PerformedProcedureStepDiscontinuationReasonCodeSequence=Sequence(codes),
            )
        )

    def _request(self, step: str, **attributes: object) -> Request:
        return Request(PEER, SOP_CLASS_UID, step, an_item(**attributes))


@pytest.fixture
def modality(database: Database) -> Modality:
    return Modality(database)


def test_a_quiet_study_is_announced_and_the_next_is_waited_for(
    database: Database, announcer: Announcer
) -> None:
    write(
        database,
        a_study("1"),
        a_study("2", quiet_until=at(40)),
        an_instance("1.1", "1"),
        an_instance("1.2", "1", excluded_at=NOON),
    )

    assert announcer.look(at(10)) == 20
    assert announced(database) == []
    assert announcer.look(at(30)) == 10
    assert announced(database) == [("1", 1, CompletionReason.QUIET)]
    assert said(database, StudyReceived)[0].instance_count == 1


def test_an_open_association_holds_a_study_until_it_has_gone(
    database: Database, announcer: Announcer
) -> None:
    write(database, a_study("1"), an_association("1"))

    announcer.look(at(200))
    assert announced(database) == []

    write(database, open_association.delete())
    announcer.look(at(201))
    assert announced(database) == [("1", 1, CompletionReason.QUIET)]


def test_an_association_that_has_died_with_its_machine_holds_nothing_for_ever(
    database: Database, announcer: Announcer
) -> None:
    write(database, a_study("1"), an_association("1"))

    announcer.look(at(329))
    assert announced(database) == []
    announcer.look(at(330))
    assert announced(database) == [("1", 1, CompletionReason.QUIET)]


def test_an_association_of_a_process_that_has_died_here_holds_nothing(
    database: Database, announcer: Announcer
) -> None:
    here = open_associations.this_process()
    host = here.rpartition(":")[0]
    write(
        database,
        a_study("1"),
        a_study("2"),
        an_association("1", process=f"{host}:999999999-1"),
        an_association("2", process=here),
    )

    announcer.look(at(31))
    announcer.look(at(32))

    assert announced(database) == [("1", 1, CompletionReason.QUIET)]


def test_an_association_holds_only_what_it_has_sent_to_last(database: Database) -> None:
    association = open_associations.open_for("MODALITY")

    def studies_held_open() -> list[str]:
        with database.reading() as connection:
            column = open_association.c.study_instance_uid
            return list(connection.execute(select(column)).scalars())

    for uid in ("1", "1", "2"):
        with database.transaction() as transaction:
            open_associations.hold_open(transaction, [(association, uid, NOON)])
        assert studies_held_open() == [uid]

    OwnIndex(database).end(association)
    assert studies_held_open() == []


def test_what_a_transaction_did_not_keep_is_entered_again(database: Database) -> None:
    association = open_associations.open_for("MODALITY")

    def hold_open_and_fail() -> None:
        with database.transaction() as transaction:
            open_associations.hold_open(transaction, [(association, "1", NOON)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        hold_open_and_fail()

    assert association.study_instance_uid == ""


def test_a_row_of_which_nobody_heard_that_it_was_kept_is_entered_again(
    database: Database,
) -> None:
    association = open_associations.open_for("MODALITY")

    for _ in range(2):
        association.study_instance_uid = ""
        with database.transaction() as transaction:
            open_associations.hold_open(transaction, [(association, "1", NOON)])

    assert association.study_instance_uid == "1"


def test_the_deadline_ends_a_wait_that_nothing_else_ends(
    database: Database, announcer: Announcer
) -> None:
    write(database, a_study("1", quiet_until=at(4 * 3600 + 20)), an_association("1"))

    assert announcer.look(at(10)) == 60
    announcer.look(at(4 * 3600 - 1))
    assert announced(database) == []
    assert announcer.look(at(4 * 3600 - 1)) == 1
    announcer.look(at(4 * 3600))
    assert announced(database) == [("1", 1, CompletionReason.DEADLINE)]


def test_a_study_is_complete_when_all_that_its_steps_list_has_arrived(
    database: Database, announcer: Announcer, modality: Modality
) -> None:
    modality.begin("step.1", "1")
    modality.begin("step.2", "1")
    write(database, a_study("1"), an_association("1"), an_instance("1.1", "1"))
    modality.end("step.1", "COMPLETED", "1.1", "1.2")
    announcer.look(at(1))
    write(database, an_instance("1.2", "1"))
    announcer.look(at(2))
    assert announced(database) == []

    modality.end("step.2", "COMPLETED", "1.3")
    announcer.look(at(3))
    assert announced(database) == []
    write(database, an_instance("1.3", "1"))
    announcer.look(at(4))

    assert announced(database) == [("1", 1, CompletionReason.MPPS)]


def test_steps_may_end_before_anything_has_arrived(
    database: Database, announcer: Announcer, modality: Modality
) -> None:
    modality.begin("step", "1", "2")
    modality.end("step", "COMPLETED", "1.1")
    announcer.look(at(0))

    write(database, a_study("1"), an_instance("1.1", "1"))
    announcer.look(at(1))

    assert announced(database) == [("1", 1, CompletionReason.MPPS)]


def test_a_late_image_that_no_step_lists_waits_until_it_is_quiet(
    database: Database, announcer: Announcer, modality: Modality
) -> None:
    modality.begin("step", "1")
    modality.end("step", "COMPLETED", "1.1")
    write(database, a_study("1"), an_instance("1.1", "1"))
    announcer.look(at(1))

    write(
        database,
        an_instance("1.2", "1", study_version=2),
        update(study).values(pending_since=at(5), quiet_until=at(35)),
    )
    announcer.look(at(6))
    assert announced(database) == [("1", 1, CompletionReason.MPPS)]
    announcer.look(at(35))

    assert announced(database)[1:] == [("1", 2, CompletionReason.QUIET)]


def test_a_step_that_has_ended_is_not_changed(modality: Modality, database: Database) -> None:
    assert modality.end("step", "COMPLETED").status == NO_SUCH_SOP_INSTANCE
    assert modality.begin("step", "1") == Answer(SUCCESS)
    assert modality.begin("step", "1").status == DUPLICATE_SOP_INSTANCE
    assert modality.end("step", "IN PROGRESS", "1.1") == Answer(SUCCESS)
    assert modality.end("step", "DISCONTINUED", "1.1") == Answer(SUCCESS)

    answer = modality.end("step", "COMPLETED", "1.1")

    assert (answer.status, answer.error_id) == (PROCESSING_FAILURE, 0xA710)
    assert len(answer.comment) <= 64


def test_a_step_that_leaves_its_uid_to_us_is_told_it(modality: Modality) -> None:
    answer = modality.begin("", "1")

    assert answer.status == SUCCESS
    assert modality.end(answer.sop_instance_uid, "COMPLETED").status == SUCCESS


def test_a_step_whose_uid_no_message_could_carry_is_refused(modality: Modality) -> None:
    answer = modality.begin("9 9", "1")

    assert answer.status == INVALID_SOP_INSTANCE
    assert modality.end("9 9", "DISCONTINUED", reason="110514").status == NO_SUCH_SOP_INSTANCE


@pytest.mark.parametrize("comes_first", ["instance", "step"])
def test_a_step_of_the_wrong_worklist_entry_puts_its_study_on_hold_once(
    database: Database, announcer: Announcer, modality: Modality, comes_first: str
) -> None:
    modality.begin("9.9", "1")
    if comes_first == "instance":
        write(database, a_study("1"))
    modality.end("9.9", "DISCONTINUED", reason="110514")
    announcer.look(at(1))
    if comes_first == "step":
        assert said(database, StudyConflicted) == []
        write(database, a_study("1"))
    announcer.look(at(2))
    announcer.look(at(3))

    assert said(database, StudyConflicted) == [
        StudyConflicted(
            study_instance_uid="1",
            sop_instance_uid="9.9",
            reason=ConflictReason.PROCEDURE_DISCONTINUED,
        )
    ]
    with database.reading() as connection:
        assert connection.execute(select(early_conflict)).all() == []


def test_the_same_doubt_is_told_once(database: Database) -> None:
    write(database, a_study("1"))
    doubt = Doubt("1", "9.9", ConflictReason.INSTANCES_REJECTED)

    for _ in range(2):
        with database.transaction() as transaction:
            early_conflicts.tell(transaction, [doubt, Doubt("2", "9.9", doubt.reason)], NOON)

    assert [body.study_instance_uid for body in said(database, StudyConflicted)] == ["1"]


def test_what_has_arrived_is_announced_when_a_person_says_that_it_is_all(
    database: Database,
) -> None:
    write(database, a_study("1"), an_association("1"), an_instance("1.1", "1"))

    for uid in ("1", "1", "unknown"):
        with database.transaction() as transaction:
            announcing.force(transaction, uid, at(1))

    assert announced(database) == [("1", 1, CompletionReason.FORCED)]


def test_many_announcers_announce_every_version_once(database: Database) -> None:
    uids = [str(number) for number in range(60)]
    write(database, *(a_study(uid) for uid in uids))
    announcers = [Announcer(database, LIMITS) for _ in range(4)]

    def work(announcer: Announcer) -> None:
        while announcer.look(at(31)) == 0.0:
            pass

    threads = [threading.Thread(target=work, args=(each,)) for each in announcers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(announced(database)) == sorted((uid, 1, CompletionReason.QUIET) for uid in uids)
