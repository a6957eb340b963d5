"""What is promised, made durable and told; on both databases, and to a real peer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_listener import storage_commitment
from dicom_listener.commitment_report import Reporter
from dicom_listener.commitment_telling import Address, Event, Teller
from dicom_listener.negotiation import application_entity as local_ae
from dicom_listener.normalized import Answer, Request
from dicom_listener.peers import Peer
from dicom_listener.purging import Purge
from dicom_listener.storage_commitment import (
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    StorageCommitment,
)
from imaging_store.retention import Retention
from imaging_store.schema.administration import application_entity
from imaging_store.schema.ingest import commitment, committed_instance, instance
from message_contracts.topology import RetryPolicy
from service_runtime.database import Database
from service_runtime.dicom_tls import client_context, server_context
from tests.integration.dicom_listener.commitment_peer import CommitmentPeer
from tests.integration.dicom_listener.kept_studies import CT, NOW, KeptStudies
from tests.peers.certificates import CertificateAuthority
from tests.peers.processes import LOOPBACK, free_port

WEEK = timedelta(days=7)
DAY = Retention(timedelta(days=1), watermark_bytes=0, reserve_bytes=0)
MODALITY = Peer("CT1", timedelta(seconds=1), "LOCAL", UTC, commitment=True)


@pytest.fixture(autouse=True)
def nothing_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_commitment, "_ON_ITS_WAY_S", 0.0)


def service(kept: KeptStudies, period: timedelta | None = WEEK) -> StorageCommitment:
    return StorageCommitment(kept.database, kept.store, period, lambda: NOW)


def asking(*uids: str, transaction_uid: str = "1.9", sop_class_uid: str = CT) -> Request:
    information = Dataset()
    information.TransactionUID = transaction_uid
    items = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, uid
        items.append(item)
    information.ReferencedSOPSequence = items
    return Request(
        MODALITY, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, information, action_type_id=1
    )


def register(kept: KeptStudies, port: int | None, ae_title: str = "CT1") -> None:
    kept.write(
        application_entity,
        ae_title=ae_title,
        networks=[],
        urgency="routine",
        commitment=True,
        host=None if port is None else LOOPBACK,
        port=port,
        changed_at=NOW,
    )


def failures(answer: Answer) -> dict[str, int]:
    assert answer.event is not None
    items = answer.event.information.get("FailedSOPSequence", [])
    return {item.ReferencedSOPInstanceUID: item.FailureReason for item in items}


def a_teller(kept: KeptStudies, after: timedelta = timedelta(), attempts: int = 4) -> Teller:
    return Teller(
        kept.database,
        Reporter(lambda: local_ae("COUNTERSIGN"), None),
        lambda: NOW + after,
        RetryPolicy(first_delay_s=1, multiplier=2, cap_s=60, attempts=attempts),
    )


def test_what_is_kept_is_committed_to_and_not_purged_before_its_time(kept: KeptStudies) -> None:
    kept.add("1.1")

    answer = service(kept).n_action(asking("1.1.1"))

    assert answer.status == 0x0000
    assert answer.event is not None
    assert answer.event.event_type_id == 1
    [row] = kept.rows(committed_instance)
    assert (row.sop_instance_uid, row.failure_reason, row.kept_until) == ("1.1.1", None, NOW + WEEK)
    retention = Retention(timedelta(days=30), watermark_bytes=2**80, reserve_bytes=0)
    purge = Purge(kept.database, kept.store, retention, lambda: NOW)
    purge.some()
    purge.some_early()
    assert kept.purged() == {"1.1.2"}


def test_what_is_not_there_is_told_with_its_reason(kept: KeptStudies) -> None:
    kept.add("1.1", count=4)
    kept.change(instance, instance.c.sop_instance_uid == "1.1.2", purged_at=NOW)
    kept.change(instance, instance.c.sop_instance_uid == "1.1.3", sop_class_uid="1.2")
    key = next(row.key for row in kept.rows(instance) if row.sop_instance_uid == "1.1.4")
    (kept.store.root / key).unlink()

    answer = service(kept).n_action(asking("1.1.1", "1.1.2", "1.1.3", "1.1.4", "1.1.5"))

    assert answer.status == 0x0000
    assert failures(answer) == {"1.1.2": 0x0112, "1.1.3": 0x0119, "1.1.4": 0x0112, "1.1.5": 0x0112}
    rows = {row.sop_instance_uid: row for row in kept.rows(committed_instance)}
    assert {uid for uid, row in rows.items() if row.kept_until} == {"1.1.1"}


def test_what_is_still_on_its_way_into_the_index_is_waited_for(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_commitment, "_ON_ITS_WAY_S", 30.0)
    kept.add("1.1", count=1)
    looked = threading.Event()
    pause = storage_commitment.time.sleep

    def sleep(seconds: float) -> None:
        looked.set()
        pause(seconds)

    monkeypatch.setattr(storage_commitment.time, "sleep", sleep)
    with ThreadPoolExecutor(1) as requestor:
        answer = requestor.submit(service(kept).n_action, asking("1.1.1", "1.1.2"))
        assert looked.wait(timeout=30)
        kept.receive("1.1", "1.1.2", NOW)
        assert failures(answer.result(timeout=30)) == {}


def test_a_file_that_was_cut_short_is_not_committed_to(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1", count=1)
    (kept_in_sqlite.store.root / kept_in_sqlite.files()[0]).write_bytes(b"1")

    assert failures(service(kept_in_sqlite).n_action(asking("1.1.1"))) == {"1.1.1": 0x0112}


def test_a_request_made_again_has_the_same_answer(kept: KeptStudies) -> None:
    kept.add("1.1")
    first = service(kept).n_action(asking("1.1.1", "1.1.9"))
    kept.receive("1.1", "1.1.9", NOW)

    again = service(kept).n_action(asking("1.1.9", "1.1.1"))

    assert failures(first) == failures(again) == {"1.1.9": 0x0112}
    assert len(kept.rows(commitment)) == 1


def test_what_is_asked_again_after_its_time_is_decided_anew(kept: KeptStudies) -> None:
    kept.add("1.1")
    assert failures(service(kept).n_action(asking("1.1.1"))) == {}
    later = NOW + WEEK
    Purge(kept.database, kept.store, DAY, lambda: later).some()
    assert "1.1.1" in kept.purged()

    again = replace(service(kept), now=lambda: later).n_action(asking("1.1.1"))

    assert failures(again) == {"1.1.1": 0x0112}
    [row] = kept.rows(committed_instance)
    assert (row.failure_reason, row.kept_until) == (0x0112, None)


def test_a_transaction_uid_that_was_used_for_others_commits_to_nothing(kept: KeptStudies) -> None:
    kept.add("1.1")
    service(kept).n_action(asking("1.1.1"))

    answer = service(kept).n_action(asking("1.1.2"))

    assert answer.status == 0x0000
    assert failures(answer) == {"1.1.2": 0x0131}
    other = replace(asking("1.1.2"), peer=replace(MODALITY, ae_title="CT2"))
    assert failures(service(kept).n_action(other)) == {}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"peer": replace(MODALITY, commitment=False)}, 0x0124),
        ({"sop_instance_uid": "1.2.3"}, 0x0112),
        ({"action_type_id": 2}, 0x0123),
        ({"action_type_id": None}, 0x0123),
        ({"data_set": Dataset()}, 0x0115),
    ],
)
def test_what_cannot_be_asked_is_refused_with_words(
    kept_in_sqlite: KeptStudies, change: dict[str, object], status: int
) -> None:
    kept_in_sqlite.add("1.1")

    answer = service(kept_in_sqlite).n_action(replace(asking("1.1.1"), **change))

    assert answer.status == status
    assert 0 < len(answer.comment) <= 64
    assert answer.event is None
    assert kept_in_sqlite.rows(commitment) == []


def test_without_a_period_nobody_is_offered_it(kept_in_sqlite: KeptStudies) -> None:
    without = service(kept_in_sqlite, period=None)

    assert not without.is_offered_to(MODALITY)
    assert without.n_action(asking("1.1.1")).status == 0x0124
    assert service(kept_in_sqlite).is_offered_to(MODALITY)
    assert not service(kept_in_sqlite).is_offered_to(replace(MODALITY, commitment=False))


def test_when_the_database_is_away_nothing_is_promised(
    kept_in_sqlite: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_in_sqlite.add("1.1")

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(Database, "transaction", fail)

    assert service(kept_in_sqlite).n_action(asking("1.1.1")).status == 0x0110


def test_the_result_is_told_on_the_same_association_and_then_no_more(kept: KeptStudies) -> None:
    kept.add("1.1")
    register(kept, port=None)
    answer = service(kept).n_action(asking("1.1.1"))
    assert answer.event is not None

    answer.event.on_answer(None)
    assert kept.rows(commitment)[0].told_at is None
    answer.event.on_answer(0x0000)

    [row] = kept.rows(commitment)
    assert (row.told_at, row.due_at) == (NOW, None)


def test_a_peer_with_an_address_hears_of_it_there(kept: KeptStudies) -> None:
    kept.add("1.1")
    with CommitmentPeer() as peer:
        register(kept, peer.port)
        answer = service(kept).n_action(asking("1.1.1", "1.1.9"))
        service(kept).n_action(asking("1.1.2", transaction_uid="1.10"))

        count = a_teller(kept).tell_some()

    assert answer.event is None
    assert count == 2
    told = {str(each.TransactionUID): (kind, each) for kind, each in peer.heard}
    assert {uid: kind for uid, (kind, _) in told.items()} == {"1.9": 2, "1.10": 1}
    [failed] = told["1.9"][1].FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == ("1.1.9", 0x0112)
    assert {row.told_at for row in kept.rows(commitment)} == {NOW}
    assert a_teller(kept, WEEK).tell_some() == 0


def test_what_is_not_acknowledged_is_told_again_until_it_is(kept: KeptStudies) -> None:
    kept.add("1.1")
    with CommitmentPeer(answers=[0x0110]) as peer:
        register(kept, peer.port)
        service(kept).n_action(asking("1.1.1"))

        a_teller(kept).tell_some()
        [row] = kept.rows(commitment)
        assert (row.attempt, row.told_at, row.due_at) == (1, None, NOW + timedelta(seconds=1))
        assert a_teller(kept).tell_some() == 0
        a_teller(kept, timedelta(seconds=1)).tell_some()

    assert len(peer.heard) == 2
    assert kept.rows(commitment)[0].told_at == NOW + timedelta(seconds=1)


def test_a_peer_that_is_away_for_too_long_is_given_up(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1")
    register(kept_in_sqlite, free_port())
    service(kept_in_sqlite).n_action(asking("1.1.1"))

    for minutes in range(3):
        a_teller(kept_in_sqlite, timedelta(minutes=minutes), attempts=3).tell_some()

    [row] = kept_in_sqlite.rows(commitment)
    assert (row.attempt, row.due_at, row.told_at) == (3, None, None)
    assert a_teller(kept_in_sqlite, WEEK).tell_some() == 0


def test_a_peer_that_does_not_take_us_for_the_scp_is_not_told(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1")
    with CommitmentPeer() as peer:
        for context in peer._server.ae._supported_contexts.values():
            context.scp_role, context.scu_role = False, True
        register(kept_in_sqlite, peer.port)
        service(kept_in_sqlite).n_action(asking("1.1.1"))

        a_teller(kept_in_sqlite).tell_some()

    assert peer.heard == []
    assert kept_in_sqlite.rows(commitment)[0].attempt == 1


def test_a_peer_hears_of_it_by_tls(kept_in_sqlite: KeptStudies, tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "tls")
    ours = authority.issue("ours")
    kept_in_sqlite.add("1.1")
    with CommitmentPeer(tls=server_context(authority.issue("peer"))) as peer:
        register(kept_in_sqlite, peer.port)
        kept_in_sqlite.change(application_entity, application_entity.c.ae_title == "CT1", tls=True)
        service(kept_in_sqlite).n_action(asking("1.1.1"))

        a_teller(kept_in_sqlite).tell_some()
        assert peer.heard == []
        by_tls = Reporter(lambda: local_ae("COUNTERSIGN"), lambda: client_context(ours))
        replace(a_teller(kept_in_sqlite, timedelta(seconds=1)), report=by_tls).tell_some()

    assert len(peer.heard) == 1
    assert kept_in_sqlite.rows(commitment)[0].told_at


def test_an_address_that_is_given_later_is_used(kept_in_sqlite: KeptStudies) -> None:
    kept_in_sqlite.add("1.1")
    service(kept_in_sqlite).n_action(asking("1.1.1"))
    with CommitmentPeer() as peer:
        register(kept_in_sqlite, peer.port)

        a_teller(kept_in_sqlite, timedelta(seconds=5)).tell_some()

    assert len(peer.heard) == 1


def test_who_is_killed_while_telling_leaves_it_to_the_next_one(kept: KeptStudies) -> None:
    class Killed(BaseException):
        pass

    def killed(address: Address, events: Sequence[Event]) -> list[int | str]:
        raise Killed

    kept.add("1.1")
    register(kept, free_port())
    service(kept).n_action(asking("1.1.1"))
    dying = Teller(kept.database, killed, lambda: NOW)

    with pytest.raises(Killed):
        dying.tell_some()

    told: list[Event] = []

    def listen(address: Address, events: Sequence[Event]) -> list[int | str]:
        told.extend(events)
        return [0x0000] * len(events)

    next_one = Teller(kept.database, listen, lambda: NOW + timedelta(minutes=5))
    assert next_one.tell_some() == 1
    assert next_one.tell_some() == 0
    assert len(told) == 1


def test_a_slow_peer_hears_of_each_result_once(kept_in_sqlite: KeptStudies) -> None:
    kept = kept_in_sqlite
    kept.add("1.1")
    register(kept, free_port())
    for number in range(4):
        service(kept).n_action(asking("1.1.1", transaction_uid=f"1.9.{number}"))
    time = NOW
    told_by_others: list[int] = []

    def take_minutes(address: Address, events: Sequence[Event]) -> Iterator[int | str]:
        nonlocal time
        for _ in events:
            time += timedelta(minutes=4)
            told_by_others.append(other.tell_some())
            yield 0x0000

    def stay_silent(address: Address, events: Sequence[Event]) -> list[int | str]:
        return ["no answer"] * len(events)

    other = Teller(kept.database, stay_silent, lambda: time)

    assert Teller(kept.database, take_minutes, lambda: time).tell_some() == 4

    assert told_by_others == [0, 0, 0, 0]
    assert all(row.told_at for row in kept.rows(commitment))


def test_purging_and_promising_at_once_never_promise_what_goes(kept: KeptStudies) -> None:
    retention = Retention(timedelta(days=30), watermark_bytes=0, reserve_bytes=0)
    uids = [f"1.{number}" for number in range(1, 21)]
    for uid in uids:
        kept.add(uid, count=1)
    together = threading.Barrier(2)

    def promise() -> None:
        together.wait()
        for number, uid in enumerate(reversed(uids)):
            service(kept).n_action(asking(f"{uid}.1", transaction_uid=f"1.9.{number}"))

    promising = threading.Thread(target=promise)
    promising.start()
    together.wait()
    while Purge(kept.database, kept.store, retention, lambda: NOW).some().instances:
        pass
    promising.join()

    promised = {row.sop_instance_uid for row in kept.rows(committed_instance) if row.kept_until}
    there = {row.sop_instance_uid for row in kept.rows(instance) if kept.store.exists(row.key)}
    assert promised <= there
    assert kept.purged() | there == {f"{uid}.1" for uid in uids}
    assert not kept.purged() & there
