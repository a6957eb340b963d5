"""What rules are held against: the registered models, and the instances of a stored study."""

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection, select

from imaging_store.model_registry import ModelState, registered_models
from imaging_store.schema.ingest import instance, study
from message_contracts.applicability import ApplicabilityRule, InstanceAttributes
from message_contracts.patient_age import age_in_years
from workflow_engine.routing import Explanation, RoutableInstance, RoutableModel, explain

_LOG = structlog.get_logger()


def models(connection: Connection) -> tuple[RoutableModel, ...]:
    """Return the models that are asked, and those that read in their shadow.

    A rule that this release does not understand is passed over and logged: the other models serve
    on.
    """
    found = []
    for each in registered_models(connection):
        if each.state is ModelState.INACTIVE:
            continue
        try:
            rule = ApplicabilityRule.model_validate(each.description.get("applies_to"))
        except ValidationError as error:
            faults = [".".join(map(str, fault["loc"])) for fault in error.errors()]
            _LOG.error(
                "model.not_routable",
                model=each.reference.name,
                model_version=each.reference.version,
                faults=[f"applies_to.{fault}" for fault in faults],
            )
            continue
        shadow = each.state is ModelState.SHADOW
        found.append(RoutableModel(each.reference, rule, shadow))
    return tuple(found)


def instances(
    connection: Connection, study_instance_uid: str, study_version: int | None = None
) -> tuple[RoutableInstance, ...]:
    """Return the images of a study version and of those before it, in the order of a reader.

    Without a version, all that are there now.
    """
    query = (
        select(instance, study.c.patient_age, study.c.patient_birth_date, study.c.started)
        .join(study, study.c.study_instance_uid == instance.c.study_instance_uid)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.makes_version,
            instance.c.excluded_at.is_(None),
        )
        .order_by(
            instance.c.series_instance_uid, instance.c.instance_number, instance.c.sop_instance_uid
        )
    )
    if study_version is not None:
        query = query.where(instance.c.study_version <= study_version)
    return tuple(
        RoutableInstance(
            row.sop_instance_uid,
            InstanceAttributes(
                modality=row.modality or None,
                body_part_examined=row.body_part_examined or None,
                sop_class_uid=row.sop_class_uid or None,
                view_position=row.view_position or None,
                view_code=row.view_code or None,
                image_type=tuple(row.image_type),
                laterality=row.laterality or None,
                series_description=row.series_description or None,
                calling_ae_title=row.calling_ae_title or None,
                patient_age_years=age_in_years(
                    row.patient_age, row.patient_birth_date, row.started
                ),
            ),
        )
        for row in connection.execute(query)
    )


def explain_study(
    connection: Connection, study_instance_uid: str
) -> tuple[Explanation, ...] | None:
    """Say of every model what it would read of a stored study as it is now, and why.

    ``None`` where there is no such study.
    """
    known = select(study.c.study_instance_uid).where(
        study.c.study_instance_uid == study_instance_uid
    )
    if connection.execute(known).first() is None:
        return None
    return explain(models(connection), instances(connection, study_instance_uid))
