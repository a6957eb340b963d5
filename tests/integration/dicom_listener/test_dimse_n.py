"""DIMSE-N on the wire: which contexts there are, what is answered, what is told unasked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association

from admin_api import application_entities
from dicom_listener.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from imaging_store.schema.ingest import commitment
from message_contracts.delivery import CommitmentReported
from service_runtime.database import Database
from tests.conftest import create_tables
from tests.integration.dicom_listener.listener import CT, Listener, a_slice, sendable, store
from tests.peers.processes import LOOPBACK, wait_until

# pynetdicom as requestor leaves its socket open when the peer resets it
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

MPPS = "1.2.840.10008.3.1.2.3.3"
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    """Start a listener that commits to what CT1 asks it to, and not to what MR1 does."""
    folder = tmp_path_factory.mktemp("services")
    url = f"sqlite:///{folder}/services.sqlite3"
    create_tables(url)
    database = Database(url)
    for ae_title, is_offered in (("CT1", True), ("MR1", False)):
        entry = application_entities.checked(commitment=is_offered)
        application_entities.put(database, ae_title, entry, "test", datetime.now(UTC))
    database.close()
    with Listener(folder / "data", url, commitment_days=1) as listener:
        yield listener


class Reports:
    """What a requestor hears on its own association, and answers."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, Dataset]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, event: evt.Event) -> tuple[int, None]:
        self.heard.append((event.request.EventTypeID, event.event_information))
        self.may_answer.wait(10)
        return 0x0000, None


def associate(
    listener: Listener,
    *abstract_syntaxes: str,
    ae_title: str = "CT1",
    is_scp: bool = False,
    reports: Callable[..., object] | None = None,
) -> Association:
    ae = AE(ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    association = ae.associate(
        LOOPBACK,
        listener.port,
        contexts=[build_context(uid, EXPLICIT) for uid in abstract_syntaxes],
        ae_title="COUNTERSIGN",
        ext_neg=[build_role(uid, scp_role=True) for uid in abstract_syntaxes] if is_scp else [],
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports)] if reports else [],
    )
    association.threads_of_ae = ae  # keeps the AE alive as long as the association
    return association


