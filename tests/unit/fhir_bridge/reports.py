"""Signed reports for tests: one in full, and a hypothesis strategy over all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import strategies as st

from fhir_bridge.references import Site
from fhir_bridge.signed_report import (
    Decision,
    PatientIdentity,
    Reading,
    Signature,
    SignedReport,
    Study,
)
from fhir_bridge.text import printable
from message_contracts.case import Stage
from message_contracts.coding import CodedConcept
from message_contracts.inference import ClassProbability

SITE = Site("Saint Elsewhere Hospital", "Department of Radiology")
NOON = datetime(2026, 3, 4, 12, 0, 0, 250_000, tzinfo=UTC)
SYSTEMS = {"HOSP": "urn:oid:1.2.36.146.595.217.0.1"}

CASE_ID = UUID("6f1f6f0a-51a2-5d0e-9c1b-2a8f2f3a4b5c")


def _class(label: str, code: str, scheme: str, probability: float) -> ClassProbability:
    concept = CodedConcept(value=code, scheme_designator=scheme, meaning=label)
    return ClassProbability(label=label, code=concept, probability=probability)


CLASSES = (
    _class("Viral pneumonia", "75570004", "SCT", 0.71),
    _class("Bacterial pneumonia", "53084003", "SCT", 0.2),
    _class("COVID-19", "840539006", "SCT", 0.06),
    _class("Normal", "1", "99CS", 0.03),
)
READING = Reading(
    model_name="chest-radiograph",
    model_version="1.0.0",
    device_uid="2.25.329800735698586629295641978511506172918",
    weights_sha256="ab" * 32,
    uncertain_below=0.5,
    uncertain=False,
    probabilities=CLASSES,
    heatmap_key="results/heatmap.png",
    source_key="results/source.png",
    read_at=NOON - timedelta(hours=2),
)
PATIENT = PatientIdentity("PAT-0815", "HOSP", "Mustermann^Erika^Maria^Dr.", "19640812", "F")
STUDY = Study(
    study_instance_uid="1.2.826.0.1.3680043.8.498.1",
    accession_number="ACC-4711",
    description="Chest PA",
    started="2026-03-04T09:30:00+01:00",
    modalities=("DX",),
)


def doctor(
    decision: Decision = Decision.AGREE, finding: str = "", notes: str = "Consolidation, left."
) -> Signature:
    return Signature(
        Stage.DOCTOR,
        UUID(int=1),
        "Dr. Greta Doctor",
        "doctor",
        "I have read this study and stand behind the conclusion",
        NOON,
        notes=notes,
        decision=decision,
        finding=finding,
    )


PHARMACIST = Signature(
    Stage.PHARMACIST,
    UUID(int=2),
    "Paul Pharmacist",
    "pharmacist",
    "I have reviewed the medication",
    NOON + timedelta(minutes=20),
    notes="Amoxicillin: renal dose adjusted.",
)
ADMIN = Signature(
    Stage.ADMIN,
    UUID(int=3),
    "Ada Admin",
    "admin",
    "I approve this report for release",
    NOON + timedelta(minutes=40),
)


def a_report(
    signature: Signature | None = None,
    *,
    version: int = 1,
    amends: bool = False,
    reading: Reading | None = READING,
    patient: PatientIdentity = PATIENT,
    study: Study = STUDY,
    pharmacist: Signature = PHARMACIST,
    admin: Signature = ADMIN,
    case_id: UUID = CASE_ID,
) -> SignedReport:
    return SignedReport(
        case_id,
        version,
        amends,
        patient,
        study,
        reading,
        signature or doctor(),
        pharmacist,
        admin,
    )


def an_override(finding: str = "Lung abscess") -> SignedReport:
    return a_report(doctor(Decision.OVERRIDE, finding, "The model is wrong."))


TEXT = st.text(max_size=40)
WORDS = st.text(min_size=1, max_size=40).filter(printable)
TIMES = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    datetime(2099, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
UIDS = st.from_regex(r"[\x21-\x7e]{1,64}", fullmatch=True)
STARTED = (
    st.just("")
    | st.dates().map(lambda it: it.isoformat())
    | TIMES.map(lambda it: it.isoformat())
    | TEXT
)
CONCEPTS = st.builds(
    CodedConcept,
    value=st.from_regex(r"[A-Za-z0-9.-]{1,16}", fullmatch=True),
    scheme_designator=st.sampled_from(["SCT", "DCM", "LN", "RADLEX", "99OWN"]),
    meaning=st.from_regex(r"[A-Za-z]{1,64}", fullmatch=True),
)
PROBABILITIES = st.lists(
    st.builds(
        ClassProbability,
        label=st.from_regex(r"[A-Za-z][A-Za-z0-9 -]{0,30}[a-z]", fullmatch=True),
        code=CONCEPTS,
        probability=st.floats(0, 1),
    ),
    min_size=2,
    max_size=6,
).map(lambda them: tuple(sorted(them, key=lambda it: -it.probability)))


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    return Reading(
        model_name=draw(st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)),
        model_version=draw(st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True)),
        device_uid=f"2.25.{draw(st.integers(1, 2**128 - 1))}",
        weights_sha256=draw(st.from_regex(r"[0-9a-f]{64}", fullmatch=True)),
        uncertain_below=draw(st.floats(0, 1)),
        uncertain=draw(st.booleans()),
        probabilities=draw(PROBABILITIES),
        heatmap_key="h.png",
        source_key="s.png",
        read_at=draw(TIMES),
    )


def _signature(draw: st.DrawFn, stage: Stage, number: int) -> Signature:
    return Signature(
        stage, UUID(int=number), draw(WORDS), stage.value, draw(WORDS), draw(TIMES), draw(TEXT)
    )


@st.composite
def signed_reports(draw: st.DrawFn) -> SignedReport:
    """Draw any report that can be signed, with identities as bad as DICOM sends them."""
    reading = draw(st.none() | readings())
    may_agree = reading is not None and not reading.uncertain
    decision = draw(st.sampled_from([it for it in Decision if may_agree or it != Decision.AGREE]))
    signed = _signature(draw, Stage.DOCTOR, 1)
    own = draw(WORDS) if decision is Decision.OVERRIDE else ""
    notes = draw(TEXT if decision is Decision.AGREE else WORDS)
    version = draw(st.integers(1, 5))
    return a_report(
        Signature(
            Stage.DOCTOR,
            signed.user_id,
            signed.printed_name,
            "doctor",
            signed.meaning,
            signed.signed_at,
            notes=notes,
            decision=decision,
            finding=own,
        ),
        version=version,
        amends=version > 1 and draw(st.booleans()),
        reading=reading,
        patient=draw(st.builds(PatientIdentity, TEXT, TEXT, TEXT, TEXT, TEXT)),
        study=draw(
            st.builds(Study, UIDS, TEXT, TEXT, STARTED, st.lists(TEXT, max_size=3).map(tuple))
        ),
        pharmacist=_signature(draw, Stage.PHARMACIST, 2),
        admin=_signature(draw, Stage.ADMIN, 3),
        case_id=draw(st.uuids()),
    )
