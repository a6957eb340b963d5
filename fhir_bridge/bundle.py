"""The transaction Bundle of one signed report (R4 bundle §2.36, http §3.1.0.11).

Every entry is conditional: sent again, it finds what it made and makes nothing twice. What
belongs to the EHR as much as to us (Patient, ImagingStudy, Device) is only created where it is
missing, never overwritten. What we file (Observation, DiagnosticReport, DocumentReference) is
updated under one identity by every version. A Provenance tells of one event and is created once.
An EHR is sent the updates conditional on what it holds, too: see ``sending``.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from fhir.resources.R4B.bundle import Bundle, BundleEntry, BundleEntryRequest
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.resource import Resource

from fhir_bridge.matching import event_tag, search_by, search_by_tag
from fhir_bridge.provenance import SIGNED, read_event, reading_provenance, report_provenance
from fhir_bridge.references import Site, full_url
from fhir_bridge.report_resources import (
    diagnostic_report,
    document_reference,
    finding_by_doctor,
    findings_by_models,
    withdrawn_finding,
)
from fhir_bridge.signed_report import SignedReport
from fhir_bridge.study_resources import device, imaging_study, patient


@dataclass(frozen=True, slots=True)
class SentBundle:
    """A transaction as it is sent: R4 JSON."""

    resource: dict[str, Any]

    @property
    def json(self) -> bytes:
        """UTF-8, the same for the same report."""
        return json.dumps(self.resource, ensure_ascii=False, separators=(",", ":")).encode()


def transaction(
    report: SignedReport, site: Site, pdf: bytes, patient_id_systems: dict[str, str]
) -> SentBundle:
    """Return the Bundle of a signed report.

    It has at most eight entries, unless the doctor agreed with several models: each more brings
    its Device, Observation and Provenance. See ``splitting`` for engines that take no more.
    """
    bundle = Bundle(
        type="transaction",
        timestamp=report.admin.signed_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        entry=list(_entries(report, site, pdf, patient_id_systems)),
    )
    # Through JSON text: python-mode dumps hold dates and bytes.
    return SentBundle(json.loads(bundle.model_dump_json()))


def _entries(
    report: SignedReport, site: Site, pdf: bytes, patient_id_systems: dict[str, str]
) -> Iterator[BundleEntry]:
    yield _created_once(report, patient(report, patient_id_systems))
    yield _created_once(report, imaging_study(report))
    for reading in report.agreed_readings:
        yield _created_once(report, device(reading), report.part_of(reading))
    for part, finding in findings_by_models(report) or (("", finding_by_doctor(report)),):
        yield _kept_current(report, finding, part)
    for name in report.withdrawn:
        yield _kept_current(report, withdrawn_finding(report, name), name)
    yield _kept_current(report, diagnostic_report(report, site, pdf))
    yield _kept_current(report, document_reference(report, site, pdf))
    for reading in report.agreed_readings:
        event = read_event(report.part_of(reading))
        yield _event(report, event, reading_provenance(report, reading))
    yield _event(report, SIGNED, report_provenance(report, site))


def _created_once(report: SignedReport, resource: Resource, part: str = "") -> BundleEntry:
    kind = resource.get_resource_type()
    request = BundleEntryRequest(
        method="POST", url=kind, ifNoneExist=search_by(_first_identifier(resource))
    )
    return BundleEntry(fullUrl=full_url(report, kind, part), resource=resource, request=request)


def _kept_current(report: SignedReport, resource: Resource, part: str = "") -> BundleEntry:
    kind = resource.get_resource_type()
    request = BundleEntryRequest(
        method="PUT", url=f"{kind}?{search_by(_first_identifier(resource))}"
    )
    return BundleEntry(fullUrl=full_url(report, kind, part), resource=resource, request=request)


def _event(report: SignedReport, event: str, resource: Resource) -> BundleEntry:
    kind = resource.get_resource_type()
    request = BundleEntryRequest(
        method="POST", url=kind, ifNoneExist=search_by_tag(event_tag(report, event))
    )
    return BundleEntry(fullUrl=full_url(report, kind, event), resource=resource, request=request)


def _first_identifier(resource: Any) -> Identifier:
    identifier: Identifier = resource.identifier[0]
    return identifier