def a_reference(sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, sop_instance_uid
    return item


def a_request(*sop_instance_uids: str) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = generate_uid()
    ds.ReferencedSOPSequence = [a_reference(uid) for uid in sop_instance_uids]
    return ds


def ask(association: Association, request: Dataset | None, action_type: int = 1) -> Dataset:
    status, _ = association.send_n_action(
        request, action_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
    )
    return status


def acknowledged(listener: Listener, requests: list[Dataset]) -> int:
    """Count the requests whose result the listener knows to have been heard."""
    uids = {each.TransactionUID for each in requests}
    rows = [row for row in listener.rows(commitment) if row.transaction_uid in uids]
    return sum(row.told_at is not None for row in rows)


def test_a_service_that_is_not_the_peers_is_refused_at_the_context(listener: Listener) -> None:
    association = associate(listener, STORAGE_COMMITMENT, MPPS, ae_title="MR1")
    results = {
        context.abstract_syntax: context.result
        for context in association.accepted_contexts + association.rejected_contexts
    }
    association.release()

    assert results == {STORAGE_COMMITMENT: 1, MPPS: 0}


def test_the_same_request_is_answered_by_what_is_listed_at_the_time(listener: Listener) -> None:
    database = Database(listener.database_url)

    def answered(*, commitment: bool) -> list[int]:
        entry = application_entities.checked(commitment=commitment)
        application_entities.put(database, "XR1", entry, "test", datetime.now(UTC))
        results = []
        for _ in range(4):  # more often than there are receiving processes
            association = associate(listener, STORAGE_COMMITMENT, MPPS, ae_title="XR1")
            results.append(len(association.accepted_contexts))
            association.release()
        return results

    assert [answered(commitment=each) for each in (True, False, True)] == [
        [2] * 4,
        [1] * 4,
        [2] * 4,
    ]
    database.close()


def test_an_operation_that_a_service_lacks_is_not_recognized(listener: Listener) -> None:
    association = associate(listener, MPPS)

    got, _ = association.send_n_get([0x00100010], MPPS, "1.2.3")
    deleted = association.send_n_delete(MPPS, "1.2.3")
    association.release()

    assert (got.Status, deleted.Status) == (0x0211, 0x0211)
    assert got.ErrorComment


def test_the_sop_class_is_that_of_the_context(listener: Listener) -> None:
    association = associate(listener, MPPS, ae_title="MR1")

    known, _ = association.send_n_action(
        a_request("1.2.3"), 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, meta_uid=MPPS
    )
    unknown, _ = association.send_n_action(a_request("1.2.3"), 1, "1.2.3.4", "1.2.3", meta_uid=MPPS)
    association.release()

    assert (known.Status, unknown.Status) == (0x0124, 0x0118)


def test_the_result_of_a_commitment_is_told_on_the_association_that_asked(
    listener: Listener,
) -> None:
    reports = Reports()
    association = associate(listener, STORAGE_COMMITMENT, CT, reports=reports)
    sent = sendable(a_slice())
    store(association, sent)
    request = a_request(sent.sop_instance_uid, "1.2.3.4")

    status = ask(association, request)
    wait_until(lambda: acknowledged(listener, [request]), what="the answer")
    # The association goes on as if nothing had been told in between.
    after = store(association, sendable(a_slice()))
    association.release()

    [(event_type_id, information)] = reports.heard
    assert (status.Status, after.Status, event_type_id) == (0x0000, 0x0000, 2)
    assert information.TransactionUID == request.TransactionUID
    assert [each.ReferencedSOPInstanceUID for each in information.ReferencedSOPSequence] == [
        sent.sop_instance_uid
    ]
    assert association.is_released


def test_what_is_asked_before_a_report_is_answered_is_answered_first(listener: Listener) -> None:
    reports = Reports()
    reports.may_answer.clear()
    association = associate(listener, STORAGE_COMMITMENT, CT, reports=reports)
    sent = sendable(a_slice())
    store(association, sent)

    requests = [a_request(sent.sop_instance_uid) for _ in range(2)]
    asked = [ask(association, each).Status for each in requests]
    reports.may_answer.set()
    # pynetdicom answers in a thread of its own, which must not meet the release.
    wait_until(lambda: acknowledged(listener, requests) == 2, what="both answers")
    association.release()

    assert asked == [0x0000, 0x0000]


def test_a_request_for_thousands_of_instances_is_taken(listener: Listener) -> None:
    association = associate(listener, STORAGE_COMMITMENT, reports=Reports())

    status = ask(association, a_request(*(generate_uid() for _ in range(1500))))
    association.release()

    assert status.Status == 0x0000


def test_a_request_without_a_data_set_does_not_end_the_association(listener: Listener) -> None:
    association = associate(listener, STORAGE_COMMITMENT, reports=Reports())

    empty = ask(association, None)
    unknown = ask(association, a_request("1.2.3"), action_type=2)
    association.release()

    assert (empty.Status, unknown.Status) == (0x0115, 0x0123)
    assert association.is_released


def test_a_pacs_tells_what_it_commits_to_on_an_association_of_its_own(listener: Listener) -> None:
    association = associate(listener, STORAGE_COMMITMENT, ae_title="MR1", is_scp=True)
    [context] = association.accepted_contexts
    roles = (context.as_scu, context.as_scp)
    information = a_request("1.2.3.4")

    status, _ = association.send_n_event_report(
        information, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
    )
    association.release()

    assert roles == (False, True)
    assert status.Status == 0x0000
    [reported] = listener.messages(CommitmentReported)
    assert reported.transaction_uid == information.TransactionUID
    assert reported.calling_ae_title == "MR1"
