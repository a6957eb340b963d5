"""What the index knows of instances that arrive, and of their studies."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import literal, select, union_all

from dicom_listener.identity import Identity
from dicom_listener.study_progress import Progress
from imaging_store.schema.ingest import duplicate_instance, instance, study
from imaging_store.schema.results import model, result_object
from service_runtime.database import Transaction
from service_runtime.statements import Lookup


@dataclass(slots=True)
class KnownStudy:
    """What arrivals depend on of their study, and change."""

    progress: Progress
    identity: Identity
    is_purged: bool = False


class KnownInstance(NamedTuple):
    """The first that came of a SOP Instance UID."""

    study_instance_uid: str
    digest: str
    is_purged: bool


def known_studies(
    transaction: Transaction, study_instance_uids: Iterable[str]
) -> dict[str, KnownStudy]:
    """Return the studies that are known, by their UID; nobody else changes them until the commit.

    They are locked in one order, so that two processes do not wait for each other.
    """
    return {
        uid: KnownStudy(Progress(version, since, until), Identity(*identity), is_purged)
        for uid, version, since, until, is_purged, *identity in _STUDIES.rows(
            transaction, sorted(study_instance_uids)
        )
    }


def known_instances(
    transaction: Transaction, sop_instance_uids: Iterable[str]
) -> tuple[dict[str, KnownInstance], set[str]]:
    """Return the instances that are known, by their UID; and the UIDs of those that we made."""
    known, ours = {}, set()
    for uid, study_instance_uid, digest, is_purged, is_result in _INSTANCES.rows(
        transaction, sorted(sop_instance_uids)
    ):
        if is_result:
            ours.add(uid)
        else:
            known[uid] = KnownInstance(study_instance_uid, digest, is_purged)
    return known, ours


def known_duplicates(
    transaction: Transaction, sop_instance_uids: Iterable[str]
) -> dict[tuple[str, str], bool]:
    """Return by SOP Instance UID and digest what came beside a first one; whether purged."""
    rows = _DUPLICATES.rows(transaction, sorted(sop_instance_uids))
    return {(uid, digest): is_purged for uid, digest, is_purged in rows}


def our_devices(transaction: Transaction, device_uids: Iterable[str]) -> set[str]:
    """Return which device UIDs are our models'."""
    uids = sorted(device_uids)
    return {uid for (uid,) in _DEVICES.rows(transaction, uids)} if uids else set()


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
_INSTANCES = Lookup(
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
