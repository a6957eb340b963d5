from typing import Any

import pytest
from pydicom import Dataset

from inference_worker.plane_geometry import patient_orientation, pixel_aspect, plane_of

AXIAL = [1, 0, 0, 0, 1, 0]
CORONAL = [1, 0, 0, 0, 0, -1]
SAGITTAL = [0, 1, 0, 0, 0, -1]


def a_slice(**changes: Any) -> Dataset:
    source = Dataset()
    attributes: dict[str, Any] = {
        "FrameOfReferenceUID": "2.25.9",
        "ImagePositionPatient": [-10, -20, 30.5],
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [0.5, 0.25],
        "SliceThickness": "3",
    }
    for keyword, value in (attributes | changes).items():
        setattr(source, keyword, value)
    return source


def an_item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def an_enhanced() -> Dataset:
    shared = an_item(
        PlaneOrientationSequence=[an_item(ImageOrientationPatient=CORONAL)],
        PixelMeasuresSequence=[an_item(PixelSpacing=[2, 1], SliceThickness=4)],
    )
    per_frame = [
        an_item(PlanePositionSequence=[an_item(ImagePositionPatient=[1, 2, frame])])
        for frame in range(3)
    ]
    return an_item(
        FrameOfReferenceUID="2.25.9",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=per_frame,
    )


def test_a_classic_slice_says_where_it_lies() -> None:
    plane = plane_of(a_slice())

    assert plane is not None
    assert plane.frame_of_reference_uid == "2.25.9"
    assert plane.position == (-10, -20, 30.5)
    assert plane.orientation == tuple(AXIAL)
    assert (plane.spacing, plane.thickness_mm) == ((0.5, 0.25), 3)


def test_of_an_enhanced_instance_each_frame_does() -> None:
    planes = [plane_of(an_enhanced(), frame) for frame in range(3)]

    assert [each.position[2] for each in planes if each] == [0, 1, 2]
    assert {(each.orientation, each.spacing) for each in planes if each} == {
        (tuple(CORONAL), (2, 1))
    }
    assert pixel_aspect(an_enhanced(), 1) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"FrameOfReferenceUID": ""},
        {"ImagePositionPatient": None},
        {"ImagePositionPatient": [1, 2]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]},
        {"PixelSpacing": [0, 0]},
    ],
    ids=str,
)
def test_what_does_not_say_it_rightly_has_no_place(wrong: dict[str, Any]) -> None:
    assert plane_of(a_slice(**wrong)) is None


def test_a_slice_without_thickness_has_a_place_all_the_same() -> None:
    plane = plane_of(a_slice(SliceThickness=None))

    assert plane is not None
    assert plane.thickness_mm is None


@pytest.mark.parametrize(
    ("attributes", "aspect"),
    [
        ({"PixelSpacing": [0.5, 0.25]}, 2),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"PixelSpacing": None, "PixelAspectRatio": [4, 3]}, 4 / 3),
        ({"PixelSpacing": None}, 1),
        ({"PixelSpacing": [100, 0.1]}, 1),
        ({"PixelSpacing": [-1, 1]}, 1),
    ],
    ids=str,
)
def test_the_shape_of_a_pixel(attributes: dict[str, Any], aspect: float) -> None:
    assert pixel_aspect(a_slice(**attributes)) == pytest.approx(aspect)


@pytest.mark.parametrize(
    ("cosines", "letters"),
    [
        (AXIAL, ("L", "P")),
        (CORONAL, ("L", "F")),
        (SAGITTAL, ("P", "F")),
        ([0, -1, 0, -1, 0, 0], ("A", "R")),
        ([0.8, 0.6, 0, 0, 0, -1], ("LP", "F")),
        ([0.9999999, 0.0004, 0, -0.0004, 0.9999999, 0], ("L", "P")),
    ],
    ids=str,
)
def test_the_direction_of_rows_and_columns_has_a_name(
    cosines: list[float], letters: tuple[str, str]
) -> None:
    assert patient_orientation(a_slice(ImageOrientationPatient=cosines)) == letters


def test_where_the_direction_is_not_known_it_has_none() -> None:
    assert patient_orientation(a_slice(ImageOrientationPatient=None)) is None
