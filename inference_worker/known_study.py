"""What a study is known by, where its instances do not agree on whose it is."""

from sqlalchemy import Connection, bindparam, exists, select

from imaging_store.schema.ingest import conflict, study

_ABOUT_PATIENT_OR_ORDER = ("identity", "update")
_KEYWORDS = {
    "PatientID": study.c.patient_id,
    "IssuerOfPatientID": study.c.issuer_of_patient_id,
    "PatientName": study.c.patient_name,
    "PatientBirthDate": study.c.patient_birth_date,
    "PatientSex": study.c.patient_sex,
    "AccessionNumber": study.c.accession_number,
    "StudyID": study.c.study_id,
    "StudyDescription": study.c.study_description,
    "ReferringPhysicianName": study.c.referring_physician_name,
}


def known_as(connection: Connection, study_instance_uid: str) -> dict[str, str] | None:
    """Return what results are to carry instead of what their source says; ``None``: the source's.

    That is so from the first contradiction on, whatever a person decides about it: the source may
    be the instance that named another patient.
    """
    row = connection.execute(_KNOWN_AS, {"uid": study_instance_uid}).first()
    return None if row is None else row._asdict()


_CONTRADICTED = exists().where(
    conflict.c.study_instance_uid == study.c.study_instance_uid,
    conflict.c.kind.in_(_ABOUT_PATIENT_OR_ORDER),
)
_KNOWN_AS = select(*(column.label(keyword) for keyword, column in _KEYWORDS.items())).where(
    study.c.study_instance_uid == bindparam("uid"), _CONTRADICTED
)
