"""What arrivals change: which rows they make, and what is to be said of their studies."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from operator import itemgetter
from typing import Any

from sqlalchemy import bindparam, literal, select, union_all, update

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
from dicom_listener.open_associations import hold_open
from dicom_listener.rejections import tell_of_rejections
from dicom_listener.study_progress import (
    NOT_BEGUN,
    Progress,
    after_arrival,
    version_of_arrival,
)
from imaging_store.schema.ingest import duplicate_instance, instance, study
from imaging_store.schema.results import model, result_object
from message_contracts.envelope import Envelope
from service_runtime.database import Transaction
from service_runtime.messaging import outbox
from service_runtime.statements import Change, Lookup


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
    """Enter arrivals, and send what is to be said of their studies, in one transaction."""
    return _Group(transaction, arrivals).enter()


@dataclass(slots=True)
class _Study:
    progress: Progress
    identity: Identity
    is_purged: bool = False
    is_changed: bool = False


class _Group:
    """One transaction's worth of arrivals: reads what is known, decides each, writes."""

    def __init__(self, transaction: Transaction, arrivals: Sequence[Arrival]) -> None:
        self._transaction = transaction
        self._arrivals = arrivals
        self._studies = self._known_studies()
        self._known, self._ours = self._known_instances()
        self._ours |= self._our_devices()
        self._new_studies: list[dict[str, Any]] = []
        self._new_instances: list[dict[str, Any]] = []
        self._new_duplicates: list[dict[str, Any]] = []
        self._messages: list[Envelope] = []
        self._rejections: list[Arrival] = []
        self._completed: dict[str, Identity] = {}
        self._excluded: list[Arrival] = []

    def enter(self) -> list[Outcome]:
        """Decide and write all arrivals."""
        outcomes = [self._decide(arrival) for arrival in self._arrivals]
        transaction = self._transaction
        # Another process may be entering the same: in one order neither waits for the other.
        _ADD_STUDY.run(transaction, sorted(self._new_studies, key=itemgetter("study_instance_uid")))
        _ADD_INSTANCE.run(transaction, self._new_instances)
        _ADD_DUPLICATE.run(transaction, self._new_duplicates)
        changed = [
            {
                "uid": uid,
                "since": known.progress.pending_since,
                "until": known.progress.quiet_until,
            }
            for uid, known in self._studies.items()
            if known.is_changed
        ]
        _PROLONG.run(transaction, changed)
        hold_open(
            transaction,
            [
                (arrival.association, arrival.header.study_instance_uid)
                for arrival in self._arrivals
                if arrival.association
            ],
            self._arrivals[0].at,
        )
        for note in self._rejections:
            tell_of_rejections(transaction, note.header, note.rejected_studies, note.at)
        for envelope in self._messages:
            outbox.send(transaction, envelope)
        self._enter_what_is_odd()
        return outcomes

    def _enter_what_is_odd(self) -> None:
        connection = self._transaction.connection
        for uid, identity in self._completed.items():
            connection.execute(
                update(study).where(study.c.study_instance_uid == uid).values(identity._asdict())
            )
        for arrival in self._excluded:
            connection.execute(
                update(instance)
                .where(instance.c.sop_instance_uid == arrival.header.sop_instance_uid)
                .values(excluded_at=arrival.at)
            )

    def _decide(self, arrival: Arrival) -> Outcome:
        header = arrival.header
        is_ours = (
            header.sop_instance_uid in self._ours
            or not header.contributing_device_uids.isdisjoint(self._ours)
        )
        known = self._known.get(header.sop_instance_uid)
        if known is not None:
            study_instance_uid, digest, is_purged = known
            is_same = (study_instance_uid, digest) == (
                header.study_instance_uid,
                arrival.kept.digest,
            )
            if is_same:
                return Outcome.PURGED if is_purged else Outcome.SAME_AGAIN
            return self._add_duplicate(arrival, study_instance_uid, is_ours=is_ours)
        self._known[header.sop_instance_uid] = (
            header.study_instance_uid,
            arrival.kept.digest,
            False,
        )
        self._add_instance(arrival, is_ours=is_ours)
        return Outcome.NEW

    def _add_instance(self, arrival: Arrival, *, is_ours: bool) -> None:
        header = arrival.header
        claimed = identity_of(header, arrival.issuer_of_patient_id)
        known = self._studies.get(header.study_instance_uid)
        is_excluded = not is_ours and self._is_of_another(arrival, known, claimed)
        makes_version = header.is_image and not is_ours and not is_excluded
        if known is None:
            known = self._studies[header.study_instance_uid] = _Study(NOT_BEGUN, claimed)
            self._new_studies.append(study_row(arrival))
            self._messages.append(study_opened(header.study_instance_uid, arrival.at))
        else:
            known.is_changed = True
            if known.is_purged:
                known.is_purged = False
                self._claim_again(header.study_instance_uid)
        version = version_of_arrival(known.progress, makes_version=makes_version)
        known.progress = after_arrival(
            known.progress,
            makes_version=makes_version,
            at=arrival.at,
            quiet_period=arrival.quiet_period,
        )
        if arrival.rejected_studies and not is_ours:
            self._rejections.append(arrival)
        self._new_instances.append(instance_row(arrival, version, makes_version=makes_version))
        if is_excluded:
            self._excluded.append(arrival)

    def _is_of_another(self, arrival: Arrival, known: _Study | None, claimed: Identity) -> bool:
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
                known.identity = self._completed[uid] = completed(known.identity, claimed)
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
        is_purged = self._known_duplicates().get((header.sop_instance_uid, kept.digest))
        if is_purged is not None:
            return Outcome.PURGED if is_purged else Outcome.OTHER_BYTES
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

    def _known_studies(self) -> dict[str, _Study]:
        uids = {arrival.header.study_instance_uid for arrival in self._arrivals}
        return {
            uid: _Study(Progress(version, since, until), Identity(*identity), is_purged)
            for uid, version, since, until, is_purged, *identity in _STUDIES.rows(
                self._transaction, sorted(uids)
            )
        }

    def _known_instances(self) -> tuple[dict[str, tuple[str, str, bool]], set[str]]:
        """Return study, digest and whether it was purged of the known; and which we made."""
        uids = {arrival.header.sop_instance_uid for arrival in self._arrivals}
        known, ours = {}, set()
        for uid, study_instance_uid, digest, is_purged, is_result in _KNOWN.rows(
            self._transaction, sorted(uids)
        ):
            if is_result:
                ours.add(uid)
            else:
                known[uid] = (study_instance_uid, digest, is_purged)
        return known, ours

    def _known_duplicates(self) -> dict[tuple[str, str], bool]:
        """Return by SOP Instance UID and digest what came beside a first one; whether purged."""
        uids = [arrival.header.sop_instance_uid for arrival in self._arrivals]
        new = {(row["sop_instance_uid"], row["digest"]): False for row in self._new_duplicates}
        kept = _DUPLICATES.rows(self._transaction, uids)
        return new | {(uid, digest): is_purged for uid, digest, is_purged in kept}

    def _our_devices(self) -> set[str]:
        """Return the device UIDs among the arrivals' that are our models'."""
        devices = {
            uid for arrival in self._arrivals for uid in arrival.header.contributing_device_uids
        }
        if not devices:
            return set()
        return {uid for (uid,) in _DEVICES.rows(self._transaction, sorted(devices))}


