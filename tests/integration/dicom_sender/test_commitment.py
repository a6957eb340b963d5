"""Storage Commitment as its user: asked for, reported on either association, refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from sqlalchemy import select

from dicom_sender import commitments
from dicom_sender.association import PacsUnavailable, associated, propose_commitment
from dicom_sender.branches import Sorting
from dicom_sender.caller import Caller
from dicom_sender.committing import Committer, NotCommitted
from dicom_sender.handlers import Sender
from imaging_store.schema.delivery import commitment_answer, commitment_request
from inference_worker.result_attributes import ResultObject
from message_contracts.delivery import AttachmentDelivered, CommitmentReported
from message_contracts.destination import PacsDestination
from message_contracts.envelope import Envelope
from service_runtime.database import Database
from service_runtime.errors import Postponed
from tests.integration.dicom_sender.a_pacs import a_pacs, answers
from tests.integration.dicom_sender.kept_case import NOON
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.processes import LOOPBACK, free_port, wait_until

COMMITMENT = "1.2.840.10008.1.20.1"
NO_SUCH_INSTANCE = 0x0112


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database_url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


class Archive:
    """A PACS that takes everything, and commits to it or not, as told."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.asked: list[Dataset] = []
        self.refused: list[set[str]] = []
        """For each request, what it is not to commit to."""
        self.reports = True
        self.status = 0x0000

    def store(self, event: Any) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    def act(self, event: Any) -> tuple[int, None]:
        asked = event.action_information
        self.asked.append(asked)
        if self.reports and self.status == 0:
            refused = self.refused.pop(0) if self.refused else set()
            association = event.assoc
            # After the response has left, and on the same association.
            threading.Timer(0.5, report, [association, asked, refused]).start()
        return self.status, None


def report(association: Any, asked: Dataset, refused: set[str]) -> int:
    """Send an N-EVENT-REPORT about what was asked; return the Status that is answered."""
    told = Dataset()
    told.TransactionUID = asked.TransactionUID
    items = list(asked.ReferencedSOPSequence)
    told.ReferencedSOPSequence = [
        item for item in items if item.ReferencedSOPInstanceUID not in refused
    ]
    failed = [item for item in items if item.ReferencedSOPInstanceUID in refused]
    for item in failed:
        item.FailureReason = NO_SUCH_INSTANCE
    if failed:
        told.FailedSOPSequence = failed
    status, _ = association.send_n_event_report(
        told, 2 if failed else 1, COMMITMENT, f"{COMMITMENT}.1"
    )
    return status.Status if "Status" in status else -1


@contextmanager
def serving(archive: Archive) -> Iterator[int]:
    with a_pacs(
        archive.store, also=[COMMITMENT], handlers=[(evt.EVT_N_ACTION, archive.act)]
    ) as port:
        yield port


@pytest.fixture
def committing(sender_to: Callable[..., Sender], database: Database) -> Callable[..., Sender]:
    """Give a sender to a destination that is to commit."""

    def make(
        port: int, *, now: Callable[[], datetime] = lambda: NOON, wait_s: float = 5, **more: Any
    ) -> Sender:
        caller = Caller("COUNTERSIGN", timeout_s=30)
        committer = Committer(database, caller, now, wait_s, threading.Event())
        return sender_to(port, commit=committer, commitment=True, **more)

    return make


def test_the_association_is_released_when_its_report_has_been_answered() -> None:
    answered: list[int] = []
    heard, never = threading.Event(), threading.Event()

    def act(event: Any) -> tuple[int, None]:
        def tell(association: Any, asked: Dataset) -> None:
            answered.append(report(association, asked, set()))

        threading.Timer(0.1, tell, [event.assoc, event.action_information]).start()
        return 0, None

    def on_report(*_: object) -> None:
        heard.set()
        never.wait(0.3)

    with a_pacs(lambda _: 0, also=[COMMITMENT], handlers=[(evt.EVT_N_ACTION, act)]) as port:
        archive = PacsDestination(name="archive", ae_title="ARCHIVE", host=LOOPBACK, port=port)
        caller = Caller("COUNTERSIGN", timeout_s=30)
        with associated(archive, caller, [propose_commitment()], on_report) as association:
            assert association is not None
            association.request_commitment("1.2.3", [("1.2.840.10008.5.1.4.1.1.7", "1.2.3.4")])
            assert heard.wait(60)

        wait_until(lambda: answered == [0], what="the answer")


def reasons(database: Database) -> dict[str, int | None]:
    with database.reading() as connection:
        rows = connection.execute(select(commitment_answer)).all()
    return {row.sop_instance_uid: row.failure_reason for row in rows}


def told(
    database: Database,
    sender: Sender,
    archive: Archive,
    results: list[ResultObject],
    *,
    calling_ae_title: str = "ORTHANC",
) -> None:
    """Have a report come to the listener, which passes it on by the queue."""
    heard = CommitmentReported(
        calling_ae_title=calling_ae_title,
        transaction_uid=str(archive.asked[0].TransactionUID),
        committed=tuple(result.sop_instance_uid for result in results),
        refused=(),
    )
    effect = Sorting(sender.destinations, lambda: NOON)(
        Envelope.of(heard, source="dicom_listener", time=NOON)
    )
    with database.transaction() as transaction:
        effect(transaction)


