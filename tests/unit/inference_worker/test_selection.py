from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.selection import MOST_FRAMES, Candidate, frames_of_view, selected
from message_contracts.study_selection import StudySelection

SLICES = StudySelection(what="slices")


def a_series(uid: str, count: int, **known: Any) -> list[Candidate]:
    return [
        Candidate(f"{uid}.{number}", uid, instance_number=number, **known)
        for number in range(1, count + 1)
    ]


def uids(candidates: list[Candidate], reads: StudySelection) -> list[str]:
    return [each.sop_instance_uid for each in selected(candidates, reads)]


def test_all_views_are_read_in_the_order_given() -> None:
    views = [*a_series("2.25.2", 1), *a_series("2.25.1", 2)]

    assert uids(views, StudySelection()) == ["2.25.2.1", "2.25.1.1", "2.25.1.2"]
    assert all(each.frames is None for each in selected(views, StudySelection()))


def test_the_series_of_the_earliest_pattern_is_read() -> None:
    reads = StudySelection(what="slices", series_description=("*flair*", "*t2*"))
    study = [
        *a_series("2.25.1", 9, series_description="T1 MPRAGE"),
        *a_series("2.25.2", 3, series_description="AX T2 TSE"),
        *a_series("2.25.3", 2, series_description="Ax T2 FLAIR"),
    ]

    assert uids(study, reads) == ["2.25.3.1", "2.25.3.2"]
    assert uids(study[:12], reads) == ["2.25.2.1", "2.25.2.2", "2.25.2.3"]
    assert len(uids(study[:9], reads)) == 9


def test_of_equal_series_the_one_with_most_slices_is_read_and_then_the_first() -> None:
    localizer = a_series("2.25.1", 3, series_number=1)
    whole = a_series("2.25.2", 20, series_number=2)
    again = a_series("2.25.3", 20, series_number=3)

    assert uids([*again, *localizer, *whole], SLICES)[0] == "2.25.2.1"


def test_slices_are_read_by_instance_number_whatever_order_they_came_in() -> None:
    series = a_series("2.25.1", 12)

    assert uids(series[::-1], SLICES) == [each.sop_instance_uid for each in series]


def test_every_third_slice_counts_through_the_frames_of_all_instances() -> None:
    reads = StudySelection(what="slices", every=3)
    enhanced = [
        Candidate(f"2.25.1.{number}", "2.25.1", instance_number=number, number_of_frames=4)
        for number in (1, 2)
    ]

    assert [each.frames for each in selected(enhanced, reads)] == [(0, 3), (2,)]
    assert uids(a_series("2.25.1", 7), reads) == ["2.25.1.1", "2.25.1.4", "2.25.1.7"]


def test_nothing_to_choose_from_is_nothing_chosen() -> None:
    assert selected([], SLICES) == ()
    assert selected([], StudySelection()) == ()


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=9), every=st.integers(1, 12))
def test_every_nth_slice_is_read_and_none_twice(counts: list[int], every: int) -> None:
    reads = StudySelection(what="slices", every=every)
    series = [
        Candidate(f"2.25.1.{place}", "2.25.1", instance_number=place, number_of_frames=count)
        for place, count in enumerate(counts)
    ]
    slices = [
        (each.sop_instance_uid, frame) for each in series for frame in range(each.number_of_frames)
    ]

    chosen = selected(series, reads)

    assert [(each.sop_instance_uid, frame) for each in chosen for frame in each.frames or ()] == (
        slices[::every]
    )


@pytest.mark.parametrize("count", [1, 2, MOST_FRAMES, MOST_FRAMES + 1, 500, 10_000])
def test_frames_are_read_evenly_and_never_too_many(count: int) -> None:
    frames = frames_of_view(count)

    assert len(frames) == min(count, MOST_FRAMES) == len(set(frames))
    assert frames[0] == 0
    assert frames[-1] == count - 1
    steps = np.diff(frames)
    assert count == 1 or steps.max() - steps.min() <= 1
