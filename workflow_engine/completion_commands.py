"""What people do to a case whose study is still arriving: say that what has come is all of it."""

from dataclasses import replace

from sqlalchemy import Connection, select

from imaging_store.schema.ingest import study
from message_contracts.case import Stage
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.intake import CompletionRequested
from service_runtime.messaging import outbox
from workflow_engine import dispatch
from workflow_engine.case import Case, Trigger
from workflow_engine.desk import Desk, Intervening, Request, Words, case_of, intervene, require_role
from workflow_engine.refusals import IllegalTransition
from workflow_engine.signing import Act


def force_completion(desk: Desk, request: Request, words: Words) -> Case:
    """Have a study taken as complete that is waited for; ``dicom_listener`` announces it.

    Raises
    ------
    Refusal
        `WrongRole` unless an admin asks, `UnknownCase`, `StaleCase`, or `IllegalTransition` where
        every image that has arrived belongs to a complete version already.
    """
    with desk.database.transaction() as transaction:
        connection = transaction.connection
        require_role(request.signer, Stage.ADMIN)
        case, request = case_of(connection, request)
        if not _is_awaited(connection, case):
            raise IllegalTransition("the study is complete: nothing more of it is waited for")
        after = replace(case, revision=case.revision + 1, changed_at=request.at)
        doing = Intervening(request, words, Act.COMPLETION, Trigger.COMPLETION_REQUESTED)
        intervene(transaction, doing, case, after)
        body = CompletionRequested(study_instance_uid=case.study_instance_uid)
        outbox.send(
            transaction,
            Envelope.of(
                body,
                source=dispatch.SOURCE,
                time=request.at,
                id=derived_id(body.TYPE, case.id, case.revision),
            ),
        )
        return after


def _is_awaited(connection: Connection, case: Case) -> bool:
    found = connection.execute(
        select(study.c.pending_since).where(study.c.study_instance_uid == case.study_instance_uid)
    ).scalar()
    return found is not None
