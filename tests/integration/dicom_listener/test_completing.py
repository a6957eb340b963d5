"""When a study is announced as complete, and why: over real associations."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom.association import Association

from dicom_listener.procedure_step import SOP_CLASS_UID
from imaging_store.schema.delivery import rejection_note
from imaging_store.schema.ingest import open_association
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_uid
from message_contracts.ingest import (
    CompletionReason,
    ConflictReason,
    StudyConflicted,
    StudyReceived,
    StudyUpdated,
)
from message_contracts.intake import CompletionRequested
from service_runtime.database import Database
from service_runtime.messaging import outbox
from tests.integration.dicom_listener.listener import (
    CT,
    Listener,
    a_slice,
    associate,
    send,
    sendable,
    store,
)
from tests.peers.processes import wait_until

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
CT_CONTEXT = (CT, ExplicitVRLittleEndian)
MPPS_CONTEXT = (SOP_CLASS_UID, ExplicitVRLittleEndian)
LONG_S = 600
"""A quiet period, or a time-out, that no test waits for."""


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Listener]]:
    """Start a listener, on SQLite unless told otherwise, with settings of the test's own."""
    url = request.getfixturevalue(getattr(request, "param", "sqlite_url"))
    with ExitStack() as listeners:
        yield lambda **settings: listeners.enter_context(
            Listener(tmp_path / "data", url, **settings)
        )


on_either_database = pytest.mark.parametrize(
    "start", ["sqlite_url", "postgresql_database_url"], indirect=True
)


class Series:
    """A study of one series, that is drawn as it is sent."""

    def __init__(self) -> None:
        self.study_instance_uid = generate_uid()
        self.series_instance_uid = generate_uid()
        self.sent: list[Dataset] = []

    def draw(self, **changes: object) -> Dataset:
        ds = a_slice(
            StudyInstanceUID=self.study_instance_uid,
            SeriesInstanceUID=self.series_instance_uid,
            InstanceNumber=len(self.sent) + 1,
        )
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
        self.sent.append(ds)
        return ds

    def send_over(self, association: Association) -> None:
        response = store(association, sendable(self.draw()))
        assert response is not None
        assert response.Status == 0x0000

    def announced(self, listener: Listener) -> list[tuple[int, CompletionReason]]:
        return [
            (body.instance_count, body.reason)
            for body in listener.messages(StudyReceived, StudyUpdated)
            if body.study_instance_uid == self.study_instance_uid
        ]

    def wait_until_announced(self, listener: Listener) -> None:
        wait_until(lambda: self.announced(listener), what="the announcement")


def a_slow_series_beside_fast_ones(listener: Listener, every_s: float, for_s: float) -> None:
    """Send an instance every so often over one association, and quick studies meanwhile."""
    slow, quick = Series(), []
    association = associate(listener.port, CT_CONTEXT)
    pace = threading.Event()
    for _ in range(round(for_s / every_s)):
        slow.send_over(association)
        series = Series()
        send(listener.port, [sendable(series.draw()), sendable(series.draw())], "FAST")
        quick.append(series)
        pace.wait(every_s)

    assert slow.announced(listener) == []
    quick[-1].wait_until_announced(listener)
    assert slow.announced(listener) == []
    association.release()
    slow.wait_until_announced(listener)
    assert slow.announced(listener) == [(len(slow.sent), CompletionReason.QUIET)]
    assert [series.announced(listener) for series in quick] == [
        [(2, CompletionReason.QUIET)]
    ] * len(quick)
    assert listener.rows(open_association) == []


@on_either_database
def test_a_slow_series_on_one_open_association_is_announced_once_and_whole(
    start: Callable[..., Listener],
) -> None:
    a_slow_series_beside_fast_ones(start(quiet_period_s=0.3), every_s=0.9, for_s=5.4)


@pytest.mark.soak
@on_either_database
def test_a_slow_series_of_a_minute_is_announced_once_and_whole(
    start: Callable[..., Listener],
) -> None:
    a_slow_series_beside_fast_ones(start(quiet_period_s=1), every_s=3, for_s=60)


def test_an_association_that_goes_on_to_another_study_holds_the_first_no_longer(
    start: Callable[..., Listener],
) -> None:
    listener = start()
    first, second = Series(), Series()
    association = associate(listener.port, CT_CONTEXT)

    first.send_over(association)
    second.send_over(association)

    first.wait_until_announced(listener)
    assert second.announced(listener) == []
    association.release()
    second.wait_until_announced(listener)


