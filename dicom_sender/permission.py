"""Whether results may still leave: between the request and now people may have decided otherwise.

A request waits in its queue while a PACS is away, for a night perhaps. Meanwhile the case may be
put on hold, rejected, overridden, or be under way again with later images.
"""

from sqlalchemy import Connection, select

from imaging_store.schema.ingest import conflict
from imaging_store.schema.workflow import cases, destination_delivery, signature
from message_contracts.case import CaseStatus, Release, Stage
from message_contracts.delivery import AttachmentRequested, RejectionRequested
from service_runtime.errors import PermanentError, Postponed

_AGREED = "agree"
_LOOK_AGAIN_S = 30.0


class NotNow(Postponed):
    """A person has to decide first; the text says what. It may take days."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, delay_s=_LOOK_AGAIN_S)


class Withdrawn(PermanentError):
    """A person has decided that these results do not leave."""


def keep_others_from_deciding(
    connection: Connection, request: AttachmentRequested | RejectionRequested
) -> None:
    """Have whoever wants to change the case wait until this transaction ends.

    Otherwise a decision could come between asking and noting that an instance is on its way, and
    another process could conclude that there is nothing to be rejected.
    """
    case = select(cases.c.id).where(cases.c.id == request.case_id).with_for_update(read=True)
    connection.execute(case)


def require_permission(
    connection: Connection, request: AttachmentRequested, release: Release
) -> None:
    """Pass where the case still lets these results go to a destination of this release rule.

    Raises
    ------
    NotNow
        The case is on hold, was sent back to the doctor, or its report has yet to be signed.
    Withdrawn
        There is no such case, it was rejected, later images took the place of an unsigned version,
        the study was corrected since, or the doctor did not agree with the model, and has not
        signed otherwise since.
    """
    case = connection.execute(select(cases).where(cases.c.id == request.case_id)).first()
    if case is None:
        raise Withdrawn("the case is not known here")
    if case.on_hold:
        raise NotNow("the case is on hold")
    version = request.case_version
    is_over = version < case.version or case.status in {
        CaseStatus.REJECTED,
        CaseStatus.REPORT_READY,
    }
    if is_over and version > (case.report_version or 0):
        raise Withdrawn("the case version was rejected, or later images took its place")
    # Also by what held nothing: an accepted update has them made anew of what the study is now.
    corrected = select(conflict.c.id).where(
        conflict.c.study_instance_uid == case.study_instance_uid,
        conflict.c.study_version > version,
    )
    if connection.execute(corrected).first() is not None:
        raise Withdrawn("a person has corrected the study since: a later version takes its place")
    decision = connection.execute(
        select(signature.c.decision).where(
            signature.c.case_id == request.case_id,
            signature.c.case_version == version,
            signature.c.stage == Stage.DOCTOR,
            signature.c.voided_at.is_(None),
        )
    ).scalar()
    if decision is None and release is not Release.AI_ANALYZED:
        raise NotNow("the doctor's signature is not in force")
    # Sent back to the doctor, it stays so until they agree: a rejection note may be on its way.
    if decision not in {None, _AGREED} or _is_rejected(connection, request):
        raise Withdrawn("the doctor did not agree with the model")
    # Asked for when the destination's release rule, or the case, was another.
    if release is Release.REPORT_READY and version > (case.report_version or 0):
        raise NotNow("the report has not been signed")


def require_rejection(connection: Connection, request: RejectionRequested) -> None:
    """Pass where these results are still not to be used.

    Raises
    ------
    Withdrawn
        The doctor agrees with the model after all.
    """
    if _is_rejected(connection, request) is False:
        raise Withdrawn("the doctor agrees with the model after all")


def _is_rejected(
    connection: Connection, request: AttachmentRequested | RejectionRequested
) -> bool | None:
    """Tell whether a rejection is in force; ``None`` where the engine has noted no delivery."""
    columns = destination_delivery.c
    found = connection.execute(
        select(columns.rejected_at).where(
            columns.case_id == request.case_id,
            columns.case_version == request.case_version,
            columns.destination == request.destination,
        )
    ).first()
    return None if found is None else found.rejected_at is not None
