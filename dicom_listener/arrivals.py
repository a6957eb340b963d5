"""What arrivals change: which rows they make, and what is to be said of their studies."""

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from operator import itemgetter
from typing import Any

from sqlalchemy import bindparam, update

from dicom_listener.announcements import instance_duplicated, study_opened
from dicom_listener.arrival import Arrival, instance_row, study_row
from dicom_listener.conflicts import ConflictKind, Contradiction, note_identity
from dicom_listener.identity import (
    PATIENT_ID,
    Identity,
    completed,
    differing,
    identity_of,
)
from dicom_listener.known import (
    KnownInstance,
    KnownStudy,
    known_duplicates,
    known_instances,
    known_studies,
    our_devices,
)
from dicom_listener.open_associations import hold_open
from dicom_listener.rejections import tell_of_rejections
from dicom_listener.study_progress import NOT_BEGUN, after_arrival, version_of_arrival
from imaging_store.schema.ingest import duplicate_instance, instance, study
from message_contracts.envelope import Envelope
from service_runtime.database import Transaction
from service_runtime.messaging import outbox
from service_runtime.statements import Change


class Outcome(Enum):
    """What an arrival turned out to be."""

    NEW = auto()
    SAME_AGAIN = auto()
    """The same bytes were there already; nothing changed."""
    PURGED = auto()
    """The same bytes had been there and were let go of; nothing changed: put them back."""
    OTHER_BYTES = auto()
    """Kept beside the first instance of this SOP Instance UID."""


