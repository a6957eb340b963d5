"""Who was examined, what was examined, and with what: Patient, ImagingStudy, Device."""

import re

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.device import Device, DeviceDeviceName, DeviceProperty, DeviceVersion
from fhir.resources.R4B.extension import Extension
from fhir.resources.R4B.humanname import HumanName
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.patient import Patient
from fhir.resources.R4B.quantity import Quantity

from fhir_bridge import codes
from fhir_bridge.matching import accession_identifier, findable, uid_identifier
from fhir_bridge.person_name import PersonName, person_names
from fhir_bridge.references import entry_reference, order
from fhir_bridge.signed_report import Reading, SignedReport
from fhir_bridge.text import calendar_date, printable, study_time

_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_GENDERS = {"M": "male", "F": "female", "O": "other"}
_CODE_STRING = re.compile(r"[A-Z0-9_]{1,16}")


def patient(report: SignedReport, systems: dict[str, str]) -> Patient:
    """Return the patient, known by id and issuer.

    ``systems`` maps an issuer to the identifier system by which the EHR knows its patients.
    """
    identity = report.patient
    patient_id = printable(identity.patient_id)
    if patient_id:
        system = systems.get(identity.issuer) or codes.issuer_system(printable(identity.issuer))
        identifier = Identifier(system=system, value=patient_id)
    else:
        # An empty id is the same for many: the patient of this one case, then.
        identifier = Identifier(system=codes.REPORT_SYSTEM, value=str(report.case_id))
    birth_date = calendar_date(identity.birth_date)
    names = [_human_name(name) for name in person_names(printable(identity.name))]
    sex = printable(identity.sex)
    return Patient(
        identifier=findable(identifier),
        name=names or None,
        gender=_GENDERS.get(sex, "unknown") if sex else None,
        birthDate=birth_date or None,
    )


def _human_name(name: PersonName) -> HumanName:
    extension = Extension(url=_REPRESENTATION, valueCode=name.representation)
    return HumanName(
        extension=None if name.representation == "ABC" else [extension],
        text=name.text,
        family=name.family or None,
        given=list(name.given) or None,
        prefix=[name.prefix] if name.prefix else None,
        suffix=[name.suffix] if name.suffix else None,
    )


def imaging_study(report: SignedReport) -> ImagingStudy:
    """Return the study, known by its Study Instance UID."""
    study = report.study
    accession_number = printable(study.accession_number)
    accession = [accession_identifier(accession_number)] if accession_number else []
    modalities = [codes.modality(it) for it in study.modalities if _CODE_STRING.fullmatch(it)]
    return ImagingStudy(
        identifier=[*findable(uid_identifier(study.study_instance_uid)), *accession],
        status="available",
        modality=modalities or None,
        subject=entry_reference(report, "Patient"),
        started=study_time(study.started) or None,
        basedOn=order(report),
        description=printable(study.description) or None,
    )


def device(reading: Reading) -> Device:
    """Return the model version, known by its device UID, with what it was made of."""
    digest = DeviceVersion(
        type=CodeableConcept(text="SHA-256 of the weights"), value=reading.weights_sha256
    )
    return Device(
        identifier=[uid_identifier(reading.device_uid)],
        status="active",
        deviceName=[DeviceDeviceName(name=reading.model_name, type="model-name")],
        type=CodeableConcept(text="Artificial intelligence for medical images"),
        version=[
            DeviceVersion(type=CodeableConcept(text="Model"), value=reading.model_version),
            digest,
        ],
        property=[
            DeviceProperty(
                type=CodeableConcept(text="Uncertain below this probability"),
                valueQuantity=[probability(reading.uncertain_below)],
            )
        ],
    )


def probability(value: float) -> Quantity:
    """Return a probability as a quantity, to six decimals."""
    return Quantity(value=round(value, 6), unit="probability", system=codes.UCUM, code="1")
