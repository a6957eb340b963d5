"""How a version of a model does, by what it has answered and what doctors have signed.

Counted where the results are, in two queries; nothing of a study or a person is in it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, Float, and_, case, cast, func, select

from imaging_store.model_registry import RegisteredModel
from imaging_store.schema.workflow import inference_result, signature
from message_contracts.case import Stage
from message_contracts.domain_check import UsualDistances
from message_contracts.inference import UNCERTAIN
from workflow_engine.figures import PARTS, Drift, Share, drift, share, spread
from workflow_engine.signing import Decision

ANOTHER = "another finding"
"""What doctors wrote that is no class of the model: their words stay with the case."""
UNINTERPRETABLE = "uninterpretable"
_CONFIDENCES = tuple(part / PARTS for part in range(1, PARTS))


class ClassAgreement(BaseModel):
    """What doctors made of one finding of the model."""

    label: str
    accepted: int
    """They agreed, or overrode it with the same finding."""
    overridden: int
    uninterpretable: int
    agreement: Share | None
    """Of what was accepted or overridden."""


class SignedAs(BaseModel):
    """How often the model found one thing, and the doctor signed one thing."""

    found: str
    signed: str
    """A class of the model, or that it is none, or that the images cannot be interpreted."""
    count: int


class Spread(BaseModel):
    """Of the pictures that stand for the studies."""

    mean: float
    standard_deviation: float


class ModelReport(BaseModel):
    """How a version did from ``since`` on and before ``until``, by when it answered."""

    model: str
    version: str
    since: datetime
    until: datetime
    answered: int
    """Studies that it was asked about as part of a case; readings in shadow are not among them."""
    read: int
    uncertain: int
    """Of these, where no class reached its threshold."""
    refused: int
    failed: int
    """It could have been no fault of the model's: the reason stands with each case."""
    refusal_rate: Share | None
    """Of what was read or refused."""
    findings: dict[str, int]
    """Every class of the model, and ``Uncertain``."""
    confidence: tuple[int, ...]
    """Readings by the probability of the most probable class, in ten parts from 0 to 1."""
    signed: int
    """Readings that a doctor has signed."""
    agreement: Share | None
    """Of signed findings; where it was uncertain there is nothing to agree with."""
    by_class: list[ClassAgreement]
    signed_as: list[SignedAs]
    brightness: Spread | None
    """Mean gray level, 0 to 255."""
    contrast: Spread | None
    """Standard deviation of the gray levels."""
    drift: Drift | None
    no_drift_known: str | None
    """Why there is nothing to hold inputs against."""


@dataclass
class _Counted:
    """Sums over groups of answers."""

    findings: Counter[str]
    confidence: list[int]
    parts: list[int]
    refused: int = 0
    failed: int = 0
    pictures: int = 0
    brightness: tuple[float, float] = (0.0, 0.0)
    contrast: tuple[float, float] = (0.0, 0.0)


def report(
    connection: Connection, registered: RegisteredModel, since: datetime, until: datetime
) -> ModelReport:
    """Return how a version did in this time."""
    labels = _labels(registered.description)
    usual = _usual(registered.description)
    counted = _counted(connection, registered, (since, until), usual)
    pairs = _signed(connection, registered, (since, until), labels)
    read = sum(counted.findings.values())
    by_class = [_of_class(label, pairs) for label in labels]
    accepted = sum(each.accepted for each in by_class)
    return ModelReport(
        model=registered.reference.name,
        version=registered.reference.version,
        since=since,
        until=until,
        answered=read + counted.refused + counted.failed,
        read=read,
        uncertain=counted.findings[UNCERTAIN],
        refused=counted.refused,
        failed=counted.failed,
        refusal_rate=share(counted.refused, read + counted.refused),
        findings={label: counted.findings[label] for label in (*labels, UNCERTAIN)},
        confidence=tuple(counted.confidence),
        signed=sum(pairs.values()),
        agreement=share(accepted, accepted + sum(each.overridden for each in by_class)),
        by_class=by_class,
        signed_as=[
            SignedAs(found=found, signed=signed, count=count)
            for (found, signed), count in pairs.most_common()
        ],
        brightness=_spread(counted.pictures, counted.brightness),
        contrast=_spread(counted.pictures, counted.contrast),
        drift=None if usual is None else drift(counted.parts, usual.picture_count),
        no_drift_known=None
        if usual is not None
        else "domain.usual: the model does not say how far pictures of its kind usually are",
    )


