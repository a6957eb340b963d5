"""Cases driven by real messages: rows of other services, handlers run as consumers do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import insert, select

from imaging_store.schema.ingest import conflict, instance, study
from imaging_store.schema.results import model
from message_contracts import catalogue, topology
from message_contracts.coding import CodedConcept
from message_contracts.delivery import AttachmentRequested
from message_contracts.destination import PacsDestination
from message_contracts.envelope import Envelope
from message_contracts.identifiers import case_id_of, derived_id
from message_contracts.inference import (
    ClassProbability,
    InferenceCompleted,
    InferenceFailed,
    InferenceRequested,
)
from message_contracts.ingest import (
    CompletionReason,
    ConflictReason,
    StudyConflicted,
    StudyOpened,
    StudyReceived,
    StudyUpdated,
)
from message_contracts.intake import ConflictDecision, ConflictSettled
from message_contracts.message import Message
from message_contracts.model_description import ModelDescription
from service_runtime.database import Database
from service_runtime.messaging import outbox, tables
from tests.sending_order import sending_order
from workflow_engine import cases
from workflow_engine.case import Case
from workflow_engine.commands import (
    Desk,
    Request,
    Verification,
    approve,
    review_as_pharmacist,
    verify_as_doctor,
)
from workflow_engine.on_message import WorkflowHandler
from workflow_engine.signing import Decision, Signer

DX = "1.2.840.10008.5.1.4.1.1.1.1"
"""Digital X-Ray Image Storage - For Presentation."""
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PNEUMONIA = CodedConcept(value="53084003", scheme_designator="SCT", meaning="Bacterial pneumonia")
NORMAL = CodedConcept(value="17621005", scheme_designator="SCT", meaning="Normal")


def a_model(name: str = "chest") -> ModelDescription:
    return ModelDescription.model_validate(
        {
            "name": name,
            "version": "1.0.0",
            "device_uid": f"2.25.{derived_id('device', name).int}",
            "intended_use": "Tests.",
            "limits": ["It reads nothing."],
            "applies_to": {
                "modality": {"values": ["DX", "CR"], "absent": "refuse"},
                "sop_class_uid": [DX],
            },
            "input": {"rows": 64, "columns": 64, "channels": 1, "multiply": 1, "add": 0},
            "classes": [
                {"label": "Bacterial pneumonia", "code": PNEUMONIA, "description": "Opacity."},
                {"label": "Normal", "code": NORMAL, "description": "Nothing."},
            ],
            "uncertain_below": 0.6,
            "grad_cam_layer": "last",
            "license": "none",
            "training_data": {"description": "none", "license": "none", "picture_count": 1},
            "metrics": {},
            "weights": "weights.keras",
            "weights_sha256": "0" * 64,
        }
    )


class Ward:
    """A database in which studies arrive, models answer and people act."""

    def __init__(self, database: Database, destinations: tuple[PacsDestination, ...] = ()) -> None:
        self.database = database
        self.destinations = destinations
        self.now = NOON
        self.step = timedelta(seconds=1)
        self.handler = WorkflowHandler(destinations, self.tick)
        self.desk = Desk(database, destinations)

    def tick(self) -> datetime:
        self.now += self.step
        return self.now

    # What other services write.

    def register(self, described: ModelDescription) -> None:
        with self.database.transaction() as transaction:
            transaction.connection.execute(
                insert(model),
                {
                    "name": described.name,
                    "version": described.version,
                    "device_uid": described.device_uid,
                    "weights_sha256": described.weights_sha256,
                    "description": described.model_dump(mode="json"),
                    "registered_at": NOON,
                },
            )

    def receive(
        self, study_instance_uid: str, version: int = 1, *, modality: str = "DX", **patient: str
    ) -> str:
        """Keep one more image of a study, as the listener does; return its SOP Instance UID."""
        uid = f"{study_instance_uid}.{version}.{uuid4().int % 10**9}"
        with self.database.transaction() as transaction:
            connection = transaction.connection
            found = connection.execute(
                select(study).where(study.c.study_instance_uid == study_instance_uid)
            ).first()
            if found is None:
                connection.execute(insert(study), {**_a_study_row(study_instance_uid), **patient})
            row = _an_instance_row(study_instance_uid, uid, version)
            connection.execute(insert(instance), {**row, "modality": modality})
        return uid

    # Messages, delivered as a consumer does.

    def deliver(self, message: Message, message_id: UUID | None = None) -> Envelope:
        envelope = Envelope.of(message, source="test", time=NOON, id=message_id)
        self.redeliver(envelope)
        return envelope

    def redeliver(self, envelope: Envelope) -> None:
        effect = self.handler(envelope)
        with self.database.transaction() as transaction:
            if outbox.first_time(transaction, topology.WORKFLOW, str(envelope.id)):
                effect(transaction)

    def opened(self, uid: str) -> Envelope:
        return self.deliver(StudyOpened(study_instance_uid=uid))

    def complete(self, uid: str, version: int = 1) -> Envelope:
        message = StudyReceived if version == 1 else StudyUpdated
        return self.deliver(
            message(
                study_instance_uid=uid,
                study_version=version,
                instance_count=version,
                reason=CompletionReason.QUIET,
            ),
            derived_id("study", uid, version),
        )

    def conflict(self, uid: str) -> Envelope:
        return self.deliver(
            StudyConflicted(
                study_instance_uid=uid,
                sop_instance_uid=f"{uid}.666",
                reason=ConflictReason.IDENTITY_CONFLICT,
            )
        )

    def contradict(
        self, uid: str, *, holds: bool = True, sop_instance_uid: str = "", heard: bool = True
    ) -> UUID:
        """Open a conflict that a person has to decide, as the listener does; return its id."""
        instance_uid = sop_instance_uid or f"{uid}.{uuid4().int % 10**9}"
        conflict_id = derived_id("conflict", uid, instance_uid)
        with self.database.transaction() as transaction:
            transaction.connection.execute(
                insert(conflict),
                {
                    "id": conflict_id,
                    "study_instance_uid": uid,
                    "kind": "identity" if holds else "update",
                    "sop_instance_uid": instance_uid,
                    "digest": "0" * 32,
                    "known": {"PatientID": "P1"},
                    "claimed": {"PatientID": "P2"},
                    "differing": ["PatientID"],
                    "holds": holds,
                    "opened_at": NOON,
                },
            )
        if holds and heard:
            self.deliver(self.conflicted(uid, conflict_id, instance_uid))
        return conflict_id

    def conflicted(self, uid: str, conflict_id: UUID, sop_instance_uid: str) -> StudyConflicted:
        return StudyConflicted(
            study_instance_uid=uid,
            sop_instance_uid=sop_instance_uid,
            reason=ConflictReason.IDENTITY_CONFLICT,
            conflict_id=conflict_id,
        )

    def settle(self, uid: str, conflict_id: UUID, version: int | None = None) -> Envelope:
        """Say that what was decided has been carried out, and which version that makes."""
        return self.deliver(
            ConflictSettled(
                conflict_id=conflict_id,
                study_instance_uid=uid,
                decision=ConflictDecision.KEEP if version is None else ConflictDecision.REPLACE,
                decided_by="admin",
                study_version=version,
            )
        )

    def completed(
        self, uid: str, version: int = 1, *, probability: float = 0.9, described: str = "chest"
    ) -> InferenceCompleted:
        case_id = case_id_of(uid)
        model_of = a_model(described)
        return InferenceCompleted(
            case_id=case_id,
            case_version=version,
            study_instance_uid=uid,
            model={"name": model_of.name, "version": model_of.version},
            device_uid=model_of.device_uid,
            weights_sha256=model_of.weights_sha256,
            uncertain_below=model_of.uncertain_below,
            uncertain=probability < model_of.uncertain_below,
            probabilities=(
                ClassProbability(
                    label="Bacterial pneumonia", code=PNEUMONIA, probability=probability
                ),
                ClassProbability(label="Normal", code=NORMAL, probability=1 - probability),
            ),
            heatmap_sop_instance_uid=f"{uid}.1",
            result_sop_instance_uids=(f"{uid}.{version}.901", f"{uid}.{version}.902"),
            heatmap_key=f"artifacts/{case_id}/{version}/heatmap.png",
            source_key=f"artifacts/{case_id}/{version}/source.png",
        )

    def failed(self, uid: str, version: int = 1) -> InferenceFailed:
        return InferenceFailed(
            case_id=case_id_of(uid),
            case_version=version,
            study_instance_uid=uid,
            model={"name": "chest", "version": "1.0.0"},
            reason="The pixels are truncated.",
        )

    def analyzed(self, uid: str) -> Case:
        """Bring a study to AI_ANALYZED; the model must be registered."""
        self.receive(uid)
        self.opened(uid)
        self.complete(uid)
        self.deliver(self.completed(uid))
        return self.case(uid)

    # What people do.

    def request(self, uid: str, role: str, name: str = "") -> Request:
        return Request(case_id_of(uid), a_signer(role, name), self.tick())

    def verified(self, uid: str, decision: Decision = Decision.AGREE) -> Case:
        finding = "Effusion" if decision is Decision.OVERRIDE else None
        notes = "" if decision is Decision.AGREE else "Seen."
        words = Verification(decision, finding, notes)
        return verify_as_doctor(self.desk, self.request(uid, "doctor"), words)

    def signed(self, uid: str, decision: Decision = Decision.AGREE) -> Case:
        """Have three people sign; the case waits for the doctor."""
        self.verified(uid, decision)
        review_as_pharmacist(self.desk, self.request(uid, "pharmacist"), "No interaction.")
        return approve(self.desk, self.request(uid, "admin"))

    # What can be seen afterwards.

    def case(self, uid: str) -> Case:
        with self.database.reading() as connection:
            found = cases.find(connection, case_id_of(uid))
        assert found is not None
        return found

    def sent(self) -> list[Envelope]:
        """Every message sent, the oldest first."""
        with self.database.reading() as connection:
            bodies = connection.execute(
                select(tables.message.c.body).order_by(sending_order(self.database.dialect))
            ).scalars()
            return [catalogue.decode(body) for body in bodies]

    def requested_models(self) -> list[InferenceRequested]:
        return [each.body for each in self.sent() if isinstance(each.body, InferenceRequested)]

    def attached(self) -> list[tuple[str, int]]:
        """Destination and case version of every attachment that was asked for."""
        return [
            (each.body.destination, each.body.case_version)
            for each in self.sent()
            if isinstance(each.body, AttachmentRequested)
        ]


def _a_study_row(uid: str) -> dict[str, object]:
    return {
        "study_instance_uid": uid,
        "patient_id": "P1",
        "issuer_of_patient_id": "LOCAL",
        "patient_name": "Quill^Ada",
        "patient_birth_date": "19700101",
        "patient_sex": "F",
        "accession_number": "A1",
        "study_id": "1",
        "study_description": "Chest",
        "referring_physician_name": "",
        "institution_name": "",
        "started": "2026-03-01T11:00:00+00:00",
        "opened_at": NOON,
        "pending_since": None,
        "version": 1,
    }


def _an_instance_row(study_uid: str, uid: str, version: int) -> dict[str, object]:
    return {
        "sop_instance_uid": uid,
        "study_instance_uid": study_uid,
        "series_instance_uid": f"{study_uid}.1",
        "sop_class_uid": DX,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "body_part_examined": "CHEST",
        "view_position": "PA",
        "laterality": "",
        "image_type": ["ORIGINAL", "PRIMARY"],
        "instance_number": 1,
        "number_of_frames": 1,
        "makes_version": True,
        "study_version": version,
        "calling_ae_title": "MODALITY",
        "called_ae_title": "COUNTERSIGN",
        "key": f"instances/{uid}",
        "size_bytes": 1,
        "digest": "0" * 32,
        "received_at": NOON,
    }


def a_signer(role: str, name: str = "") -> Signer:
    """Return a person of this role; the same name is the same person."""
    printed_name = name or role
    return Signer(derived_id("user", printed_name), printed_name, role, "password")
