"""Who said what, and who signed it: the two Provenance of a report."""

from datetime import UTC, datetime

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.coding import Coding
from fhir.resources.R4B.provenance import Provenance, ProvenanceAgent, ProvenanceEntity
from fhir.resources.R4B.signature import Signature as FhirSignature

from fhir_bridge import codes
from fhir_bridge.matching import event_tag, tagged, version_tag
from fhir_bridge.references import Site, department, entry_reference, signer
from fhir_bridge.signed_report import Reading, Signature, SignedReport
from fhir_bridge.text import printable

READ = "read"
SIGNED = "signed"


def read_event(part: str) -> str:
    """Return what the event is called that a reading's Provenance tells of."""
    return f"{READ} {part}".rstrip()


def reading_provenance(report: SignedReport, reading: Reading) -> Provenance:
    """Return that the model is the author of its Observation."""
    part = report.part_of(reading)
    return Provenance(
        meta=tagged(
            event_tag(report, read_event(part)),
            version_tag(report),
            security=codes.asserted_by_ai(),
        ),
        target=[entry_reference(report, "Observation", part)],
        occurredDateTime=_instant(reading.read_at),
        recorded=_instant(reading.read_at),
        reason=[CodeableConcept(coding=[codes.asserted_by_ai()])],
        activity=codes.concept(f"{codes.TERMINOLOGY}/v3-DataOperation", "CREATE", "create"),
        agent=[
            ProvenanceAgent(
                type=codes.participant("author"), who=entry_reference(report, "Device", part)
            )
        ],
        entity=[_source(report)],
    )


def report_provenance(report: SignedReport, site: Site) -> Provenance:
    """Return who wrote and who verified the report, with one signature each.

    The doctor is the author, also of the Observation where that is the doctor's own.
    """
    own = [] if report.agreed_readings else [entry_reference(report, "Observation")]
    return Provenance(
        meta=tagged(event_tag(report, SIGNED), version_tag(report)),
        target=[
            entry_reference(report, "DiagnosticReport"),
            entry_reference(report, "DocumentReference"),
            *own,
        ],
        occurredDateTime=_instant(report.admin.signed_at),
        recorded=_instant(report.admin.signed_at),
        activity=codes.concept(
            f"{codes.TERMINOLOGY}/v3-DocumentCompletion", "LA", "legally authenticated"
        ),
        agent=[_agent(report, signature, site) for signature in report.signatures],
        entity=[_source(report)],
        signature=[
            FhirSignature(
                type=[_purpose(report, signature)],
                when=_instant(signature.signed_at),
                who=signer(signature),
                onBehalfOf=department(site),
            )
            for signature in report.signatures
        ],
    )


def _agent(report: SignedReport, signature: Signature, site: Site) -> ProvenanceAgent:
    part = "author" if signature is report.doctor else "verifier"
    return ProvenanceAgent(
        type=codes.participant(part),
        role=[CodeableConcept(text=printable(f"{signature.stage}: {signature.meaning}"))],
        who=signer(signature),
        onBehalfOf=department(site),
    )


def _purpose(report: SignedReport, signature: Signature) -> Coding:
    if signature is report.doctor:
        return codes.author_signature()
    return codes.verification_signature()


def _source(report: SignedReport) -> ProvenanceEntity:
    return ProvenanceEntity(role="source", what=entry_reference(report, "ImagingStudy"))


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
