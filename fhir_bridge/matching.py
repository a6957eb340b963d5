"""How a resource is found again at the EHR, so that nothing is made twice (R4 http §3.1.0.11)."""

from typing import Any
from urllib.parse import quote

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.coding import Coding
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.meta import Meta

from fhir_bridge.codes import (
    DICOM_UID_SYSTEM,
    EVENT_TAG_SYSTEM,
    MATCHING_SYSTEM,
    TERMINOLOGY,
    VERSION_TAG_SYSTEM,
)
from fhir_bridge.signed_report import SignedReport
from message_contracts.identifiers import derived_id

_SEPARATORS = frozenset("|,$\\")
"""They divide the parts of a search value; servers disagree on how they are escaped."""


def findable(identifier: Identifier) -> list[Identifier]:
    """Return the identifier, after one of our own where a search could not carry its value."""
    value = str(identifier.value)
    if not _SEPARATORS & set(value):
        return [identifier]
    derived = derived_id("matching", identifier.system, value)
    return [Identifier(system=MATCHING_SYSTEM, value=str(derived)), identifier]


def search_by(identifier: Identifier) -> str:
    """Return the search that finds what bears this identifier."""
    return f"identifier={_token(str(identifier.system), str(identifier.value))}"


def search_by_tag(tag: Coding) -> str:
    """Return the search that finds what bears this tag."""
    return f"_tag={_token(str(tag.system), str(tag.code))}"


def _token(system: str, value: str) -> str:
    return f"{quote(system, safe=':/.-_~')}|{quote(value, safe=':/.-_~')}"


def uid_identifier(uid: str) -> Identifier:
    """Return a DICOM UID as FHIR identifies by it (R4 ImagingStudy §8.14.3)."""
    return Identifier(system=DICOM_UID_SYSTEM, value=f"urn:oid:{uid}")


def accession_identifier(accession_number: str) -> Identifier:
    """Return an accession number, type ACSN of HL7 v2 table 0203."""
    kind = Coding(system=f"{TERMINOLOGY}/v2-0203", code="ACSN", display="Accession ID")
    return Identifier(type=CodeableConcept(coding=[kind]), value=accession_number)


def version_tag(report: SignedReport) -> Coding:
    """Return the tag of everything that this version of a report files."""
    return Coding(system=VERSION_TAG_SYSTEM, code=f"{report.case_id}.v{report.version}")


def newest_version(resource: dict[str, Any], report: SignedReport) -> int:
    """Return the newest version of this case that has written to a resource; 0 if none.

    Some servers keep earlier tags when a resource is updated.
    """
    prefix = f"{report.case_id}.v"
    versions = [
        int(code.removeprefix(prefix))
        for tag in resource.get("meta", {}).get("tag", [])
        if tag.get("system") == VERSION_TAG_SYSTEM
        and (code := str(tag.get("code", ""))).startswith(prefix)
        and code.removeprefix(prefix).isdigit()
    ]
    return max(versions, default=0)


def event_tag(report: SignedReport, event: str) -> Coding:
    """Return the tag by which the Provenance of one event of this version is found."""
    event_id = derived_id("fhir-event", report.case_id, report.version, event)
    return Coding(system=EVENT_TAG_SYSTEM, code=str(event_id))


def tagged(*tags: Coding, security: Coding | None = None) -> Meta:
    """Return the meta of a resource with these tags."""
    return Meta(tag=list(tags), security=None if security is None else [security])