def _labels(description: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(each["label"] for each in description.get("classes", ()))


def _usual(description: Mapping[str, Any]) -> UsualDistances | None:
    try:
        return UsualDistances.model_validate((description.get("domain") or {}).get("usual"))
    except ValidationError:
        return None


def _window(registered: RegisteredModel, between: tuple[datetime, datetime]) -> Any:
    return and_(
        inference_result.c.model_name == registered.reference.name,
        inference_result.c.model_version == registered.reference.version,
        inference_result.c.answered_at >= between[0],
        inference_result.c.answered_at < between[1],
    )


def _part(column: Any, edges: Sequence[float]) -> Any:
    """Return in which part a value lies, counted from 0; null where there is none."""
    parts = [(column <= edge, place) for place, edge in enumerate(edges)]
    return case((column.is_(None), None), *parts, else_=len(edges))


def _counted(
    connection: Connection,
    registered: RegisteredModel,
    between: tuple[datetime, datetime],
    usual: UsualDistances | None,
) -> _Counted:
    of = inference_result.c
    edges = (0.0,) if usual is None else usual.deciles
    groups = (
        of.label,
        of.refused,
        _part(of.probability, _CONFIDENCES).label("confidence"),
        _part(of.domain_distance, edges).label("part"),
    )
    rows = connection.execute(
        select(
            *groups,
            func.count().label("answers"),
            func.count(of.brightness).label("pictures"),
            *(
                func.coalesce(func.sum(each), cast(0, Float)).label(name)
                for name, each in (
                    ("brightness", of.brightness),
                    ("brightness_squares", of.brightness * of.brightness),
                    ("contrast", of.contrast),
                    ("contrast_squares", of.contrast * of.contrast),
                )
            ),
        )
        .where(_window(registered, between))
        .group_by(*groups)
    )
    counted = _Counted(Counter(), [0] * PARTS, [0] * PARTS)
    for row in rows:
        if row.label is not None:
            counted.findings[row.label] += row.answers
            counted.confidence[row.confidence] += row.answers
        elif row.refused:
            counted.refused += row.answers
        else:
            counted.failed += row.answers
        if usual is not None and row.part is not None:
            counted.parts[row.part] += row.answers
        counted.pictures += row.pictures
        counted.brightness = _plus(counted.brightness, row.brightness, row.brightness_squares)
        counted.contrast = _plus(counted.contrast, row.contrast, row.contrast_squares)
    return counted


def _plus(sums: tuple[float, float], total: float, squares: float) -> tuple[float, float]:
    return sums[0] + total, sums[1] + squares


def _spread(pictures: int, sums: tuple[float, float]) -> Spread | None:
    found = spread(pictures, *sums)
    if found is None:
        return None
    return Spread(mean=round(found[0], 2), standard_deviation=round(found[1], 2))


def _signed(
    connection: Connection,
    registered: RegisteredModel,
    between: tuple[datetime, datetime],
    labels: Sequence[str],
) -> Counter[tuple[str, str]]:
    """Return how often the model found one thing and the doctor signed one thing."""
    of = inference_result.c
    # A doctor's own words are compared in the database, and never leave it. SQLite lowers ASCII
    # letters alone, so a label as the database lowers it is taken too.
    words = func.lower(func.trim(signature.c.finding))
    own = case(
        *((words.in_([func.lower(each), each.lower()]), each) for each in labels), else_=ANOTHER
    )
    said = case(
        # Who agrees where one of several models was uncertain agrees with the others.
        (and_(signature.c.decision == Decision.AGREE.value, of.label != UNCERTAIN), of.label),
        (signature.c.decision == Decision.UNINTERPRETABLE.value, UNINTERPRETABLE),
        else_=own,
    ).label("said")
    rows = connection.execute(
        select(of.label, said, func.count().label("answers"))
        .join(
            signature,
            and_(
                signature.c.case_id == of.case_id,
                signature.c.case_version == of.case_version,
                signature.c.stage == Stage.DOCTOR.value,
                signature.c.voided_at.is_(None),
            ),
        )
        .where(_window(registered, between), of.label.is_not(None))
        .group_by(of.label, said)
    )
    return Counter({(row.label, row.said): row.answers for row in rows})


def _of_class(label: str, pairs: Counter[tuple[str, str]]) -> ClassAgreement:
    accepted = pairs[label, label]
    uninterpretable = pairs[label, UNINTERPRETABLE]
    signed = sum(count for (found, _), count in pairs.items() if found == label)
    overridden = signed - accepted - uninterpretable
    return ClassAgreement(
        label=label,
        accepted=accepted,
        overridden=overridden,
        uninterpretable=uninterpretable,
        agreement=share(accepted, accepted + overridden),
    )
