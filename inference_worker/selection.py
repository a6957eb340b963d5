"""Which of the instances that a model's rule matches are read, and which frames of each. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from message_contracts.study_selection import Reads, StudySelection

MOST_FRAMES = 32
"""Of a longer multi-frame view, so many frames are read, evenly spaced."""


@dataclass(frozen=True)
class Candidate:
    """An instance as the index knows it."""

    sop_instance_uid: str
    series_instance_uid: str
    series_number: int | None = None
    series_description: str = ""
    instance_number: int | None = None
    number_of_frames: int = 1


@dataclass(frozen=True)
class Selected:
    """An instance that is read."""

    sop_instance_uid: str
    frames: tuple[int, ...] | None
    """Counted from 0; ``None``: as many as `frames_of_view` says of what the file turns out to
    hold."""


def selected(candidates: Sequence[Candidate], reads: StudySelection) -> tuple[Selected, ...]:
    """Return what is read, in the order in which it is read.

    Views are read in the order given. Slices are those of the one series that suits best, ordered
    by Instance Number (0020,0013) and, within a multi-frame instance, by frame.
    """
    if reads.what is Reads.VIEWS:
        return tuple(Selected(each.sop_instance_uid, None) for each in candidates)
    series = _best_series(candidates, reads)
    series.sort(key=lambda each: (_last_if_none(each.instance_number), each.sop_instance_uid))
    found, place = [], 0
    for each in series:
        count = max(each.number_of_frames, 1)
        frames = tuple(range(-place % reads.every, count, reads.every))
        place += count
        if frames:
            found.append(Selected(each.sop_instance_uid, frames))
    return tuple(found)


def frames_of_view(count: int) -> tuple[int, ...]:
    """Return which frames of a view are read, counted from 0."""
    if count <= MOST_FRAMES:
        return tuple(range(count))
    return tuple(int(each) for each in np.linspace(0, count - 1, MOST_FRAMES).round())


def _best_series(candidates: Sequence[Candidate], reads: StudySelection) -> list[Candidate]:
    by_uid: dict[str, list[Candidate]] = {}
    for each in candidates:
        by_uid.setdefault(each.series_instance_uid, []).append(each)
    ranked = sorted(
        by_uid.items(),
        key=lambda item: (
            min(reads.preference(each.series_description) for each in item[1]),
            -sum(max(each.number_of_frames, 1) for each in item[1]),
            _last_if_none(item[1][0].series_number),
            item[0],
        ),
    )
    return ranked[0][1] if ranked else []


def _last_if_none(number: int | None) -> tuple[bool, int]:
    return (number is None, number or 0)
