"""What a version in shadow has read, beside what the active one has and what doctors signed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection, and_, func, select

from imaging_store.schema.results import shadow_result
from imaging_store.schema.workflow import inference_result, signature
from message_contracts.case import Stage
from message_contracts.inference import UNCERTAIN, InferenceCompleted, ModelReference

_MOST_READINGS = 10_000
_MOST_DIFFERENCES = 100


class LabelPair(BaseModel):
    """How often the active version said one thing and the shadow another, or the same."""

    active: str
    shadow: str
    count: int


class Difference(BaseModel):
    """A study of which the two do not say the same."""

    case_id: UUID
    case_version: int
    study_instance_uid: str
    active_version: str
    active: str
    active_probability: float
    shadow: str
    shadow_probability: float
    answered_at: datetime


class Comparison(BaseModel):
    """What is known of a version in shadow, over its latest readings."""

    model: str
    version: str
    readings: int
    """Studies that it was asked about and has answered."""
    failures: int
    """Of these, what it could not or would not read."""
    compared: int
    """Studies that both it and the active version have read."""
    agreeing: int
    """Of these, where both have the same finding."""
    pairs: list[LabelPair]
    signed: int
    """Of the compared, what a doctor has signed."""
    active_as_signed: int
    """Of these, where the active version's finding is the doctor's."""
    shadow_as_signed: int
    differences: list[Difference]
    """The latest."""


@dataclass(frozen=True)
class _Compared:
    row: Any
    active_version: str
    active: str
    active_probability: float
    shadow: str
    signed: frozenset[str]


def compare(connection: Connection, reference: ModelReference) -> Comparison:
    """Compare the latest readings of a version in shadow with the active version's."""
    of_version = and_(
        shadow_result.c.model_name == reference.name,
        shadow_result.c.model_version == reference.version,
    )
    counted = connection.execute(
        select(func.count(), func.count(shadow_result.c.failure)).where(of_version)
    ).one()
    compared = list(_compared(connection, of_version))
    pairs = Counter((each.active, each.shadow) for each in compared)
    signed = [each for each in compared if each.signed]
    differing = [each for each in compared if each.active != each.shadow]
    return Comparison(
        model=reference.name,
        version=reference.version,
        readings=counted[0],
        failures=counted[1],
        compared=len(compared),
        agreeing=len(compared) - len(differing),
        pairs=[
            LabelPair(active=active, shadow=shadow, count=count)
            for (active, shadow), count in pairs.most_common()
        ],
        signed=len(signed),
        active_as_signed=sum(each.active in each.signed for each in signed),
        shadow_as_signed=sum(each.shadow in each.signed for each in signed),
        differences=[_difference(each) for each in differing[:_MOST_DIFFERENCES]],
    )


def _compared(connection: Connection, of_version: Any) -> Iterator[_Compared]:
    rows = connection.execute(
        select(
            shadow_result,
            inference_result.c.model_version.label("active_version"),
            inference_result.c.completed,
            signature.c.finding,
        )
        .join(
            inference_result,
            and_(
                inference_result.c.case_id == shadow_result.c.case_id,
                inference_result.c.case_version == shadow_result.c.case_version,
                inference_result.c.model_name == shadow_result.c.model_name,
                inference_result.c.model_version != shadow_result.c.model_version,
            ),
        )
        .outerjoin(
            signature,
            and_(
                signature.c.case_id == shadow_result.c.case_id,
                signature.c.case_version == shadow_result.c.case_version,
                signature.c.stage == Stage.DOCTOR,
                signature.c.voided_at.is_(None),
            ),
        )
        .where(of_version, shadow_result.c.label.is_not(None))
        .order_by(shadow_result.c.answered_at.desc())
        .limit(_MOST_READINGS)
    )
    for row in rows:
        if row.completed is None:
            continue
        completed = InferenceCompleted.model_validate(row.completed)
        foremost = completed.probabilities[0]
        yield _Compared(
            row=row,
            active_version=row.active_version,
            active=UNCERTAIN if completed.uncertain else foremost.label,
            active_probability=foremost.probability,
            shadow=row.label,
            # A doctor who agrees with several models signs all their findings.
            signed=frozenset((row.finding or "").split("; ")) - {""},
        )


def _difference(each: _Compared) -> Difference:
    row = each.row
    return Difference(
        case_id=row.case_id,
        case_version=row.case_version,
        study_instance_uid=row.study_instance_uid,
        active_version=each.active_version,
        active=each.active,
        active_probability=each.active_probability,
        shadow=each.shadow,
        shadow_probability=max(row.probabilities.values()),
        answered_at=row.answered_at,
    )
