"""What a model's answer does to its case, of which other models may have been asked as well."""

from collections.abc import Sequence

from message_contracts.case import CaseStatus
from message_contracts.inference import InferenceCompleted, InferenceFailed
from service_runtime.database import Transaction
from service_runtime.errors import PermanentError
from workflow_engine import cases, findings, history
from workflow_engine.case import Case, Trigger, advance
from workflow_engine.dispatch import Occasion
from workflow_engine.findings import Reading
from workflow_engine.history import Entry


class NotAskedFor(PermanentError):
    """An answer names a case, a model or a destination that nothing was asked of."""


def take(
    transaction: Transaction,
    case: Case,
    body: InferenceCompleted | InferenceFailed,
    occasion: Occasion,
) -> Case | None:
    """Keep a model's answer; return the case where the answer has moved it.

    A version goes on once every model that was asked about it has answered: to its doctor with
    what was read, or as failed where nothing was.
    """
    connection = transaction.connection
    read = cases.readings(connection, body.case_id, body.case_version)
    before = _asked(read, body)
    said = findings.said(body)
    if before.completed is not None or said == before:
        return None
    details = {
        "model": f"{body.model.name} {body.model.version}",
        "version_answered": body.case_version,
        "answer": _answer(said),
    }
    if body.case_version != case.version or not _awaited(case, before):
        if not before.answered:
            cases.answer(connection, body, occasion.at)
        entry = Entry(Trigger.LATE_RESULT_RECORDED, occasion.at, details=details)
        history.append(connection, case, case, entry)
        return None
    cases.answer(connection, body, occasion.at)
    others = [each for each in read if each is not before]
    fails_otherwise = before.answered and said.completed is None
    if fails_otherwise or (_is_waiting(case) and not all(each.answered for each in others)):
        entry = Entry(Trigger.MODEL_ANSWERED, occasion.at, details=details)
        history.append(connection, case, case, entry)
        return None
    has_read = any(each.completed is not None for each in [*others, said])
    trigger = Trigger.INFERENCE_COMPLETED if has_read else Trigger.INFERENCE_FAILED
    advanced = advance(case, trigger, occasion.at)
    cases.change(connection, case, advanced, Entry(trigger, occasion.at, details=details))
    return advanced


def _asked(read: Sequence[Reading], body: InferenceCompleted | InferenceFailed) -> Reading:
    for reading in read:
        if (reading.model_name, reading.model_version) == (body.model.name, body.model.version):
            return reading
    raise NotAskedFor("model: it was not asked about this case version")


def _awaited(case: Case, before: Reading) -> bool:
    """Tell whether an answer about the version under way still moves the case.

    A failed request may be made again, and then succeed; but not once somebody has signed.
    """
    if _is_waiting(case):
        return True
    return before.answered and (
        case.status in {CaseStatus.AI_FAILED, CaseStatus.AI_ANALYZED}
        or (case.status is CaseStatus.AMENDING and case.stage is not None)
    )


def _is_waiting(case: Case) -> bool:
    """Tell whether the version under way waits for models."""
    return case.status is CaseStatus.PENDING_AI or (
        case.status is CaseStatus.AMENDING and case.stage is None
    )


def _answer(said: Reading) -> str:
    """Return what the history calls an answer."""
    if said.completed is not None:
        return "read"
    return "refused" if said.refused else "failed"
