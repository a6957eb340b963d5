from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage

from inference_worker.cell_grid import CellGrid
from inference_worker.parametric_map import MappedFrame, make, mapped_frame
from tests.readings import a_model, a_reading
from tests.synthetic_images import a_gradient, an_image, read

CAM = np.linspace(0, 1, 49, dtype=np.float32).reshape(7, 7)


@pytest.fixture(autouse=True)
def _misspelled_keywords_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config, "INVALID_KEYWORD_BEHAVIOR", "RAISE")


def a_slice(number: int = 1, **changes: Any) -> Dataset:
    attributes: dict[str, Any] = {
        "Modality": "CT",
        "SOPInstanceUID": f"2.25.{300 + number}",
        "FrameOfReferenceUID": "2.25.9",
        "ImagePositionPatient": [-10.5, -20, 2.5 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.35],
        "SliceThickness": "2.5",
    }
    return an_image(a_gradient(24, 32).astype("u2"), **(attributes | changes))


def mapped(source: Dataset, frame: int = 0, cam: Any = CAM) -> MappedFrame:
    found = mapped_frame(source, frame, cam, None)
    assert found is not None
    return found


def made(*sources: Dataset, frames: list[MappedFrame] | None = None) -> Dataset:
    frames = frames or [mapped(each) for each in sources]
    return read(make(sources[0], frames, a_reading(), a_model().classes[2]).content)


def test_it_is_a_parametric_map_of_the_study_in_a_series_of_its_own() -> None:
    source = a_slice()

    found = made(source)

    assert found.SOPClassUID == ParametricMapStorage
    assert found.StudyInstanceUID == source.StudyInstanceUID
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    assert found.SeriesDescription.startswith("AI - not for primary diagnosis")
    assert found.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert found.ContributingEquipmentSequence[0].ManufacturerModelName == "shapes"


def test_each_frame_lies_where_the_frame_lies_that_it_explains() -> None:
    sources = [a_slice(3), a_slice(1)]

    found = made(*sources)

    shared = found.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.7, 0.35]
    assert shared.PixelMeasuresSequence[0].SliceThickness == 2.5
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    per_frame = found.PerFrameFunctionalGroupsSequence
    assert [each.PlanePositionSequence[0].ImagePositionPatient for each in per_frame] == [
        [-10.5, -20, 7.5],
        [-10.5, -20, 2.5],
    ]
    references = [each.DerivationImageSequence[0].SourceImageSequence[0] for each in per_frame]
    assert [each.ReferencedSOPInstanceUID for each in references] == ["2.25.303", "2.25.301"]
    [series] = found.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 2


def test_its_numbers_are_the_heat_map_over_the_pixels_of_the_source() -> None:
    found = made(a_slice(1), a_slice(2))

    values = np.frombuffer(found.FloatPixelData, "<f4").reshape(2, 24, 32)
    np.testing.assert_array_equal(values[0], CellGrid.even(7, 7).over(CAM, 24, 32))
    assert (found.NumberOfFrames, found.Rows, found.Columns) == (2, 24, 32)
    assert "PixelData" not in found


def test_it_says_what_its_numbers_mean() -> None:
    found = made(a_slice())

    [mapping] = found.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    said = {
        each.ConceptNameCodeSequence[0].CodeMeaning: (
            each.ConceptCodeSequence[0].CodeMeaning
            if "ConceptCodeSequence" in each
            else each.TextValue
        )
        for each in mapping.QuantityDefinitionSequence
    }
    assert said == {"Finding": "Star", "Algorithm Name": "shapes", "Algorithm Version": "1.2.3"}


def test_of_a_multi_frame_instance_it_names_the_frame() -> None:
    source = an_image(
        np.zeros((3, 24, 32), "u2"),
        frames=True,
        Modality="MR",
        FrameOfReferenceUID="2.25.9",
        ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[1, 1],
    )

    found = made(source, frames=[mapped(source, 2)])

    [group] = found.PerFrameFunctionalGroupsSequence
    assert group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == 3


def of_all_frames(found: Dataset, group: str, keyword: str) -> list[Any]:
    [shared] = found.SharedFunctionalGroupsSequence
    assert group not in shared
    return [each[group].value[0].get(keyword) for each in found.PerFrameFunctionalGroupsSequence]


def test_frames_that_lie_otherwise_say_each_how() -> None:
    turned = a_slice(2, ImageOrientationPatient=[1, 0, 0, 0, 0.9999999, -0.0000001])

    found = made(a_slice(1), turned)

    orientations = of_all_frames(found, "PlaneOrientationSequence", "ImageOrientationPatient")
    assert orientations == [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0.9999999, -0.0000001]]
    assert "PixelMeasuresSequence" in found.SharedFunctionalGroupsSequence[0]
    assert "PixelMeasuresSequence" not in found.PerFrameFunctionalGroupsSequence[0]


def test_frames_of_other_measures_say_each_theirs() -> None:
    found = made(a_slice(1), a_slice(2, PixelSpacing=[0.8, 0.4], SliceThickness=None))

    spacings = of_all_frames(found, "PixelMeasuresSequence", "PixelSpacing")
    assert spacings == [[0.7, 0.35], [0.8, 0.4]]
    assert of_all_frames(found, "PixelMeasuresSequence", "SliceThickness") == [2.5, None]
    assert "PlaneOrientationSequence" in found.SharedFunctionalGroupsSequence[0]


def test_a_frame_of_another_geometry_or_frame_of_reference_is_left_out() -> None:
    moved = a_slice(2, FrameOfReferenceUID="2.25.10")
    larger = replace(mapped(a_slice(3)), rows=48)

    found = made(a_slice(1), frames=[mapped(a_slice(1)), mapped(moved), larger, mapped(a_slice(4))])

    references = [
        each.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for each in found.PerFrameFunctionalGroupsSequence
    ]
    assert references == ["2.25.301", "2.25.304"]


@pytest.mark.parametrize(
    "changes",
    [
        {"Modality": "DX"},
        {"Modality": ["MR", "OT"]},
        {"ImagePositionPatient": None},
        {"SOPInstanceUID": "1.2.03"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_what_has_no_place_in_the_patient_has_no_map(changes: dict[str, Any]) -> None:
    assert mapped_frame(a_slice(**changes), 0, CAM, None) is None


def test_it_is_lossy_where_its_source_was() -> None:
    assert made(a_slice()).LossyImageCompression == "00"
    assert made(a_slice(LossyImageCompression="01")).LossyImageCompression == "01"


def test_making_it_again_makes_the_same_bytes() -> None:
    first, second = (
        make(a_slice(), [mapped(a_slice())], a_reading(), a_model().classes[2]) for _ in range(2)
    )

    assert first == second
