"""Which instances are offered to whom: what was received, and what we made of it.

Nothing leaves before its signature: results of the report in force are offered to every user,
those of the version under way only to roles that may sign them. Results of a rejected version,
those that the doctor did not agree with, and those that later images took the place of are offered
to nobody. An instance that was received is offered unless it was excluded or purged; a result that
an archive sent back to us is offered as the result that it is, or not at all.
"""

from collections.abc import Sequence
from typing import Any

from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    String,
    Subquery,
    and_,
    case,
    cast,
    exists,
    false,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
)

from imaging_store.schema.ingest import instance
from imaging_store.schema.results import result_object
from imaging_store.schema.workflow import cases, signature
from message_contracts.case import CaseStatus, Stage

_MAY_SIGN = frozenset(Stage)
"""Roles that may sign, and so may see what is not signed yet: every role that there is."""

_AGREED = "agree"
_MODALITIES = {
    "SR": (Comprehensive3DSRStorage,),
    "OT": (SecondaryCaptureImageStorage, ParametricMapStorage),
}


def instances_offered() -> ColumnElement[bool]:
    """Return what holds of a row of ``instance`` that is offered."""
    is_result = exists().where(result_object.c.sop_instance_uid == instance.c.sop_instance_uid)
    return and_(instance.c.excluded_at.is_(None), instance.c.purged_at.is_(None), ~is_result)


def results_offered(role: str) -> ColumnElement[bool]:
    """Return what holds of rows of ``result_object`` and ``cases``, joined, that are offered."""
    made = result_object.c
    in_force = made.case_version == cases.c.report_version
    under_way = and_(
        made.case_version == cases.c.version,
        cases.c.status.not_in([CaseStatus.REJECTED, CaseStatus.REPORT_READY]),
    )
    overruled = exists().where(
        signature.c.case_id == made.case_id,
        signature.c.case_version == made.case_version,
        signature.c.stage == Stage.DOCTOR,
        signature.c.voided_at.is_(None),
        signature.c.decision != _AGREED,
    )
    visible = or_(in_force, under_way) if role in _MAY_SIGN else in_force
    return and_(cases.c.id == made.case_id, visible, ~overruled)


def results_of_modalities(modalities: Sequence[str]) -> ColumnElement[bool]:
    """Return what holds of a row of ``result_object`` whose modality is one of these."""
    classes = [uid for modality in modalities for uid in _MODALITIES.get(modality, ())]
    return result_object.c.sop_class_uid.in_(classes)


def offered(role: str) -> Subquery:
    """Return all that is offered to a role, received and made, as one table.

    Of results ``series_number``, ``rows`` and the like are empty: they stand in their files.
    """
    received, made = instance.c, result_object.c
    no_number: ColumnElement[Any] = cast(null(), Integer)
    modality = case(
        *((made.sop_class_uid.in_(uids), name) for name, uids in _MODALITIES.items()), else_="OT"
    )
    return union_all(
        select(
            received.study_instance_uid,
            received.series_instance_uid,
            received.sop_instance_uid,
            received.sop_class_uid,
            received.transfer_syntax_uid,
            received.modality,
            received.instance_number,
            received.number_of_frames,
            received.series_number,
            received.series_description,
            received.rows,
            received.columns,
            received.key,
            false().label("is_result"),
        ).where(instances_offered()),
        select(
            made.study_instance_uid,
            made.series_instance_uid,
            made.sop_instance_uid,
            made.sop_class_uid,
            cast(literal(str(ExplicitVRLittleEndian)), String(64)),
            cast(modality, String(16)),
            cast(literal(1), Integer),
            cast(literal(1), Integer),
            no_number,
            cast(literal(""), String(64)),
            no_number,
            no_number,
            made.key,
            true(),
        ).where(results_offered(role)),
    ).subquery("offered")


def instances_of(connection: Connection, role: str, **uids: str) -> list[Row[Any]]:
    """Return what is offered of a study, series or instance, in the order of viewers."""
    table = offered(role)
    columns = table.c
    statement = (
        select(table)
        .where(*(columns[name] == uid for name, uid in uids.items()))
        .order_by(
            columns.series_number,
            columns.series_instance_uid,
            columns.instance_number,
            columns.sop_instance_uid,
        )
    )
    return list(connection.execute(statement).all())


def were_purged(connection: Connection, **uids: str) -> bool:
    """Tell whether there were instances of a study, series or instance that were let go of.

    Those that had been excluded were not offered before either.
    """
    columns = instance.c
    statement = select(columns.sop_instance_uid).where(
        columns.purged_at.is_not(None),
        columns.excluded_at.is_(None),
        *(columns[name] == uid for name, uid in uids.items()),
    )
    return connection.execute(statement.limit(1)).first() is not None
