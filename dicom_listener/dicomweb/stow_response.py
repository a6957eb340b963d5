"""What a store request is answered with (PS3.18 §10.5.3, Annex I)."""

from collections.abc import Mapping, Sequence

from dicom_listener.dicomweb.dicom_json import Json, attribute
from dicom_listener.dicomweb.posting import Outcome
from dicom_listener.store_status import StoreStatus

Location = tuple[str, str]
"""Study and Series Instance UID."""


_AGAIN = frozenset({StoreStatus.OUT_OF_RESOURCES, StoreStatus.PROCESSING_FAILURE})


def status_code(outcomes: Sequence[Outcome]) -> int:
    """Return 200 where all are stored, 202 where some are, 409 where none ever will be.

    Where none is, and sending again may help, it is 503: no room, or a fault of ours.
    """
    if all(outcome.is_stored for outcome in outcomes):
        return 200
    if any(outcome.is_stored for outcome in outcomes):
        return 202
    return 503 if any(outcome.status in _AGAIN for outcome in outcomes) else 409


def body(outcomes: Sequence[Outcome], locations: Mapping[str, Location], url: str) -> Json:
    """Return the Store Instances Response Module; ``locations`` are those of stored instances."""
    studies = {study for study, _ in locations.values()}
    model: Json = {}
    if len(studies) == 1:
        model["00081190"] = attribute("UR", f"{url}/studies/{studies.pop()}")
    failed = [_failed(outcome) for outcome in outcomes if _is_named(outcome, stored=False)]
    if failed:
        model["00081198"] = attribute("SQ", *failed)
    stored = [
        _stored(outcome, locations, url) for outcome in outcomes if _is_named(outcome, stored=True)
    ]
    if stored:
        model["00081199"] = attribute("SQ", *stored)
    # Of these nobody knows which instances they were meant to be.
    others = [_reason(each) for each in outcomes if not each.sop_instance_uid]
    if others:
        model["0008119A"] = attribute("SQ", *others)
    return model


def _is_named(outcome: Outcome, *, stored: bool) -> bool:
    return outcome.is_stored is stored and bool(outcome.sop_instance_uid)


def _references(outcome: Outcome) -> Json:
    return {
        "00081150": attribute("UI", outcome.sop_class_uid),
        "00081155": attribute("UI", outcome.sop_instance_uid),
    }


def _stored(outcome: Outcome, locations: Mapping[str, Location], url: str) -> Json:
    references = _references(outcome)
    location = locations.get(outcome.sop_instance_uid)
    if location:
        study, series = location
        instance = f"{url}/studies/{study}/series/{series}/instances/{outcome.sop_instance_uid}"
        references["00081190"] = attribute("UR", instance)
    return references


def _failed(outcome: Outcome) -> Json:
    return _references(outcome) | _reason(outcome)


def _reason(outcome: Outcome) -> Json:
    """Return the reason as a number, and in words as a C-STORE response has them (0000,0902)."""
    return {
        "00000902": attribute("LO", outcome.comment),
        "00081197": attribute("US", outcome.status),
    }
