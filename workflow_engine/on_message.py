"""What each message of the queue ``workflow`` does to its case.

Messages come at least once and in any order: what is heard twice, or too late, changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from message_contracts.case import DeliveryState
from message_contracts.delivery import (
    AttachmentDelivered,
    AttachmentFailed,
    RejectionDelivered,
    ReportDelivered,
    ReportFailed,
)
from message_contracts.destination import PacsDestination
from message_contracts.envelope import Envelope
from message_contracts.inference import InferenceCompleted, InferenceFailed, ModelReference
from message_contracts.ingest import StudyConflicted, StudyOpened, StudyReceived, StudyUpdated
from message_contracts.intake import ConflictSettled, ConflictUnsettled
from message_contracts.message import Message
from service_runtime.database import Transaction
from service_runtime.messaging.consumer import Effect
from workflow_engine import (
    answers,
    cases,
    deliveries,
    dispatch,
    history,
    holds,
    rejections,
    routable,
)
from workflow_engine.answers import NotAskedFor
from workflow_engine.case import (
    Case,
    Trigger,
    begin_version,
    completion,
    is_news,
)
from workflow_engine.dispatch import Occasion
from workflow_engine.history import Entry
from workflow_engine.routing import Routing, route


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class WorkflowHandler:
    """The handler of the queue ``workflow``."""

    destinations: Sequence[PacsDestination]
    clock: Callable[[], datetime] = _now

    def __call__(self, envelope: Envelope) -> Effect:
        """Return what the message changes."""
        occasion = Occasion(self.clock(), envelope)
        effect: Effect
        match envelope.body:
            case StudyOpened() as body:
                effect = partial(_study_opened, body, occasion)
            case StudyReceived() | StudyUpdated() as body:
                effect = partial(self._study_complete, body, occasion)
            case StudyConflicted() as body:
                effect = partial(_study_conflicted, body, occasion)
            case ConflictSettled() as body:
                effect = partial(self._conflict_settled, body, occasion)
            case ConflictUnsettled() as body:
                effect = partial(_conflict_unsettled, body, occasion)
            case InferenceCompleted() | InferenceFailed() as body:
                effect = partial(self._inference_answered, body, occasion)
            case AttachmentDelivered() | RejectionDelivered() | ReportDelivered() as body:
                effect = partial(_delivery_answered, body, occasion)
            case Message() as body:
                raise NotAskedFor(f"{body.TYPE}: the workflow does not read it")
        return effect

    def _study_complete(
        self, body: StudyReceived, occasion: Occasion, transaction: Transaction
    ) -> None:
        connection = transaction.connection
        case = cases.find_or_open(connection, body.study_instance_uid, occasion.at)
        if not is_news(case, body.study_version):
            return
        routing = route(
            routable.models(connection),
            routable.instances(connection, body.study_instance_uid, body.study_version),
        )
        trigger = completion(case, model_asked=bool(routing.routes))
        begun = begin_version(case, body.study_version, trigger, occasion.at)
        voided = cases.void(connection, cases.unfinished_signatures(connection, case), occasion.at)
        if holds.end_reached(connection, begun, occasion.at):
            begun = holds.as_held(connection, begun, occasion.at)
        details = {
            **_routing_details(routing),
            "completion": str(body.reason),
            "instance_count": body.instance_count,
            "voided": voided,
            "on_hold": begun.on_hold,
        }
        cases.change(connection, case, begun, Entry(trigger, occasion.at, details=details))
        for each in (*routing.routes, *routing.shadows):
            dispatch.ask_model(transaction, begun, each, self.destinations, occasion)

    def _inference_answered(
        self,
        body: InferenceCompleted | InferenceFailed,
        occasion: Occasion,
        transaction: Transaction,
    ) -> None:
        case = _known_case(transaction, body.case_id)
        advanced = answers.take(transaction, case, body, occasion)
        if advanced is not None:
            # It waited for its doctor before: what may have gone was without this answer.
            added = case.stage is not None
            dispatch.release_results(
                transaction, advanced, self.destinations, occasion, added=added
            )

    def _conflict_settled(
        self, body: ConflictSettled, occasion: Occasion, transaction: Transaction
    ) -> None:
        connection = transaction.connection
        case = cases.find_or_open(connection, body.study_instance_uid, occasion.at)
        corrected = holds.settle(transaction, case, body, occasion.at)
        settled = holds.as_held(connection, case, occasion.at)
        details = {
            "conflict_id": str(body.conflict_id),
            "decision": str(body.decision),
            "study_version": body.study_version,
            "on_hold": settled.on_hold,
        }
        entry = Entry(Trigger.CONFLICT_SETTLED, occasion.at, details=details)
        cases.change(connection, case, settled, entry)
        rejections.reject_results(transaction, settled, corrected, occasion)
        dispatch.release_results(transaction, settled, self.destinations, occasion)


def _study_opened(body: StudyOpened, occasion: Occasion, transaction: Transaction) -> None:
    cases.find_or_open(transaction.connection, body.study_instance_uid, occasion.at)


def _routing_details(routing: Routing) -> dict[str, object]:
    if not routing.routes:
        return {"reasons": list(routing.reasons)}
    # Not those in shadow: nothing of them is part of a case.
    return {
        "models": {
            _model_name(each.model): list(each.sop_instance_uids) for each in routing.routes
        },
        "passed_over": [_model_name(each) for each in routing.passed_over],
    }


def _study_conflicted(body: StudyConflicted, occasion: Occasion, transaction: Transaction) -> None:
    connection = transaction.connection
    case = cases.find_or_open(connection, body.study_instance_uid, occasion.at)
    if not holds.begin(transaction, case, body, occasion.at):
        return
    details = {"sop_instance_uid": body.sop_instance_uid, "on_hold": True}
    if body.conflict_id is not None:
        details["conflict_id"] = str(body.conflict_id)
    cases.change(
        connection,
        case,
        holds.as_held(connection, case, occasion.at),
        Entry(Trigger.HELD, occasion.at, reason_code=body.reason, details=details),
    )


def _conflict_unsettled(
    body: ConflictUnsettled, occasion: Occasion, transaction: Transaction
) -> None:
    connection = transaction.connection
    case = cases.find_or_open(connection, body.study_instance_uid, occasion.at)
    holds.undecided(connection, body.conflict_id)
    details = {"conflict_id": str(body.conflict_id), "on_hold": case.on_hold}
    entry = Entry(Trigger.CONFLICT_UNSETTLED, occasion.at, reason_code=body.reason, details=details)
    # A change like any other: who decides anew has seen that it is to be decided anew.
    cases.change(connection, case, holds.as_held(connection, case, occasion.at), entry)


def _delivery_answered(
    body: AttachmentDelivered | RejectionDelivered | ReportDelivered,
    occasion: Occasion,
    transaction: Transaction,
) -> None:
    connection = transaction.connection
    case = _known_case(transaction, body.case_id)
    if isinstance(body, RejectionDelivered):
        rejections.rejection_answered(transaction, case, body, occasion)
        return
    before = deliveries.find(connection, case.id, body.case_version, body.destination)
    if before is None:
        raise NotAskedFor("destination: nothing was sent there for this case version")
    failure = body.reason if isinstance(body, AttachmentFailed | ReportFailed) else None
    state = DeliveryState.DELIVERED if failure is None else DeliveryState.FAILED
    # What has been delivered stays delivered, whichever answer comes last.
    if before.state in {DeliveryState.DELIVERED, DeliveryState.REJECTED}:
        return
    # Once withdrawn, it goes on telling why it failed: a PACS may still show it.
    is_told = failure == before.reason or before.rejected_at is not None
    if before.state is state is DeliveryState.FAILED and is_told:
        return
    deliveries.settle(connection, case.id, before, (state, failure), occasion.at)
    history.append(
        connection,
        case,
        case,
        Entry(
            Trigger.DELIVERY_ANSWERED,
            occasion.at,
            details={
                "destination": body.destination,
                "version_answered": body.case_version,
                "state": str(state),
            },
        ),
    )


def _known_case(transaction: Transaction, case_id: UUID) -> Case:
    case = cases.find(transaction.connection, case_id)
    if case is None:
        raise NotAskedFor("case_id: there is no such case")
    return case


def _model_name(model: ModelReference) -> str:
    return f"{model.name} {model.version}"