@pytest.mark.parametrize("end", ["abort", "idle", "kill -9"])
def test_an_association_that_ends_without_a_word_holds_nothing(
    start: Callable[..., Listener], end: str
) -> None:
    listener = start(association_idle_timeout_s=4 if end == "idle" else LONG_S)
    series = Series()
    association = associate(listener.port, CT_CONTEXT)
    series.send_over(association)

    if end == "abort":
        association.abort()
    elif end == "kill -9":
        [row] = wait_until(lambda: listener.rows(open_association), what="its row")
        os.kill(int(row.process.split(":")[1].split("-")[0]), signal.SIGKILL)

    series.wait_until_announced(listener)
    assert series.announced(listener) == [(1, CompletionReason.QUIET)]
    wait_until(lambda: not listener.rows(open_association), what="no association")


def test_the_deadline_ends_a_study_that_is_still_sent_to(start: Callable[..., Listener]) -> None:
    listener = start(completion_deadline_s=0.5)
    series = Series()
    association = associate(listener.port, CT_CONTEXT)

    series.send_over(association)

    series.wait_until_announced(listener)
    assert series.announced(listener) == [(1, CompletionReason.DEADLINE)]
    association.release()


def test_a_person_ends_the_wait(start: Callable[..., Listener]) -> None:
    listener = start(quiet_period_s=LONG_S)
    series = Series()
    send(listener.port, [sendable(series.draw())])

    database = Database(listener.database_url)
    with database.transaction() as transaction:
        body = CompletionRequested(study_instance_uid=series.study_instance_uid)
        outbox.send(transaction, Envelope.of(body, source="test", time=datetime.now(UTC)))
    database.close()

    series.wait_until_announced(listener)
    assert series.announced(listener) == [(1, CompletionReason.FORCED)]