_STUDIES = Lookup(
    lambda uids: (
        select(
            study.c.study_instance_uid,
            study.c.version,
            study.c.pending_since,
            study.c.quiet_until,
            study.c.purged_at.is_not(None),
            study.c.patient_id,
            study.c.issuer_of_patient_id,
            study.c.patient_name,
            study.c.patient_birth_date,
        )
        .where(study.c.study_instance_uid.in_(uids))
        .order_by(study.c.study_instance_uid)
        .with_for_update()
    )
)
# Both in one statement, because each costs the group a round trip.
_KNOWN = Lookup(
    lambda uids: union_all(
        select(
            instance.c.sop_instance_uid,
            instance.c.study_instance_uid,
            instance.c.digest,
            instance.c.purged_at.is_not(None).label("is_purged"),
            literal(value=False).label("is_result"),
        ).where(instance.c.sop_instance_uid.in_(uids)),
        select(
            result_object.c.sop_instance_uid,
            result_object.c.study_instance_uid,
            result_object.c.sha256,
            literal(value=False),
            literal(value=True),
        ).where(result_object.c.sop_instance_uid.in_(uids)),
    )
)
_DEVICES = Lookup(lambda uids: select(model.c.device_uid).where(model.c.device_uid.in_(uids)))
_DUPLICATES = Lookup(
    lambda uids: select(
        duplicate_instance.c.sop_instance_uid,
        duplicate_instance.c.digest,
        duplicate_instance.c.purged_at.is_not(None),
    ).where(duplicate_instance.c.sop_instance_uid.in_(uids))
)
_ADD_STUDY = Change(study.insert())
_ADD_INSTANCE = Change(instance.insert())
_ADD_DUPLICATE = Change(duplicate_instance.insert())
_PROLONG = Change(
    update(study)
    .where(study.c.study_instance_uid == bindparam("uid"))
    .values(pending_since=bindparam("since"), quiet_until=bindparam("until"))
)
