"""How soon a study is to be read.

A person may say so. Else the sender does: by its entry, or by the priority that it gave an image.
"""

from sqlalchemy import Connection, or_, select

from imaging_store.schema.administration import application_entity
from imaging_store.schema.ingest import instance
from imaging_store.schema.workflow import intervention
from message_contracts.identifiers import case_id_of
from message_contracts.inference import Urgency
from workflow_engine.signing import Act


def of_study(connection: Connection, study_instance_uid: str) -> Urgency:
    """Return ``URGENT`` where a person, a sender's entry or the priority of an image says so."""
    said = connection.execute(
        select(intervention.c.id)
        .where(
            intervention.c.case_id == case_id_of(study_instance_uid),
            intervention.c.act == Act.URGENCY,
        )
        .limit(1)
    ).first()
    sent = (
        said
        or connection.execute(
            select(instance.c.sop_instance_uid)
            .outerjoin(
                application_entity, application_entity.c.ae_title == instance.c.calling_ae_title
            )
            .where(
                instance.c.study_instance_uid == study_instance_uid,
                instance.c.excluded_at.is_(None),
                or_(instance.c.urgent, application_entity.c.urgency == Urgency.URGENT),
            )
            .limit(1)
        ).first()
    )
    return Urgency.ROUTINE if sent is None else Urgency.URGENT
