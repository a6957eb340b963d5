"""The report as people read it: one PDF (PDF/UA-1, A4), the same bytes for the same report."""

import base64
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from weasyprint import HTML
from weasyprint.urls import URLFetcher

from fhir_bridge.person_name import person_names
from fhir_bridge.references import Site
from fhir_bridge.report_resources import NOT_FOR_PRIMARY_DIAGNOSIS
from fhir_bridge.signed_report import UNINTERPRETABLE, Decision, Reading, SignedReport
from fhir_bridge.text import calendar_date, printable, study_time
from message_contracts.identifiers import derived_id

_SEXES = {"M": "male", "F": "female", "O": "other"}
_PICTURE_DPI = 200


@dataclass(frozen=True, slots=True)
class Pictures:
    """What the worker has rendered: two PNGs of the same size."""

    source: bytes
    heatmap: bytes


def render(report: SignedReport, site: Site, pictures: Pictures | None, zone: ZoneInfo) -> bytes:
    """Return the PDF of a signed report; times are printed in ``zone``."""
    environment = Environment(
        loader=PackageLoader("fhir_bridge", "."), autoescape=True, undefined=StrictUndefined
    )
    html = environment.get_template("report.html").render(_facts_of(report, site, pictures, zone))
    _silence_weasyprint()
    pdf: bytes = HTML(string=html, url_fetcher=URLFetcher(allowed_protocols=("data",))).write_pdf(
        pdf_identifier=derived_id("pdf", report.case_id, report.version).bytes,
        pdf_variant="pdf/ua-1",
        dpi=_PICTURE_DPI,
    )
    return pdf


def _silence_weasyprint() -> None:
    # Its warnings quote the document, and that names a patient.
    for name in ("weasyprint", "fontTools"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _facts_of(
    report: SignedReport, site: Site, pictures: Pictures | None, zone: ZoneInfo
) -> dict[str, Any]:
    finding = report.finding
    return {
        "not_for_primary_diagnosis": NOT_FOR_PRIMARY_DIAGNOSIS,
        "site": site,
        "running": _running(report),
        "zone": zone.key,
        "case_id": report.case_id,
        "version": report.version,
        "status": "Amended report" if report.amends else "Final report",
        "created": report.admin.signed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "issued": _time(report.admin.signed_at, zone),
        "facts": [("Patient", _patient(report)), ("Study", _study(report))],
        "conclusion": UNINTERPRETABLE if finding is None else printable(finding.text),
        "doctor_notes": printable(report.doctor.notes),
        "doctor_name": printable(report.doctor.printed_name),
        "doctor_time": _time(report.doctor.signed_at, zone),
        "pharmacist_notes": printable(report.pharmacist.notes),
        "signatures": [
            {
                "name": printable(signature.printed_name),
                "role": printable(signature.role),
                "meaning": printable(signature.meaning),
                "time": _time(signature.signed_at, zone),
            }
            for signature in report.signatures
        ],
        "agreed": report.decision is Decision.AGREE,
        "verdict": ("", "") if report.reading is None else _verdict(report, report.reading),
        "reading": None if report.reading is None else _reading(report, report.reading, zone),
        "pictures": None
        if pictures is None
        else {"source": _data_url(pictures.source), "heatmap": _data_url(pictures.heatmap)},
    }


def _running(report: SignedReport) -> str:
    """Return the line that says on every further page whose report it is."""
    identity = report.patient
    names = person_names(printable(identity.name))
    parts = (
        names[0].text if names else "",
        calendar_date(identity.birth_date),
        printable(identity.patient_id),
        "imaging report (continued)",
    )
    return " · ".join(part for part in parts if part)


def _patient(report: SignedReport) -> list[tuple[str, str]]:
    identity = report.patient
    names = [name.text for name in person_names(printable(identity.name))]
    sex = printable(identity.sex)
    return [
        ("Name", " / ".join(names)),
        ("Date of birth", calendar_date(identity.birth_date)),
        ("Sex", _SEXES.get(sex, "unknown") if sex else ""),
        ("Patient ID", printable(identity.patient_id)),
        ("Issuer of patient ID", printable(identity.issuer)),
    ]


def _study(report: SignedReport) -> list[tuple[str, str]]:
    study = report.study
    return [
        ("Examination", printable(study.description)),
        ("Modality", ", ".join(printable(it) for it in study.modalities)),
        ("Started", _as_printed(study_time(study.started))),
        ("Accession number", printable(study.accession_number)),
        ("Study Instance UID", study.study_instance_uid),
    ]


def _reading(report: SignedReport, reading: Reading, zone: ZoneInfo) -> dict[str, Any]:
    return {
        "uncertain": reading.uncertain,
        "finding": printable(reading.finding.label),
        "rows": [
            {
                "label": printable(it.label),
                "percent": f"{it.probability:.1%}",
                "width": f"{100 * it.probability:.1f}",
            }
            for it in reading.probabilities
        ],
        "facts": [
            (
                "Model",
                f"{printable(reading.model_name)}, version {printable(reading.model_version)}",
            ),
            ("Read at", _time(reading.read_at, zone)),
            ("Uncertain below", f"{reading.uncertain_below:.1%}"),
            ("Device UID", reading.device_uid),
            ("Weights (SHA-256)", reading.weights_sha256),
            *(("Also read by", _other(each)) for each in report.others),
        ],
    }


def _other(reading: Reading) -> str:
    """Return in one line what another model has read."""
    foremost = f"{printable(reading.finding.label)}, {reading.finding.probability:.1%}"
    found = f"uncertain (most probable: {foremost})" if reading.uncertain else foremost
    return f"{printable(reading.model_name)}, version {printable(reading.model_version)}: {found}"


def _verdict(report: SignedReport, reading: Reading) -> tuple[str, str]:
    """Return what the model found, and what the doctor made of it."""
    found = (
        "The model was uncertain: no class reached its threshold."
        if reading.uncertain
        else f"{printable(reading.finding.label)}, {reading.finding.probability:.1%}."
    )
    told = "What the model found is told here for the record; it is not a result of this report."
    match report.decision:
        case Decision.AGREE:
            return found, "The doctor agreed with the model."
        case Decision.OVERRIDE if reading.uncertain:
            return found, f"The finding of this report is the doctor's own. {told}"
        case Decision.OVERRIDE:
            return found, f"The doctor overrode the model with a finding of their own. {told}"
        case Decision.UNINTERPRETABLE:
            return found, f"The doctor could not interpret the images. {told}"


def _time(at: datetime, zone: ZoneInfo) -> str:
    return _as_printed(at.astimezone(zone).isoformat(timespec="seconds"))


def _as_printed(iso: str) -> str:
    """Return an ISO 8601 time as people read it; a date stays a date."""
    if "T" not in iso:
        return iso
    at = datetime.fromisoformat(iso)
    offset = at.strftime("%z")
    return f"{at:%Y-%m-%d %H:%M} UTC{offset[:3]}:{offset[3:5]}"


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
