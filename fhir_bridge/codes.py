"""Code systems, codes and identifier systems that the resources use.

Systems of our own are OIDs under 2.25 (X.667), which need no registration.
"""

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.coding import Coding

from fhir_bridge.text import printable
from message_contracts.coding import CodedConcept
from message_contracts.identifiers import derived_uid

LOINC = "http://loinc.org"
DICOM = "http://dicom.nema.org/resources/ontology/DCM"
UCUM = "http://unitsofmeasure.org"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
DICOM_UID_SYSTEM = "urn:dicom:uid"

_SCHEMES = {
    "DCM": DICOM,
    "LN": LOINC,
    "RADLEX": "http://radlex.org",
    "SCT": "http://snomed.info/sct",
    "UCUM": UCUM,
}
"""PS3.16 §8 designator to FHIR system, for the schemes that have one."""


def own_system(name: str) -> str:
    """Return the URI of an identifier system that this product issues."""
    return f"urn:oid:{derived_uid('fhir-system', name)}"


REPORT_SYSTEM = own_system("report")
"""Value: the case id. Every version of a case's report bears it."""
OBSERVATION_SYSTEM = own_system("observation")
"""Value: the case id, of the finding that a case's report stands on. Where a doctor agrees with
several models, the findings of the others have ``<case id>.<model name>``."""
DOCUMENT_SYSTEM = own_system("document")
"""Value: the case id."""
USER_SYSTEM = own_system("user")
"""Value: the id of a person who signed."""
DEPARTMENT_SYSTEM = own_system("department")
MATCHING_SYSTEM = own_system("matching")
"""Value: derived from an identifier that a search cannot carry."""
VERSION_TAG_SYSTEM = own_system("report-version")
"""``meta.tag``; code: ``<case id>.v<version>``. On all that one version of a report filed."""
EVENT_TAG_SYSTEM = own_system("event")
"""``meta.tag``; code: the id of what a Provenance tells of, for Provenance has no identifier."""


def issuer_system(issuer: str) -> str:
    """Return the identifier system that stands for an issuer of patient ids.

    An issuer that is itself a URI stands for itself.
    """
    is_uri = issuer.startswith(("http://", "https://", "urn:")) and not any(
        map(str.isspace, issuer)
    )
    return issuer if is_uri else own_system(f"issuer {issuer}")


def concept(system: str, code: str, display: str, *more: Coding) -> CodeableConcept:
    """Return a concept with one coding, and perhaps translations of it."""
    return CodeableConcept(coding=[Coding(system=system, code=code, display=display), *more])


def dicom_concept(code: CodedConcept | None, text: str) -> CodeableConcept:
    """Return a DICOM coded concept in FHIR; without a known scheme it is text alone."""
    words = printable(text) or None
    system = None if code is None else _SCHEMES.get(code.scheme_designator)
    if code is None or system is None:
        return CodeableConcept(text=words)
    coding = Coding(system=system, code=code.value, display=printable(code.meaning))
    return CodeableConcept(coding=[coding], text=words)


def diagnostic_imaging_study() -> CodeableConcept:
    """Return LOINC's code for a report on any imaging study."""
    return concept(LOINC, "18748-4", "Diagnostic imaging study")


def radiology() -> CodeableConcept:
    """Return the service that reports belong to, in LOINC and in HL7 v2 table 0074."""
    return concept(
        LOINC,
        "LP29684-5",
        "Radiology",
        Coding(system=f"{TERMINOLOGY}/v2-0074", code="RAD", display="Radiology"),
    )


def imaging() -> CodeableConcept:
    """Return the category of an Observation that comes from images."""
    return concept(f"{TERMINOLOGY}/observation-category", "imaging", "Imaging")


def imaging_finding() -> CodeableConcept:
    """Return what an Observation of ours tells: a finding (PS3.16, DCM 121071)."""
    return concept(DICOM, "121071", "Finding")


def asserted_by_ai() -> Coding:
    """Return the security label of what a machine asserted (HL7 v3 ObservationValue)."""
    return Coding(
        system=f"{TERMINOLOGY}/v3-ObservationValue",
        code="AIAST",
        display="Artificial Intelligence asserted",
    )


def modality(code: str) -> Coding:
    """Return a modality (0008,0060) as DICOM's own code."""
    return Coding(system=DICOM, code=code)


def participant(code: str) -> CodeableConcept:
    """Return ``author`` or ``verifier``, the part that somebody had in a thing."""
    return concept(f"{TERMINOLOGY}/provenance-participant-type", code, code.capitalize())


def author_signature() -> Coding:
    """Return the purpose of the signature of who wrote it (ASTM E1762)."""
    return _signature_purpose("1.2.840.10065.1.12.1.1", "Author's Signature")


def verification_signature() -> Coding:
    """Return the purpose of the signature of who verified it (ASTM E1762)."""
    return _signature_purpose("1.2.840.10065.1.12.1.5", "Verification Signature")


def _signature_purpose(code: str, display: str) -> Coding:
    return Coding(system="urn:iso-astm:E1762-95:2013", code=code, display=display)