def enter(transaction: Transaction, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Enter arrivals, and send what is to be said of their studies, in one transaction.

    It comes to the same as to enter one after the other, whatever they have in common.
    """
    outcomes = [
        outcome for part in _parts(arrivals) for outcome in _Group(transaction, part).enter()
    ]
    hold_open(
        transaction,
        [
            (arrival.association, arrival.header.study_instance_uid, arrival.at)
            for arrival in arrivals
            if arrival.association
        ],
    )
    return outcomes


def _parts(arrivals: Sequence[Arrival]) -> Iterator[Sequence[Arrival]]:
    """Divide arrivals behind each note that rejects instances.

    What it says of a study depends on whether anything of that has been entered.
    """
    start = 0
    for end, arrival in enumerate(arrivals, start=1):
        if arrival.rejected_studies or end == len(arrivals):
            yield arrivals[start:end]
            start = end


class _Group:
    """Arrivals that share their statements: reads what is known, decides each, writes."""

    def __init__(self, transaction: Transaction, arrivals: Sequence[Arrival]) -> None:
        self._transaction = transaction
        self._arrivals = arrivals
        self._uids = {arrival.header.sop_instance_uid for arrival in arrivals}
        self._studies = known_studies(
            transaction, {arrival.header.study_instance_uid for arrival in arrivals}
        )
        self._known, self._ours = known_instances(transaction, self._uids)
        self._ours |= our_devices(
            transaction, {uid for each in arrivals for uid in each.header.contributing_device_uids}
        )
        self._duplicates: dict[tuple[str, str], bool] | None = None
        self._new_studies: dict[str, Arrival] = {}
        self._new_instances: list[dict[str, Any]] = []
        self._new_duplicates: list[dict[str, Any]] = []
        self._messages: list[Envelope] = []
        self._rejections: list[Arrival] = []
        self._prolonged: set[str] = set()
        self._completed: set[str] = set()
        self._excluded: list[Arrival] = []

    def enter(self) -> list[Outcome]:
        """Decide and write all arrivals."""
        outcomes = [self._decide(arrival) for arrival in self._arrivals]
        transaction = self._transaction
        studies = self._studies
        # Another process may be entering the same: in one order neither waits for the other.
        _ADD_STUDY.run(
            transaction,
            [
                study_row(first, studies[uid].progress)
                for uid, first in sorted(self._new_studies.items(), key=itemgetter(0))
            ],
        )
        _ADD_INSTANCE.run(transaction, self._new_instances)
        _ADD_DUPLICATE.run(transaction, self._new_duplicates)
        _PROLONG.run(
            transaction,
            [
                {
                    "uid": uid,
                    "since": studies[uid].progress.pending_since,
                    "until": studies[uid].progress.quiet_until,
                }
                for uid in sorted(self._prolonged - self._new_studies.keys())
            ],
        )
        for envelope in self._messages:
            outbox.send(transaction, envelope)
        for note in self._rejections:
            tell_of_rejections(transaction, note.header, note.rejected_studies, note.at)
        self._enter_what_is_odd()
        return outcomes

    def _enter_what_is_odd(self) -> None:
        connection = self._transaction.connection
        for uid in sorted(self._completed):
            connection.execute(
                update(study)
                .where(study.c.study_instance_uid == uid)
                .values(self._studies[uid].identity._asdict())
            )
        for arrival in self._excluded:
            connection.execute(
                update(instance)
                .where(instance.c.sop_instance_uid == arrival.header.sop_instance_uid)
                .values(excluded_at=arrival.at)
            )

    def _decide(self, arrival: Arrival) -> Outcome:
        header, digest = arrival.header, arrival.kept.digest
        uid = header.sop_instance_uid
        ours = self._ours
        is_ours = bool(ours) and (
            uid in ours or not ours.isdisjoint(header.contributing_device_uids)
        )
        known = self._known.get(uid)
        if known is None:
            self._known[uid] = KnownInstance(header.study_instance_uid, digest, is_purged=False)
            self._add_instance(arrival, is_ours=is_ours)
            return Outcome.NEW
        if (known.study_instance_uid, known.digest) == (header.study_instance_uid, digest):
            return Outcome.PURGED if known.is_purged else Outcome.SAME_AGAIN
        return self._add_duplicate(arrival, known.study_instance_uid, is_ours=is_ours)

    def _add_instance(self, arrival: Arrival, *, is_ours: bool) -> None:
        header = arrival.header
        uid = header.study_instance_uid
        claimed = identity_of(header, arrival.issuer_of_patient_id)
        known = self._studies.get(uid)
        is_excluded = not is_ours and self._is_of_another(arrival, known, claimed)
        makes_version = header.shared.is_image and not is_ours and not is_excluded
        if known is None:
            known = self._studies[uid] = KnownStudy(NOT_BEGUN, claimed)
            self._new_studies[uid] = arrival
            self._messages.append(study_opened(uid, arrival.at))
        elif known.is_purged:
            known.is_purged = False
            self._claim_again(uid)
        version = version_of_arrival(known.progress, makes_version=makes_version)
        progress = after_arrival(
            known.progress,
            makes_version=makes_version,
            at=arrival.at,
            quiet_period=arrival.quiet_period,
        )
        if progress is not known.progress:
            known.progress = progress
            self._prolonged.add(uid)
        if arrival.rejected_studies and not is_ours:
            self._rejections.append(arrival)
        self._new_instances.append(instance_row(arrival, version, makes_version=makes_version))
        if is_excluded:
            self._excluded.append(arrival)

    def _is_of_another(self, arrival: Arrival, known: KnownStudy | None, claimed: Identity) -> bool:
        """Compare an instance's patient with its study's; return whether it is to be left out.

        Nearly always the two are equal.
        """
        if known is None:
            keywords: tuple[str, ...] = () if claimed.patient_id else (PATIENT_ID,)
        elif known.identity == claimed and claimed.patient_id:
            return False
        else:
            keywords = differing(known.identity, claimed)
        uid = arrival.header.study_instance_uid
        if not keywords:
            if known is not None and completed(known.identity, claimed) != known.identity:
                known.identity = completed(known.identity, claimed)
                self._completed.add(uid)
            return False
        contradiction = Contradiction(
            ConflictKind.IDENTITY,
            uid,
            arrival.header.sop_instance_uid,
            arrival.kept.digest,
            holds=True,
            differing=keywords,
            known=(known.identity if known else claimed).values(),
            claimed=claimed.values(),
        )
        return note_identity(self._transaction, contradiction, claimed, arrival.at)

    def _add_duplicate(
        self, arrival: Arrival, first_study_instance_uid: str, *, is_ours: bool
    ) -> Outcome:
        header, kept = arrival.header, arrival.kept
        if self._duplicates is None:
            self._duplicates = known_duplicates(self._transaction, self._uids)
        is_purged = self._duplicates.get((header.sop_instance_uid, kept.digest))
        if is_purged is not None:
            return Outcome.PURGED if is_purged else Outcome.OTHER_BYTES
        self._duplicates[header.sop_instance_uid, kept.digest] = False
        first_study = self._studies.get(first_study_instance_uid)
        if first_study is None or first_study.is_purged:
            self._claim_again(first_study_instance_uid)
        self._new_duplicates.append(
            {
                "sop_instance_uid": header.sop_instance_uid,
                "digest": kept.digest,
                "study_instance_uid": header.study_instance_uid,
                "transfer_syntax_uid": arrival.transfer_syntax_uid,
                "calling_ae_title": arrival.calling_ae_title[:16],
                "called_ae_title": arrival.called_ae_title[:16],
                "key": kept.key,
                "size_bytes": kept.size_bytes,
                "received_at": arrival.at,
            }
        )
        if not is_ours:
            self._messages.append(
                instance_duplicated(
                    first_study_instance_uid, header.sop_instance_uid, kept.digest, arrival.at
                )
            )
        return Outcome.OTHER_BYTES

    def _claim_again(self, study_instance_uid: str) -> None:
        """Have the purge look at a study again of which it had let go of everything."""
        self._transaction.connection.execute(
            update(study)
            .where(study.c.study_instance_uid == study_instance_uid)
            .values(purged_at=None)
        )


_ADD_STUDY = Change(study.insert())
_ADD_INSTANCE = Change(instance.insert())
_ADD_DUPLICATE = Change(duplicate_instance.insert())
_PROLONG = Change(
    update(study)
    .where(study.c.study_instance_uid == bindparam("uid"))
    .values(pending_since=bindparam("since"), quiet_until=bindparam("until"))
)
