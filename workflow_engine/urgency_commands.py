"""What people do to a case that cannot wait: have its study read before all others."""

from dataclasses import replace

from message_contracts import catalogue
from message_contracts.case import CaseStatus, Stage
from message_contracts.inference import InferenceRequested, ModelReference, Urgency
from message_contracts.overtaking import overtaking, overtaking_id
from service_runtime.database import Transaction
from service_runtime.messaging import hastening
from workflow_engine import cases, dispatch, urgency
from workflow_engine.case import Case, Trigger
from workflow_engine.desk import Desk, Intervening, Request, Words, case_of, intervene
from workflow_engine.dispatch import Occasion
from workflow_engine.refusals import IllegalTransition, WrongRole
from workflow_engine.signing import Act

_MAY_ASK = {Stage.DOCTOR, Stage.ADMIN}


def expedite(desk: Desk, request: Request, words: Words) -> Case:
    """Have a study read in the urgent lane, now and whenever more of it comes.

    What waits in the routine lane already is asked for once more in the urgent one; whichever is
    answered second changes nothing.

    Raises
    ------
    Refusal
        `WrongRole` unless a doctor or an admin asks, `UnknownCase`, `StaleCase`, or
        `IllegalTransition` where it is urgent already, no model is waited for, or what waits is
        older than messages are kept.
    """
    with desk.database.transaction() as transaction:
        connection = transaction.connection
        if request.signer.role not in _MAY_ASK:
            raise WrongRole("this is for the doctor or the admin")
        case, request = case_of(connection, request)
        if urgency.of_study(connection, case.study_instance_uid) is Urgency.URGENT:
            raise IllegalTransition("the study is urgent already")
        waiting = [
            ModelReference(name=each.model_name, version=each.model_version)
            for each in cases.readings(connection, case.id, case.version)
            if not each.answered
        ]
        if not waiting and case.status is not CaseStatus.RECEIVING:
            raise IllegalTransition("no model is waited for")
        after = replace(case, revision=case.revision + 1, changed_at=request.at)
        doing = Intervening(request, words, Act.URGENCY, Trigger.MADE_URGENT)
        intervene(transaction, doing, case, after)
        for model in waiting:
            _ask_sooner(transaction, case, model)
        return after


def _ask_sooner(transaction: Transaction, case: Case, model: ModelReference) -> None:
    request_id = dispatch.inference_request_id(case, model)
    body = hastening.body_of(transaction.connection, request_id)
    if body is None:
        raise IllegalTransition(
            "it was asked about so long ago that its request is not kept: replay its dead letter, "
            "or see that a worker reads what waits in the routine lane"
        )
    waiting = catalogue.decode(body)
    if waiting.data(InferenceRequested).urgency is not Urgency.URGENT:
        # Of the same time: what is made of either has the same UIDs and dates.
        occasion = Occasion(waiting.time, cause=waiting)
        dispatch.send(transaction, overtaking(waiting), overtaking_id(request_id), occasion)
