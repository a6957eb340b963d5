"""A signed case in the tables, as the packages that own them would have left it."""

from __future__ import annotations

from datetime import datetime, timedelta
from io import BytesIO
from uuid import UUID, uuid4

import cv2
import numpy as np
from sqlalchemy import insert

from fhir_bridge.signed_report import Reading, Signature, SignedReport
from imaging_store.instances import InstanceStore
from imaging_store.schema.ingest import instance, study
from imaging_store.schema.workflow import cases, inference_result, signature
from message_contracts.case import Stage
from message_contracts.inference import InferenceCompleted, ModelReference
from service_runtime.database import Database, Transaction
from tests.unit.fhir_bridge.reports import NOON, READING, a_report

HEATMAP_SOP_INSTANCE_UID = "1.2.826.0.1.3680043.8.498.1.1"


def keep_pictures(store: InstanceStore, reading: Reading = READING) -> None:
    rows, columns = np.mgrid[0:256, 0:224]
    source = (90 + 60 * np.sin(rows / 40) * np.cos(columns / 30)).astype("uint8")
    heatmap = cv2.applyColorMap(source, cv2.COLORMAP_JET)
    for key, picture in ((reading.source_key, source), (reading.heatmap_key, heatmap)):
        store.put_artifact(key, BytesIO(cv2.imencode(".png", picture)[1].tobytes()).getvalue())


def keep_case(
    database: Database,
    report: SignedReport | None = None,
    *,
    voided_at: datetime | None = None,
) -> UUID:
    """Keep all that a signed report is read from, and return the case's id."""
    report = report or a_report()
    with database.transaction() as tx:
        if report.version == 1:
            _keep_study(tx, report)
        for reading in (report.reading, *report.others):
            if reading is not None:
                _keep_reading(tx, report, reading)
        for each in report.signatures:
            keep_signature(tx, report, each, voided_at=voided_at)
    return report.case_id


def _keep_study(tx: Transaction, report: SignedReport) -> None:
    uid = report.study.study_instance_uid
    tx.connection.execute(
        insert(study).values(
            study_instance_uid=uid,
            patient_id=report.patient.patient_id,
            issuer_of_patient_id=report.patient.issuer,
            patient_name=report.patient.name,
            patient_birth_date=report.patient.birth_date,
            patient_sex=report.patient.sex,
            accession_number=report.study.accession_number,
            study_id="",
            study_description=report.study.description,
            referring_physician_name="",
            institution_name="",
            started=report.study.started,
            opened_at=NOON - timedelta(hours=3),
            version=1,
        )
    )
    for number, modality in enumerate(report.study.modalities):
        tx.connection.execute(
            insert(instance).values(
                sop_instance_uid=f"{uid}.{number + 1}",
                study_instance_uid=uid,
                series_instance_uid=f"{uid}.9",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                modality=modality,
                body_part_examined="CHEST",
                view_position="PA",
                laterality="",
                image_type=["ORIGINAL", "PRIMARY"],
                number_of_frames=1,
                makes_version=True,
                study_version=1,
                calling_ae_title="XRAY",
                called_ae_title="COUNTERSIGN",
                key="instances/a",
                size_bytes=1,
                digest="0" * 32,
                received_at=NOON - timedelta(hours=3),
            )
        )
    tx.connection.execute(
        insert(cases).values(
            id=report.case_id,
            study_instance_uid=uid,
            status="REPORT_READY",
            version=1,
            revision=5,
            report_version=1,
            on_hold=False,
            opened_at=NOON - timedelta(hours=3),
            changed_at=NOON,
        )
    )


def _keep_reading(tx: Transaction, report: SignedReport, reading: Reading) -> None:
    completed = InferenceCompleted(
        case_id=report.case_id,
        case_version=report.version,
        study_instance_uid=report.study.study_instance_uid,
        model=ModelReference(name=reading.model_name, version=reading.model_version),
        device_uid=reading.device_uid,
        weights_sha256=reading.weights_sha256,
        uncertain_below=reading.uncertain_below,
        uncertain=reading.uncertain,
        probabilities=reading.probabilities,
        heatmap_sop_instance_uid=HEATMAP_SOP_INSTANCE_UID,
        result_sop_instance_uids=("2.25.1", "2.25.2"),
        heatmap_key=reading.heatmap_key,
        source_key=reading.source_key,
    )
    tx.connection.execute(
        insert(inference_result).values(
            case_id=report.case_id,
            case_version=report.version,
            model_name=reading.model_name,
            model_version=reading.model_version,
            requested_at=reading.read_at,
            answered_at=reading.read_at,
            completed=completed.model_dump(mode="json"),
        )
    )


def keep_signature(
    tx: Transaction,
    report: SignedReport,
    signed: Signature,
    *,
    voided_at: datetime | None = None,
) -> None:
    """Keep one signature."""
    tx.connection.execute(
        insert(signature).values(
            id=uuid4(),
            case_id=report.case_id,
            case_version=report.version,
            stage=Stage(signed.stage).value,
            user_id=signed.user_id,
            printed_name=signed.printed_name,
            role=signed.role,
            meaning=signed.meaning,
            decision=signed.decision,
            finding=signed.finding or None,
            notes=signed.notes,
            signed_at=signed.signed_at,
            authentication="password",
            content_sha256="0" * 64,
            voided_at=voided_at,
        )
    )