def test_what_is_committed_on_the_same_association_is_delivered(
    committing: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    archive = Archive()
    with serving(archive) as port:
        effect = committing(port)(request_of)

    assert isinstance(answers(database, effect)[0], AttachmentDelivered)
    assert reasons(database) == {result.sop_instance_uid: None for result in results}
    assert len(archive.asked) == 1


def test_what_is_refused_once_is_sent_once_more(
    committing: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    first, second = (result.sop_instance_uid for result in results)
    archive = Archive()
    archive.refused = [{second}]
    with serving(archive) as port:
        effect = committing(port)(request_of)

    assert isinstance(answers(database, effect)[0], AttachmentDelivered)
    assert archive.stored == [first, second, second]
    asked_about = [
        [item.ReferencedSOPInstanceUID for item in asked.ReferencedSOPSequence]
        for asked in archive.asked
    ]
    assert asked_about == [[first, second], [second]]
    assert len({asked.TransactionUID for asked in archive.asked}) == 2


def test_what_is_refused_twice_is_a_dead_letter_whose_replay_sends_again(
    committing: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    second = results[1].sop_instance_uid
    archive = Archive()
    archive.refused = [{second}, {second}]
    with serving(archive) as port:
        sender = committing(port)
        with pytest.raises(NotCommitted, match=r"1 of 2 instances, sent twice: 0x0112"):
            sender(request_of)
        replayed = sender(request_of)

    assert isinstance(answers(database, replayed)[0], AttachmentDelivered)
    assert archive.stored.count(second) == 3


def test_a_report_on_another_association_is_waited_for_without_asking_again(
    committing: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    archive = Archive()
    archive.reports = False
    with serving(archive) as port:
        sender = committing(port, wait_s=0)
        with pytest.raises(Postponed, match="archive has yet to commit"):
            sender(request_of)
        with pytest.raises(Postponed):
            sender(request_of)
        for _ in range(2):
            told(database, sender, archive, results)
        effect = sender(request_of)

    assert isinstance(answers(database, effect)[0], AttachmentDelivered)
    assert len(archive.asked) == 1
    assert len(archive.stored) == 2


@pytest.mark.parametrize("is_configured", [True, False])
def test_only_who_was_asked_can_commit(
    committing: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
    *,
    is_configured: bool,
) -> None:
    archive = Archive()
    archive.reports = False
    with serving(archive) as port:
        sender = committing(port, wait_s=0)
        with pytest.raises(Postponed):
            sender(request_of)
        if is_configured:
            told(database, sender, archive, results, calling_ae_title="STRANGER")
        else:
            told(database, replace(sender, destinations={}), archive, results)
        with pytest.raises(Postponed):
            sender(request_of)

    assert reasons(database) == {}


def test_a_pacs_that_never_reports_is_a_person_s_business(
    committing: Callable[..., Sender], request_of: Envelope
) -> None:
    clock = [NOON]
    archive = Archive()
    archive.reports = False
    with serving(archive) as port:
        sender = committing(port, wait_s=0, now=lambda: clock[0])
        with pytest.raises(Postponed):
            sender(request_of)
        clock[0] += timedelta(hours=25)
        with pytest.raises(NotCommitted, match="has not reported for 25 h"):
            sender(request_of)
        with pytest.raises(Postponed):
            sender(request_of)

    assert len({asked.TransactionUID for asked in archive.asked}) == 2


def test_a_request_that_was_not_taken_is_made_again(
    committing: Callable[..., Sender], request_of: Envelope, database: Database
) -> None:
    archive = Archive()
    archive.status = 0x0110
    with serving(archive) as port:
        sender = committing(port)
        with pytest.raises(PacsUnavailable, match="asked to commit and answered 0x0110"):
            sender(request_of)
        archive.status = 0x0000
        effect = sender(request_of)

    assert isinstance(answers(database, effect)[0], AttachmentDelivered)
    assert len({asked.TransactionUID for asked in archive.asked}) == 1


def test_a_pacs_without_the_service_is_a_person_s_business(
    committing: Callable[..., Sender], request_of: Envelope
) -> None:
    with (
        a_pacs(lambda _event: 0) as port,
        pytest.raises(NotCommitted, match="does not offer Storage Commitment"),
    ):
        committing(port)(request_of)


def test_orthanc_commits_on_an_association_of_its_own(
    orthanc: Orthanc,
    committing: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    heard: list[Dataset] = []

    def hear(event: Any) -> tuple[int, None]:
        heard.append(event.event_information)
        reported = CommitmentReported.told("ORTHANC", event.event_information)
        with database.transaction() as transaction:
            commitments.keep_report(
                transaction, reported, {"archive": orthanc.ae_title}, datetime.now(UTC)
            )
        return 0, None

    ours, port = AE("COUNTERSIGN"), free_port()
    ours.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
    listener = ours.start_server(
        (LOOPBACK, port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, hear)]
    )
    orthanc.add_modality("countersign", Modality("COUNTERSIGN", port))
    try:
        sender = committing(orthanc.dicom_port, ae_title=orthanc.ae_title, wait_s=20)
        effect = sender(request_of)
    finally:
        listener.shutdown()

    assert isinstance(answers(database, effect)[0], AttachmentDelivered)
    assert len(heard) == 1
    assert reasons(database) == {result.sop_instance_uid: None for result in results}
    with database.reading() as connection:
        [asked] = connection.execute(select(commitment_request)).all()
    assert asked.settled_at is not None
