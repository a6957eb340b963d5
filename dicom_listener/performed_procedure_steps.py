"""The Modality Performed Procedure Step SCP (PS3.4 Annex F.7): N-CREATE and N-SET, received only.

What a modality says of its steps is evidence of which instances are to come. It is durable before
it is answered for, and it may come before anything of its study has.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from pydicom.uid import generate_uid
from sqlalchemy import Row, insert, select, update

from dicom_listener import early_conflicts, procedure_step
from dicom_listener.early_conflicts import Doubt
from dicom_listener.normalized import (
    DUPLICATE_SOP_INSTANCE,
    INVALID_SOP_INSTANCE,
    NO_SUCH_ACTION,
    NO_SUCH_SOP_INSTANCE,
    PROCESSING_FAILURE,
    SUCCESS,
    Answer,
    Request,
)
from dicom_listener.peers import Peer
from dicom_listener.procedure_step import InvalidStep, ProcedureStep, StepStatus
from imaging_store.schema.ingest import performed_procedure_step, step_of_study
from message_contracts.identifiers import is_uid
from message_contracts.ingest import ConflictReason
from service_runtime.database import Database, Transaction

log = structlog.get_logger()

_MAY_NO_LONGER_BE_UPDATED = Answer(
    PROCESSING_FAILURE,
    "Performed Procedure Step Object may no longer be updated",
    error_id=0xA710,
)
_NOT_KEPT = Answer(PROCESSING_FAILURE, "not kept for a fault here; send it again later")


class PerformedProcedureSteps:
    """Keeps what modalities say of their procedure steps."""

    sop_class_uid = procedure_step.SOP_CLASS_UID

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def is_offered_to(self, peer: Peer) -> bool:  # noqa: ARG002 - to whoever may associate
        """Whether a presentation context for it is accepted."""
        return True

    def n_create(self, request: Request) -> Answer:
        """Keep a new step."""
        return _answered(request, self._create)

    def n_set(self, request: Request) -> Answer:
        """Keep what has become of a step."""
        return _answered(request, self._set)

    def n_action(self, request: Request) -> Answer:  # noqa: ARG002 - there is none
        """Refuse: the service has no actions."""
        return Answer(NO_SUCH_ACTION, "this service has no actions")

    def _create(self, request: Request) -> Answer:
        step = procedure_step.created(request.data_set)
        uid = request.sop_instance_uid or str(generate_uid(None))
        if not is_uid(uid):
            raise InvalidStep(INVALID_SOP_INSTANCE, "Affected SOP Instance UID is malformed")
        with self._database.transaction() as transaction:
            kept = transaction.connection.execute(
                transaction.database.insert_new(performed_procedure_step),
                {
                    "sop_instance_uid": uid,
                    "calling_ae_title": request.peer.ae_title[:16],
                    "created_at": self._now(),
                    **_columns(step),
                },
            )
            if kept.rowcount != 1:
                return Answer(DUPLICATE_SOP_INSTANCE, "the step has been created already")
            transaction.connection.execute(
                insert(step_of_study),
                [
                    {"study_instance_uid": study, "step_sop_instance_uid": uid}
                    for study in step.study_instance_uids
                ],
            )
        return Answer(SUCCESS, sop_instance_uid="" if request.sop_instance_uid else uid)

    def _set(self, request: Request) -> Answer:
        uid, now = request.sop_instance_uid, self._now()
        modification = procedure_step.modification(request.data_set)
        columns = performed_procedure_step.c
        with self._database.transaction() as transaction:
            row = transaction.connection.execute(
                select(performed_procedure_step)
                .where(columns.sop_instance_uid == uid)
                .with_for_update()
            ).one_or_none()
            if row is None:
                return Answer(NO_SUCH_SOP_INSTANCE, "no such step has been created")
            if row.status != StepStatus.IN_PROGRESS:
                return _MAY_NO_LONGER_BE_UPDATED
            step = modification.of(_step(transaction, row))
            ended = step.status is not StepStatus.IN_PROGRESS
            transaction.connection.execute(
                update(performed_procedure_step)
                .where(columns.sop_instance_uid == uid)
                .values(ended_at=now if ended else None, **_columns(step))
            )
            if step.is_of_wrong_entry:
                doubts = [
                    Doubt(study, uid, ConflictReason.PROCEDURE_DISCONTINUED)
                    for study in step.study_instance_uids
                ]
                early_conflicts.tell(transaction, doubts, now)
        if ended:
            log.info(
                "procedure_step.ended",
                sop_instance_uid=uid,
                status=step.status,
                reason_code=step.discontinuation_reason_code,
                count=len(step.sop_instance_uids),
            )
        return Answer(SUCCESS)


def _answered(request: Request, serve: Callable[[Request], Answer]) -> Answer:
    try:
        return serve(request)
    except InvalidStep as error:
        answer = Answer(error.status, str(error)[:64])
        log.warning(
            "procedure_step.refused",
            sop_instance_uid=request.sop_instance_uid,
            calling_ae_title=request.peer.ae_title,
            status_code=f"{answer.status:04X}",
            error_comment=answer.comment,
        )
        return answer
    except Exception:
        log.exception("procedure_step.not_kept", sop_instance_uid=request.sop_instance_uid)
        return _NOT_KEPT


def _step(transaction: Transaction, row: Row[Any]) -> ProcedureStep:
    studies = transaction.connection.execute(
        select(step_of_study.c.study_instance_uid).where(
            step_of_study.c.step_sop_instance_uid == row.sop_instance_uid
        )
    )
    return ProcedureStep(
        StepStatus(row.status),
        tuple(studies.scalars()),
        tuple(row.sop_instance_uids),
        row.discontinuation_reason_code,
    )


def _columns(step: ProcedureStep) -> dict[str, object]:
    return {
        "status": str(step.status),
        "discontinuation_reason_code": step.discontinuation_reason_code,
        "sop_instance_uids": list(step.sop_instance_uids),
    }
