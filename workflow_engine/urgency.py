"""How soon a study is to be read: as the entry of a system that sent of it says."""

from sqlalchemy import Connection, select

from imaging_store.schema.administration import application_entity
from imaging_store.schema.ingest import instance
from message_contracts.inference import Urgency


def of_study(connection: Connection, study_instance_uid: str) -> Urgency:
    """Return ``URGENT`` where any image of the study came from an urgent application entity."""
    urgent = connection.execute(
        select(instance.c.sop_instance_uid)
        .join(application_entity, application_entity.c.ae_title == instance.c.calling_ae_title)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.excluded_at.is_(None),
            application_entity.c.urgency == Urgency.URGENT,
        )
        .limit(1)
    ).first()
    return Urgency.ROUTINE if urgent is None else Urgency.URGENT
