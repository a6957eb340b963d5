"""Load what was signed out of the tables. Reads only: other packages write them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Row, select

from fhir_bridge.signed_report import (
    Decision,
    NotSigned,
    PatientIdentity,
    Reading,
    Signature,
    SignedReport,
    Study,
)
from imaging_store.schema.ingest import instance, study
from imaging_store.schema.workflow import cases, hold, inference_result, signature
from message_contracts.case import Stage
from message_contracts.inference import InferenceCompleted
from service_runtime.errors import PermanentError, Postponed

_LOOK_AGAIN_S = 600.0


class UnknownCase(PermanentError):
    """There is no such case, or its study is not in the index."""


class CaseOnHold(Postponed):
    """Nothing of the case is sent until a person has decided: it may be another patient's."""


class Corrected(PermanentError):
    """A person has corrected the study since it was signed: a later version takes its place."""


def load(connection: Connection, case_id: UUID, version: int) -> SignedReport:
    """Return one version of a case with the signatures that its approval rested on.

    Raises
    ------
    UnknownCase
        There is no such case.
    CaseOnHold
        Try again when a person has decided.
    Corrected
        The patient or the images were put right after that version.
    NotSigned
        That version has not been signed by everybody.
    """
    found = connection.execute(
        select(study, cases.c.on_hold)
        .join(cases, cases.c.study_instance_uid == study.c.study_instance_uid)
        .where(cases.c.id == case_id)
    ).first()  # fmt: skip
    if found is None:
        raise UnknownCase(f"case {case_id} is not known here")
    if found.on_hold:
        # Looked at again at once when the hold ends.
        raise CaseOnHold(f"case {case_id} is on hold", _LOOK_AGAIN_S)
    corrected = select(hold.c.id).where(hold.c.case_id == case_id, hold.c.until_version > version)
    if connection.execute(corrected).first() is not None:
        raise Corrected("a person has corrected the study since: a later version takes its place")
    signed = _signatures(connection, case_id, version)
    if signed.keys() != set(Stage):
        raise NotSigned(f"case {case_id} version {version} has not been signed by everybody")
    readings = _readings(connection, case_id, version)
    return SignedReport(
        case_id=case_id,
        version=version,
        amends=bool(_approved_before(connection, case_id, version)),
        patient=PatientIdentity(
            patient_id=found.patient_id,
            issuer=found.issuer_of_patient_id,
            name=found.patient_name,
            birth_date=found.patient_birth_date,
            sex=found.patient_sex,
        ),
        study=Study(
            study_instance_uid=found.study_instance_uid,
            accession_number=found.accession_number,
            description=found.study_description,
            started=found.started,
            modalities=_modalities(connection, found.study_instance_uid, version),
        ),
        reading=readings[0] if readings else None,
        others=readings[1:],
        withdrawn=_withdrawn(connection, case_id, version, _further(signed, readings)),
        doctor=signed[Stage.DOCTOR],
        pharmacist=signed[Stage.PHARMACIST],
        admin=signed[Stage.ADMIN],
    )


def _further(signed: Mapping[Stage, Signature], readings: Sequence[Reading]) -> set[str]:
    """Return the models whose findings are filed beside the first, because the doctor agreed."""
    if signed.keys() != set(Stage) or signed[Stage.DOCTOR].decision is not Decision.AGREE:
        return set()
    return {each.model_name for each in readings[1:] if not each.uncertain}


def _withdrawn(
    connection: Connection, case_id: UUID, version: int, still: set[str]
) -> tuple[str, ...]:
    """Return the models whose findings earlier reports stood behind, and this one does not.

    Whether those reports have come to the EHR is seen there.
    """
    signed_for: set[str] = set()
    for earlier in _approved_before(connection, case_id, version):
        signed = _signatures(connection, case_id, earlier)
        signed_for |= _further(signed, _readings(connection, case_id, earlier))
    return tuple(sorted(signed_for - still))


def _signatures(connection: Connection, case_id: UUID, version: int) -> dict[Stage, Signature]:
    """Return the signatures that were in force when the last of them was given.

    Images that come after a report void its signatures for the next version; what they signed
    stays signed.
    """
    rows = connection.execute(
        select(signature)
        .where(signature.c.case_id == case_id, signature.c.case_version == version)
        .order_by(signature.c.signed_at)
    ).all()
    approved_at = max((row.signed_at for row in rows if row.stage == Stage.ADMIN), default=None)
    if approved_at is None:
        return {}
    return _in_force_at(rows, approved_at)


def _in_force_at(rows: Sequence[Row[tuple[object, ...]]], at: datetime) -> dict[Stage, Signature]:
    return {
        Stage(row.stage): Signature(
            stage=Stage(row.stage),
            user_id=row.user_id,
            printed_name=row.printed_name,
            role=row.role,
            meaning=row.meaning,
            signed_at=row.signed_at,
            notes=row.notes,
            decision=Decision(row.decision) if row.decision else None,
            finding=row.finding or "",
        )
        for row in rows
        if row.signed_at <= at and (row.voided_at is None or row.voided_at >= at)
    }


def _approved_before(connection: Connection, case_id: UUID, version: int) -> Sequence[int]:
    earlier = select(signature.c.case_version).where(
        signature.c.case_id == case_id,
        signature.c.case_version < version,
        signature.c.stage == Stage.ADMIN,
    )
    return connection.execute(earlier.distinct()).scalars().all()


def _modalities(connection: Connection, study_instance_uid: str, version: int) -> tuple[str, ...]:
    rows = connection.execute(
        select(instance.c.modality)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.study_version <= version,
            instance.c.makes_version,
            instance.c.excluded_at.is_(None),
        )
        .distinct()
    )
    return tuple(sorted(row.modality for row in rows if row.modality))


def _readings(connection: Connection, case_id: UUID, version: int) -> tuple[Reading, ...]:
    """Return what models have read of a version; first what found something, then by name."""
    rows = connection.execute(
        select(inference_result)
        .where(
            inference_result.c.case_id == case_id,
            inference_result.c.case_version == version,
            inference_result.c.answered_at.is_not(None),
            inference_result.c.failure.is_(None),
        )
        .order_by(inference_result.c.model_name, inference_result.c.model_version)
    )
    return tuple(sorted(map(_reading, rows), key=lambda each: each.uncertain))


def _reading(row: Row[tuple[object, ...]]) -> Reading:
    completed = InferenceCompleted.model_validate(row.completed)
    return Reading(
        model_name=completed.model.name,
        model_version=completed.model.version,
        device_uid=completed.device_uid,
        weights_sha256=completed.weights_sha256,
        uncertain_below=completed.uncertain_below,
        uncertain=completed.uncertain,
        probabilities=completed.probabilities,
        heatmap_key=completed.heatmap_key,
        source_key=completed.source_key,
        read_at=row.answered_at,
    )
