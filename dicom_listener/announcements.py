"""What the listener says of studies, under ids that are the same however often it says it."""

from datetime import datetime
from uuid import UUID

from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.ingest import (
    CompletionReason,
    ConflictReason,
    StudyConflicted,
    StudyOpened,
    StudyReceived,
    StudyUpdated,
)
from message_contracts.intake import InstanceDuplicated

SOURCE = "dicom_listener"


def study_opened(study_instance_uid: str, at: datetime) -> Envelope:
    """Say that the first instance of a study has been kept; this begins a journey."""
    return Envelope.of(
        StudyOpened(study_instance_uid=study_instance_uid),
        source=SOURCE,
        time=at,
        id=derived_id(StudyOpened.TYPE, study_instance_uid),
    )


def study_complete(
    study_instance_uid: str,
    study_version: int,
    instance_count: int,
    reason: CompletionReason,
    at: datetime,
) -> Envelope:
    """Say that a version of a study is complete: ``study.received``, later ``study.updated``."""
    message = StudyReceived if study_version == 1 else StudyUpdated
    return study_opened(study_instance_uid, at).leads_to(
        message(
            study_instance_uid=study_instance_uid,
            study_version=study_version,
            instance_count=instance_count,
            reason=reason,
        ),
        source=SOURCE,
        time=at,
        id=derived_id(message.TYPE, study_instance_uid, study_version),
    )


def conflict_opened(
    study_instance_uid: str,
    sop_instance_uid: str,
    reason: ConflictReason,
    conflict_id: UUID,
    at: datetime,
) -> Envelope:
    """Say that a person has to decide a conflict; once for the conflict."""
    body = StudyConflicted(
        study_instance_uid=study_instance_uid,
        sop_instance_uid=sop_instance_uid,
        reason=reason,
        conflict_id=conflict_id,
    )
    return _conflict(body, at, str(conflict_id))


def instance_duplicated(
    study_instance_uid: str, sop_instance_uid: str, digest: str, at: datetime
) -> Envelope:
    """Say that an instance came again with other bytes; once for these bytes."""
    return study_opened(study_instance_uid, at).leads_to(
        InstanceDuplicated(
            study_instance_uid=study_instance_uid, sop_instance_uid=sop_instance_uid, digest=digest
        ),
        source=SOURCE,
        time=at,
        id=derived_id(InstanceDuplicated.TYPE, sop_instance_uid, digest),
    )


def study_doubted(
    study_instance_uid: str, sop_instance_uid: str, reason: ConflictReason, at: datetime
) -> Envelope:
    """Say that a study needs a person's eyes; once for the object that says why."""
    body = StudyConflicted(
        study_instance_uid=study_instance_uid, sop_instance_uid=sop_instance_uid, reason=reason
    )
    return _conflict(body, at, sop_instance_uid)


def _conflict(body: StudyConflicted, at: datetime, *once_for: str) -> Envelope:
    uid = body.study_instance_uid
    return study_opened(uid, at).leads_to(
        body,
        source=SOURCE,
        time=at,
        id=derived_id(StudyConflicted.TYPE, uid, body.reason, *once_for),
    )
