"""What the engine asks of others. Every id is derived, so that asking twice is asking once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, select

from imaging_store.schema.results import result_object
from message_contracts.case import Stage
from message_contracts.delivery import EHR, AttachmentRequested, ReportRequested
from message_contracts.destination import PacsDestination
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.inference import InferenceRequested, ModelReference, Urgency
from message_contracts.message import Message
from service_runtime.database import Transaction
from service_runtime.messaging import outbox
from service_runtime.messaging.hastening import hasten
from workflow_engine import cases, deliveries, findings, history, releases, urgency
from workflow_engine.case import Case, Trigger
from workflow_engine.history import Entry
from workflow_engine.routing import Route
from workflow_engine.signing import Decision

SOURCE = "workflow_engine"
PARAMETRIC_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.30"
"""SOP Class UID, PS3.6."""


@dataclass(frozen=True)
class Occasion:
    """When something is asked, and the message that led to it, if one did."""

    at: datetime
    cause: Envelope | None = None


def ask_model(
    transaction: Transaction,
    case: Case,
    route: Route,
    destinations: Sequence[PacsDestination],
    occasion: Occasion,
) -> None:
    """Have a model read the version under way; of one in shadow the case knows nothing.

    A shadow reading is never urgent: nobody waits for it.
    """
    how_soon = Urgency.ROUTINE
    if not route.shadow:
        how_soon = urgency.of_study(transaction.connection, case.study_instance_uid)
        cases.ask(transaction.connection, case, route.model, occasion.at)
    send(
        transaction,
        InferenceRequested(
            case_id=case.id,
            case_version=case.version,
            study_instance_uid=case.study_instance_uid,
            model=route.model,
            sop_instance_uids=route.sop_instance_uids,
            urgency=how_soon,
            shadow=route.shadow,
            parametric_map=any(each.parametric_map for each in destinations),
        ),
        inference_request_id(case, route.model, shadow=route.shadow),
        occasion,
    )


def inference_request_id(case: Case, model: ModelReference, *, shadow: bool = False) -> UUID:
    """Return the id of the message that asks a model about the version under way."""
    return derived_id(
        InferenceRequested.TYPE,
        *(case.id, case.version, model.name, model.version),
        *(["shadow"] if shadow else []),
    )


def release_results(
    transaction: Transaction,
    case: Case,
    destinations: Sequence[PacsDestination],
    occasion: Occasion,
    *,
    added: bool = False,
) -> None:
    """Send the results to every destination whose release rule has come to hold.

    What was asked for before, and waited for a person, goes on at once. Where results were
    ``added`` since, all are asked for once more: a PACS is sent only what it has not taken.
    """
    connection = transaction.connection
    signed = cases.signatures(connection, case.id, case.version)
    decision = next(
        (each.decision for each in signed if each.stage is Stage.DOCTOR and not each.voided_at),
        None,
    )
    uids = findings.result_sop_instance_uids(cases.readings(connection, case.id, case.version))
    # What was withdrawn because a doctor did not agree is asked for again once they do.
    requested = [
        each.destination
        for each in deliveries.of_version(connection, case)
        if not (each.is_withdrawn and decision is Decision.AGREE)
        and not (added and each.rejected_at is None)
    ]
    due = releases.due(case, releases.Results(uids, decision), destinations, requested)
    maps = _parametric_maps(connection, uids)
    for destination in due:
        sent = [uid for uid in uids if destination.parametric_map or uid not in maps]
        delivery = deliveries.request(
            connection, case, destination.name, deliveries.PACS, occasion.at
        )
        history.append(
            connection,
            case,
            case,
            Entry(
                Trigger.DELIVERY_REQUESTED,
                occasion.at,
                details={"destination": destination.name, "sop_instance_uids": sent},
            ),
        )
        send(
            transaction,
            AttachmentRequested(
                case_id=case.id,
                case_version=case.version,
                study_instance_uid=case.study_instance_uid,
                destination=destination.name,
                sop_instance_uids=tuple(sent),
            ),
            deliveries.message_id(AttachmentRequested.TYPE, case.id, delivery),
            occasion,
        )
    if not case.on_hold:
        hasten(transaction, _waiting(transaction, case))


def _parametric_maps(connection: Connection, uids: Sequence[str]) -> frozenset[str]:
    """Return which of the results go only to who asks for them."""
    made = result_object.c
    return frozenset(
        connection.execute(
            select(made.sop_instance_uid).where(
                made.sop_instance_uid.in_(uids), made.sop_class_uid == PARAMETRIC_MAP_STORAGE
            )
        ).scalars()
    )


def _waiting(transaction: Transaction, case: Case) -> list[str]:
    """Return the ids of the requests about a case that have not been answered yet."""
    return [
        str(
            derived_id(ReportRequested.TYPE, case.id, each.case_version)
            if each.kind == EHR
            else deliveries.message_id(AttachmentRequested.TYPE, case.id, each)
        )
        for each in deliveries.pending(transaction.connection, case)
    ]


def request_report(transaction: Transaction, case: Case, occasion: Occasion) -> None:
    """Have the report of the version just approved rendered and delivered."""
    connection = transaction.connection
    deliveries.request(connection, case, EHR, EHR, occasion.at)
    history.append(
        connection,
        case,
        case,
        Entry(Trigger.DELIVERY_REQUESTED, occasion.at, details={"destination": EHR}),
    )
    send(
        transaction,
        ReportRequested(case_id=case.id, case_version=case.version),
        derived_id(ReportRequested.TYPE, case.id, case.version),
        occasion,
    )


def send(transaction: Transaction, message: Message, message_id: UUID, occasion: Occasion) -> None:
    """Send a message of the engine's."""
    outbox.send(
        transaction,
        Envelope.of(
            message, source=SOURCE, time=occasion.at, id=message_id, caused_by=occasion.cause
        ),
    )
