"""What three people have signed: everything the report says, and nothing that is not signed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from fhir_bridge.text import printable
from message_contracts.case import Stage
from message_contracts.coding import CodedConcept
from message_contracts.inference import ClassProbability
from service_runtime.errors import PermanentError

UNINTERPRETABLE = "The images cannot be interpreted."
"""The conclusion where a doctor could not read the study."""


class NotSigned(PermanentError):
    """A signature is missing, or does not say what it must: nothing may leave."""


class Decision(StrEnum):
    """What the doctor made of the study."""

    AGREE = "agree"
    OVERRIDE = "override"
    UNINTERPRETABLE = "uninterpretable"


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """Who was examined. The identity is ``patient_id`` together with ``issuer``."""

    patient_id: str
    """(0010,0020); empty where the source has none."""
    issuer: str
    """(0010,0021), or what stands for it at this site."""
    name: str = ""
    """(0010,0010) with its component groups."""
    birth_date: str = ""
    """(0010,0030), VR DA."""
    sex: str = ""
    """(0010,0040)."""


@dataclass(frozen=True, slots=True)
class Study:
    """What was examined, and when."""

    study_instance_uid: str
    accession_number: str = ""
    description: str = ""
    started: str = ""
    """ISO 8601: a date where the source has no time, else date, time and offset; may be empty."""
    modalities: tuple[str, ...] = ()
    """(0008,0060) of its series, such as ``DX``."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The model's word, with all that is needed to question it."""

    model_name: str
    model_version: str
    device_uid: str
    weights_sha256: str
    uncertain_below: float
    uncertain: bool
    probabilities: tuple[ClassProbability, ...]
    """Every class, most probable first."""
    heatmap_key: str
    source_key: str
    read_at: datetime

    @property
    def finding(self) -> ClassProbability:
        """The most probable class. Where ``uncertain`` it is no finding."""
        return self.probabilities[0]


@dataclass(frozen=True, slots=True)
class Signature:
    """One person's electronic signature, as it is printed (21 CFR 11.50)."""

    stage: Stage
    user_id: UUID
    printed_name: str
    role: str
    meaning: str
    signed_at: datetime
    notes: str = ""
    decision: Decision | None = None
    """The doctor's alone."""
    finding: str = ""
    """The doctor's own finding, where they overrode."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the doctor stands behind: in words, and coded where a code is known."""

    text: str
    code: CodedConcept | None = None


@dataclass(frozen=True, slots=True)
class SignedReport:
    """One version of one case with the signatures in force.

    Raises
    ------
    NotSigned
        A signature is missing, is of another stage, one person signed twice, or the doctor's
        decision is not one that may be signed.
    """

    case_id: UUID
    version: int
    amends: bool
    """A report of an earlier version of this case has been final."""
    patient: PatientIdentity
    study: Study
    reading: Reading | None
    """None where no model read the study, or the model failed; of several, one that found
    something."""
    doctor: Signature
    pharmacist: Signature
    admin: Signature
    others: tuple[Reading, ...] = ()
    """What other models have read of the same version."""
    withdrawn: tuple[str, ...] = ()
    """Models whose findings an earlier report of the case stood behind, beside the first, and this
    one does not; the EHR may never have had them."""

    def __post_init__(self) -> None:
        _require_signatures(self)
        _require_decision(self)

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The signatures in the order in which they were given."""
        return (self.doctor, self.pharmacist, self.admin)

    @property
    def decision(self) -> Decision:
        """The doctor's decision."""
        assert self.doctor.decision is not None  # noqa: S101 - __post_init__ has seen to it
        return self.doctor.decision

    @property
    def agreed_readings(self) -> tuple[Reading, ...]:
        """What models have found where the doctor agreed; empty where the finding is their own."""
        if self.decision is not Decision.AGREE or self.reading is None:
            return ()
        return (self.reading, *self.further_findings)

    @property
    def further_findings(self) -> tuple[Reading, ...]:
        """What other models have found: agreeing, a doctor agrees with all of them."""
        return tuple(each for each in self.others if not each.uncertain)

    def part_of(self, reading: Reading) -> str:
        """Return what tells the resources of a reading from those of others; the first's is empty.

        The first is what the case's finding is known by, whichever model's it is, or the doctor's.
        """
        return "" if reading is self.reading else reading.model_name

    @property
    def finding(self) -> Finding | None:
        """What the doctor stands behind; None where the study is uninterpretable.

        A doctor's own finding that is a class of the model has that class's code.
        """
        if self.decision is Decision.UNINTERPRETABLE:
            return None
        if agreed := self.agreed_readings:
            labels = dict.fromkeys(each.finding.label for each in agreed)
            # One code cannot say what several models found.
            return Finding("; ".join(labels), agreed[0].finding.code if len(labels) == 1 else None)
        own = printable(self.doctor.finding)
        classes = () if self.reading is None else self.reading.probabilities
        codes = (it.code for it in classes if it.label.casefold() == own.casefold())
        return Finding(own, next(codes, None))

    @property
    def conclusion(self) -> str:
        """The doctor's conclusion: the finding, then the notes."""
        headline = UNINTERPRETABLE if self.finding is None else self.finding.text
        notes = printable(self.doctor.notes)
        return f"{headline}\n{notes}" if notes else headline


def _require_signatures(report: SignedReport) -> None:
    expected = dict(zip(Stage, report.signatures, strict=True))
    for stage, signature in expected.items():
        if signature.stage is not stage:
            raise NotSigned(f"the {stage}'s signature is that of another stage")
        if signature.signed_at.tzinfo is None:
            raise NotSigned(f"the {stage}'s signature has a time without a zone")
        if not printable(signature.printed_name) or not printable(signature.meaning):
            raise NotSigned(f"the {stage}'s signature has no printed name or no meaning")
    if len({signature.user_id for signature in expected.values()}) < len(expected):
        raise NotSigned("one person has signed two stages")


def _require_decision(report: SignedReport) -> None:
    decision = report.doctor.decision
    if decision is None:
        raise NotSigned("the doctor's signature has no decision")
    if decision is Decision.AGREE and (report.reading is None or report.reading.uncertain):
        raise NotSigned("the doctor agreed where the model has no finding")
    if decision is Decision.OVERRIDE and not printable(report.doctor.finding):
        raise NotSigned("the doctor overrode without a finding")
    if decision is not Decision.AGREE and not printable(report.doctor.notes):
        raise NotSigned("the doctor's notes are missing")
