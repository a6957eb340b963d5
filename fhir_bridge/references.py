"""References: to other entries of the Bundle, and to people, order and department by identifier."""

from dataclasses import dataclass

from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.reference import Reference

from fhir_bridge.codes import DEPARTMENT_SYSTEM, USER_SYSTEM
from fhir_bridge.matching import accession_identifier
from fhir_bridge.signed_report import Signature, SignedReport
from fhir_bridge.text import printable
from message_contracts.identifiers import derived_id


@dataclass(frozen=True, slots=True)
class Site:
    """Who reports."""

    institution: str
    department: str

    @property
    def display(self) -> str:
        """The department with its institution."""
        return ", ".join(part for part in (self.department, self.institution) if part)


def full_url(report: SignedReport, resource_type: str, part: str = "") -> str:
    """Return the URL by which entries of one Bundle refer to each other."""
    return f"urn:uuid:{derived_id('fhir', report.case_id, report.version, resource_type, part)}"


def entry_reference(report: SignedReport, resource_type: str, part: str = "") -> Reference:
    """Return a reference to another entry of the same Bundle."""
    return Reference(reference=full_url(report, resource_type, part), type=resource_type)


def signer(signature: Signature) -> Reference:
    """Return the person who signed: known by identifier, never created at the EHR."""
    return Reference(
        type="Practitioner",
        identifier=Identifier(system=USER_SYSTEM, value=str(signature.user_id)),
        display=printable(signature.printed_name),
    )


def department(site: Site) -> Reference:
    """Return the imaging department that performed the report."""
    own_id = derived_id("department", site.institution, site.department)
    return Reference(
        type="Organization",
        identifier=Identifier(system=DEPARTMENT_SYSTEM, value=str(own_id)),
        display=site.display,
    )


def order(report: SignedReport) -> list[Reference] | None:
    """Return the order, known by its accession number; None where the study has none."""
    accession_number = printable(report.study.accession_number)
    if not accession_number:
        return None
    identifier = accession_identifier(accession_number)
    return [Reference(type="ServiceRequest", identifier=identifier, display="Imaging order")]
