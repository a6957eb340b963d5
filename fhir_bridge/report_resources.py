"""What the doctor stands behind: Observation, DiagnosticReport, DocumentReference."""

import base64
import hashlib
from datetime import UTC
from typing import Any

from fhir.resources.R4B.annotation import Annotation
from fhir.resources.R4B.attachment import Attachment
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.documentreference import (
    DocumentReference,
    DocumentReferenceContent,
    DocumentReferenceContext,
)
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.observation import Observation, ObservationComponent

from fhir_bridge import codes
from fhir_bridge.matching import tagged, version_tag
from fhir_bridge.references import Site, department, entry_reference, order, signer
from fhir_bridge.signed_report import UNINTERPRETABLE, Reading, SignedReport
from fhir_bridge.study_resources import probability
from fhir_bridge.text import printable, study_time

NOT_FOR_PRIMARY_DIAGNOSIS = "AI - not for primary diagnosis"
"""What every word and picture of a model bears."""


def findings_by_models(report: SignedReport) -> tuple[tuple[str, Observation], ...]:
    """Return what models found and the doctor agreed with, each after what tells it from others.

    The first is the same resource to the EHR as a doctor's own: when an amended report says
    something else, the earlier finding is replaced and does not stay in the chart beside it.
    """
    return tuple(
        (part, Observation(**_common(report, part), **_by_model(report, reading, part)))
        for reading in report.agreed_readings
        for part in [report.part_of(reading)]
    )


def finding_by_doctor(report: SignedReport) -> Observation:
    """Return the doctor's own finding."""
    return Observation(**_common(report, ""), **_by_doctor(report))


def withdrawn_finding(report: SignedReport, model_name: str) -> Observation:
    """Return a finding of an earlier report as one that is not to be used any more.

    It is for an EHR that holds the finding: there is nothing in it to make one from.
    """
    return Observation(
        **_common(report, model_name) | {"status": "entered-in-error"},
        meta=tagged(version_tag(report), security=codes.asserted_by_ai()),
    )


def _common(report: SignedReport, part: str) -> dict[str, Any]:
    value = f"{report.case_id}.{part}" if part else str(report.case_id)
    return {
        "identifier": [Identifier(system=codes.OBSERVATION_SYSTEM, value=value)],
        "status": status(report),
        "category": [codes.imaging()],
        "code": codes.imaging_finding(),
        "subject": entry_reference(report, "Patient"),
        "effectiveDateTime": _effective(report),
        "issued": _issued(report),
        "partOf": [entry_reference(report, "ImagingStudy")],
    }


def _by_model(report: SignedReport, reading: Reading, part: str) -> dict[str, Any]:
    finding = reading.finding
    note = f"{NOT_FOR_PRIMARY_DIAGNOSIS}. Asserted by {reading.model_name} {reading.model_version}."
    return {
        "meta": tagged(version_tag(report), security=codes.asserted_by_ai()),
        "device": entry_reference(report, "Device", part),
        "valueCodeableConcept": codes.dicom_concept(finding.code, finding.label),
        "note": [Annotation(text=note)],
        "component": [
            ObservationComponent(
                code=codes.dicom_concept(it.code, it.label),
                valueQuantity=probability(it.probability),
            )
            for it in reading.probabilities
        ],
    }


def _by_doctor(report: SignedReport) -> dict[str, Any]:
    finding = report.finding
    by_doctor: dict[str, Any] = {
        "meta": tagged(version_tag(report)),
        "performer": [signer(report.doctor)],
    }
    if finding is None:
        unknown = codes.concept(f"{codes.TERMINOLOGY}/data-absent-reason", "unknown", "Unknown")
        unknown.text = UNINTERPRETABLE
        return by_doctor | {"dataAbsentReason": unknown}
    value = codes.dicom_concept(finding.code, printable(finding.text))
    return by_doctor | {"valueCodeableConcept": value}


def diagnostic_report(report: SignedReport, site: Site, pdf: bytes) -> DiagnosticReport:
    """Return the report with its PDF inside.

    ``performer`` is the department; ``resultsInterpreter`` is the doctor alone.
    """
    return DiagnosticReport(
        meta=tagged(version_tag(report)),
        identifier=[Identifier(system=codes.REPORT_SYSTEM, value=str(report.case_id))],
        basedOn=order(report),
        status=status(report),
        category=[codes.radiology()],
        code=_report_code(report),
        subject=entry_reference(report, "Patient"),
        effectiveDateTime=_effective(report),
        issued=_issued(report),
        performer=[department(site)],
        resultsInterpreter=[signer(report.doctor)],
        result=[
            entry_reference(report, "Observation", part)
            for part in [report.part_of(each) for each in report.agreed_readings] or [""]
        ],
        imagingStudy=[entry_reference(report, "ImagingStudy")],
        conclusion=printable(report.conclusion),
        conclusionCode=_conclusion_code(report),
        presentedForm=[_attachment(report, pdf)],
    )


def document_reference(report: SignedReport, site: Site, pdf: bytes) -> DocumentReference:
    """Return the PDF as a document of the chart."""
    return DocumentReference(
        meta=tagged(version_tag(report)),
        masterIdentifier=Identifier(system=codes.DOCUMENT_SYSTEM, value=str(report.case_id)),
        identifier=[Identifier(system=codes.DOCUMENT_SYSTEM, value=str(report.case_id))],
        status="current",
        docStatus=status(report),
        type=_report_code(report),
        category=[codes.radiology()],
        subject=entry_reference(report, "Patient"),
        date=_issued(report),
        author=[signer(report.doctor)],
        authenticator=signer(report.admin),
        custodian=department(site),
        description="Imaging report",
        content=[DocumentReferenceContent(attachment=_attachment(report, pdf))],
        context=DocumentReferenceContext(
            related=[
                entry_reference(report, "ImagingStudy"),
                entry_reference(report, "DiagnosticReport"),
            ]
        ),
    )


def status(report: SignedReport) -> str:
    """Return the status of report, finding and document.

    R4 defines ``amended`` as "subsequent to being final, the report has been modified": so the
    first report of a case is ``final``, whatever version of the study it is about.
    """
    return "amended" if report.amends else "final"


def _effective(report: SignedReport) -> str:
    """Return when the study was made; where that is not known, when the doctor read it."""
    read_at = report.doctor.signed_at.astimezone(UTC)
    return study_time(report.study.started) or read_at.isoformat(timespec="seconds")


def _issued(report: SignedReport) -> str:
    """Return when the last signature was given: nothing leaves before it."""
    return report.admin.signed_at.astimezone(UTC).isoformat(timespec="milliseconds")


def _report_code(report: SignedReport) -> CodeableConcept:
    code = codes.diagnostic_imaging_study()
    code.text = printable(report.study.description) or None
    return code


def _conclusion_code(report: SignedReport) -> list[CodeableConcept] | None:
    finding = report.finding
    if finding is None or finding.code is None:
        return None
    return [codes.dicom_concept(finding.code, finding.text)]


def _attachment(report: SignedReport, pdf: bytes) -> Attachment:
    # R4 Attachment.hash is SHA-1 by definition.
    digest = hashlib.sha1(pdf, usedforsecurity=False).digest()
    return Attachment(
        contentType="application/pdf",
        language="en",
        data=base64.b64encode(pdf).decode(),
        size=len(pdf),
        hash=base64.b64encode(digest).decode(),
        title="Imaging report",
        creation=_issued(report),
    )
