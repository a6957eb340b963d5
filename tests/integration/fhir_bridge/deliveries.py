"""Reports as the tests deliver them, and what the EHR then holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from typing_extensions import override

from fhir_bridge.bundle import SentBundle, transaction
from fhir_bridge.client import FhirClient
from fhir_bridge.deliver import to_server
from fhir_bridge.signed_report import SignedReport
from message_contracts.delivery import ResourceOutcome
from tests.peers.fhir import FhirServer
from tests.unit.fhir_bridge.reports import READING, SITE, SYSTEMS, a_report

PDF = b"%PDF-1.7 a report"
KINDS = {
    "Patient": 1,
    "ImagingStudy": 1,
    "Device": 1,
    "Observation": 1,
    "DiagnosticReport": 1,
    "DocumentReference": 1,
    "Provenance": 2,
}


LOOK_UPS = 3
"""What is looked up of a report with one finding: report, finding and document."""

BONES = replace(READING, model_name="bones", device_uid="2.25.9")
FIRST = replace(a_report(), others=(BONES,))
"""Of two models: it is sent in two parts."""


def bundle_of(report: SignedReport) -> SentBundle:
    """Return what is sent of a report."""
    return transaction(report, SITE, PDF, SYSTEMS)


def deliver(client: FhirClient, report: SignedReport) -> tuple[ResourceOutcome, ...]:
    """Deliver as a service does."""
    return to_server(client, report, bundle_of(report))


def held_by(ehr: FhirServer) -> dict[str, int]:
    """Count what the EHR has of each kind."""
    return {kind: len(ehr.search(kind, _count="1000")) for kind in KINDS}


def posts(ehr: FhirServer) -> int:
    """Count the transactions that the EHR was sent."""
    return sum(asked["method"] == "POST" for asked in ehr.requests())


def the_report(ehr: FhirServer) -> dict[str, Any]:
    """Return the one report that the EHR has."""
    [report] = ehr.search("DiagnosticReport")
    return report


class OvertakenClient(FhirClient):
    """A client that another delivery overtakes just before it sends its first or a later part."""

    def __init__(self, url: str, *, before: int, overtake: Callable[[], object]) -> None:
        super().__init__(url, timeout_s=20)
        self._parts = 0
        self._before = before
        self._overtake = overtake

    @override
    def transact(self, bundle: dict[str, Any]) -> tuple[ResourceOutcome, ...]:
        self._parts += 1
        if self._parts == self._before:
            self._overtake()
        return super().transact(bundle)