def an_item(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


class Step:
    """A procedure step as a modality tells of it, by pynetdicom's own service user."""

    def __init__(self, association: Association, *studies: str) -> None:
        self._association = association
        self.uid = generate_uid()
        scheduled = Sequence([an_item(StudyInstanceUID=uid) for uid in studies])
        status, _ = association.send_n_create(
            an_item(
                PerformedProcedureStepStatus="IN PROGRESS",
                ScheduledStepAttributesSequence=scheduled,
                PatientName="Doe^Jane",
            ),
            SOP_CLASS_UID,
            self.uid,
        )
        assert status.Status == 0x0000

    def end(self, status: str, listed: list[Dataset], code: str = "") -> Dataset:
        references = [
            an_item(
                ReferencedSOPClassUID=ds.SOPClassUID, ReferencedSOPInstanceUID=ds.SOPInstanceUID
            )
            for ds in listed
        ]
        modifications = an_item(
            PerformedProcedureStepStatus=status,
            PerformedSeriesSequence=Sequence(
                [an_item(ReferencedImageSequence=Sequence(references))]
            ),
        )
        if code:
            modifications.PerformedProcedureStepDiscontinuationReasonCodeSequence = Sequence(
                [an_item(CodeValue=code, CodingSchemeDesignator="DCM", CodeMeaning="x")]
            )
        answer, _ = self._association.send_n_set(modifications, SOP_CLASS_UID, self.uid)
        return answer


@on_either_database
def test_a_study_is_complete_when_all_that_its_steps_list_is_there(
    start: Callable[..., Listener],
) -> None:
    listener = start(quiet_period_s=LONG_S)
    series = Series()
    images, tells = associate(listener.port, CT_CONTEXT), associate(listener.port, MPPS_CONTEXT)
    steps = [Step(tells, series.study_instance_uid) for _ in range(2)]
    series.send_over(images)
    assert steps[0].end("COMPLETED", series.sent).Status == 0x0000
    listed = [series.draw(), series.draw()]
    assert steps[1].end("COMPLETED", listed).Status == 0x0000
    again = steps[1].end("COMPLETED", listed)

    for ds in listed:
        assert series.announced(listener) == []
        store(images, sendable(ds))

    series.wait_until_announced(listener)
    assert series.announced(listener) == [(3, CompletionReason.MPPS)]
    assert (again.Status, again.ErrorID) == (0x0110, 0xA710)
    assert again.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    images.release()
    tells.release()


def test_a_step_lists_thousands_of_instances(start: Callable[..., Listener]) -> None:
    listener = start(quiet_period_s=LONG_S)
    series = Series()
    tells = associate(listener.port, MPPS_CONTEXT)
    step = Step(tells, series.study_instance_uid)

    last = series.draw()
    listed = [an_item(SOPClassUID=CT, SOPInstanceUID=generate_uid()) for _ in range(3000)]
    assert step.end("IN PROGRESS", listed).Status == 0x0000
    assert step.end("COMPLETED", [last]).Status == 0x0000
    tells.release()
    send(listener.port, [sendable(last)])

    series.wait_until_announced(listener)
    assert series.announced(listener) == [(1, CompletionReason.MPPS)]


@pytest.mark.parametrize("comes_first", ["instance", "step"])
def test_the_wrong_worklist_entry_puts_the_case_on_hold(
    start: Callable[..., Listener], comes_first: str
) -> None:
    listener = start()
    series = Series()
    tells = associate(listener.port, MPPS_CONTEXT)
    step = Step(tells, series.study_instance_uid)
    if comes_first == "instance":
        send(listener.port, [sendable(series.draw())])
    step.end("DISCONTINUED", [], code="110514")
    tells.release()
    if comes_first == "step":
        assert listener.messages(StudyConflicted) == []
        send(listener.port, [sendable(series.draw())])

    told = wait_until(lambda: listener.messages(StudyConflicted), what="the hold")
    assert told == [
        StudyConflicted(
            study_instance_uid=series.study_instance_uid,
            sop_instance_uid=step.uid,
            reason=ConflictReason.PROCEDURE_DISCONTINUED,
        )
    ]


def a_rejection_of(study_instance_uid: str, code: str = "113001", **changes: object) -> Dataset:
    """Make a Key Object Selection, in a study of its own, that rejects instances of another."""
    ds = a_slice(SOPClassUID=KEY_OBJECT_SELECTION, Modality="KO")
    for keyword in ("Rows", "Columns", "PixelData", "BitsAllocated"):
        del ds[keyword]
    ds.ConceptNameCodeSequence = Sequence(
        [an_item(CodeValue=code, CodingSchemeDesignator="DCM", CodeMeaning="x")]
    )
    ds.CurrentRequestedProcedureEvidenceSequence = Sequence(
        [an_item(StudyInstanceUID=study_instance_uid)]
    )
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def holds_by_rejection(listener: Listener) -> list[tuple[str, str]]:
    return [
        (body.study_instance_uid, body.sop_instance_uid)
        for body in listener.messages(StudyConflicted)
        if body.reason is ConflictReason.INSTANCES_REJECTED
    ]


@pytest.mark.parametrize("comes_first", ["instance", "note"])
def test_a_rejection_note_puts_the_case_on_hold_once(
    start: Callable[..., Listener], comes_first: str
) -> None:
    listener = start()
    series = Series()
    note = a_rejection_of(series.study_instance_uid)
    sent = [sendable(series.draw()), sendable(note), sendable(note)]

    for each in sent if comes_first == "instance" else reversed(sent):
        assert send(listener.port, [each]) == [0x0000]

    wait_until(lambda: holds_by_rejection(listener), what="the hold")
    series.wait_until_announced(listener)
    assert holds_by_rejection(listener) == [(series.study_instance_uid, note.SOPInstanceUID)]


def test_any_other_selection_and_notes_of_our_own_hold_nothing(
    start: Callable[..., Listener],
) -> None:
    listener = start()
    series = Series()
    uid = series.study_instance_uid
    known_by_uid = a_rejection_of(uid)
    listener.execute(
        rejection_note.insert(),
        {
            "sop_instance_uid": known_by_uid.SOPInstanceUID,
            "study_instance_uid": uid,
            "case_id": uuid4(),
            "case_version": 1,
            "key": "artifacts/note",
            "made_at": datetime.now(UTC),
        },
    )
    equipment = Sequence([an_item(DeviceUID=derived_uid("device", "dicom_sender"))])
    known_by_device = a_rejection_of(uid, ContributingEquipmentSequence=equipment)
    of_interest = a_rejection_of(uid, code="113000")

    for ds in (series.draw(), of_interest, known_by_uid, known_by_device):
        send(listener.port, [sendable(ds)])

    series.wait_until_announced(listener)
    assert holds_by_rejection(listener) == []
