from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from inference_worker.secondary_capture import make
from tests.readings import a_model, a_reading
from tests.synthetic_images import a_gradient, an_image, read

OVERLAY = np.arange(24 * 17 * 3, dtype="u4").astype("u1").reshape(24, 17, 3)


@pytest.fixture(autouse=True)
def _misspelled_keywords_are_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pydicom.config, "INVALID_KEYWORD_BEHAVIOR", "RAISE")
    return


def a_source(**attributes: Any) -> Dataset:
    return an_image(a_gradient().astype("u2"), **attributes)


def made(source: Dataset | None = None, *, frame: int = 0, **changes: Any) -> Dataset:
    return read(make(source or a_source(), OVERLAY, a_reading(**changes), frame).content)


def test_it_is_a_secondary_capture_of_the_same_study_in_a_series_of_its_own() -> None:
    source = a_source()

    capture = made(source)

    assert capture.SOPClassUID == SecondaryCaptureImageStorage
    assert capture.StudyInstanceUID == source.StudyInstanceUID
    assert capture.SeriesInstanceUID != source.SeriesInstanceUID
    assert capture.Modality == "OT"
    assert list(capture.ImageType) == ["DERIVED", "SECONDARY"]
    assert capture.SpecificCharacterSet == "ISO_IR 192"


def test_its_series_says_first_that_it_is_not_for_primary_diagnosis() -> None:
    capture = made(model=a_model(name="a-name-of-sixty-four-characters-" + "x" * 32))

    assert capture.SeriesDescription.startswith("AI - not for primary diagnosis")
    assert len(capture.SeriesDescription) <= 64
    assert capture.SeriesDescription.isascii()


def test_its_pixels_are_the_overlay() -> None:
    capture = made()

    np.testing.assert_array_equal(capture.pixel_array, OVERLAY)
    assert capture.PhotometricInterpretation == "RGB"
    assert capture.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_it_names_its_source_and_how_it_came_about() -> None:
    source = a_source()

    capture = made(source)

    [reference] = capture.SourceImageSequence
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert "ReferencedFrameNumber" not in reference
    assert "Grad-CAM" in capture.DerivationDescription
    assert len(capture.DerivationCodeSequence) == 1


def test_it_names_the_class_that_its_colors_explain() -> None:
    usual = made()
    other = read(make(a_source(), OVERLAY, a_reading(), explained_class="Round").content)

    assert "1.2.3 for Star, blended" in usual.DerivationDescription
    assert "1.2.3 for Round, blended" in other.DerivationDescription


def test_it_names_the_frame_of_a_multi_frame_source() -> None:
    source = an_image(np.zeros((3, 8, 8), "u2"), frames=True)

    assert made(source, frame=2).SourceImageSequence[0].ReferencedFrameNumber == 3


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_malformed_instance_uid_is_not_referenced_but_counted() -> None:
    source = a_source(SOPInstanceUID="999.01.2")

    result = make(source, OVERLAY, a_reading())

    assert "SourceImageSequence" not in read(result.content)
    assert result.left_out == ("SourceImageSequence",)


def test_it_names_the_model_that_contributed() -> None:
    [equipment] = made().ContributingEquipmentSequence

    assert equipment.ManufacturerModelName == "shapes"
    assert equipment.SoftwareVersions == "1.2.3"
    assert equipment.DeviceUID == "2.25.271828"
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


@pytest.mark.parametrize(
    ("source", "lossy"),
    [
        (a_source(), None),
        (a_source(LossyImageCompression="00"), "00"),
        (a_source(LossyImageCompression="01"), "01"),
        (pydicom.dcmread(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")), "01"),
        (pydicom.dcmread(get_testdata_file("JPEGLSNearLossless_08.dcm")), "01"),
        (pydicom.dcmread(get_testdata_file("MR_small_RLE.dcm")), None),
    ],
    ids=["silent", "never", "once", "jpeg", "jpeg_ls_near_lossless", "rle"],
)
def test_what_was_ever_lossy_stays_lossy(source: Dataset, lossy: str | None) -> None:
    assert made(source).get("LossyImageCompression") == lossy


def test_how_it_was_lossy_is_said_as_the_source_says_it() -> None:
    source = a_source(
        LossyImageCompression="01",
        LossyImageCompressionRatio=["10", "12.5"],
        LossyImageCompressionMethod=["ISO_10918_1", "ISO_15444_1"],
    )

    capture = made(source)

    assert list(capture.LossyImageCompressionRatio) == [10, 12.5]
    assert list(capture.LossyImageCompressionMethod) == ["ISO_10918_1", "ISO_15444_1"]


def test_a_lossy_transfer_syntax_gives_method_and_ratio() -> None:
    capture = made(pydicom.dcmread(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")))

    assert capture.LossyImageCompressionMethod == "ISO_10918_1"
    assert capture.LossyImageCompressionRatio > 1


@pytest.mark.parametrize(("source_says", "it_says"), [("NO", "NO"), ("YES", "YES"), (None, "YES")])
def test_only_a_source_without_burned_in_annotation_gives_one(
    source_says: str | None, it_says: str
) -> None:
    source = a_source(**({} if source_says is None else {"BurnedInAnnotation": source_says}))

    assert made(source).BurnedInAnnotation == it_says


@pytest.mark.parametrize(
    ("attributes", "laterality"),
    [
        ({}, None),
        ({"Laterality": "L"}, "L"),
        ({"ImageLaterality": "R"}, "R"),
        ({"Laterality": "B"}, None),
    ],
)
def test_laterality_is_there_and_empty_where_unknown(
    attributes: dict[str, str], laterality: str | None
) -> None:
    capture = made(a_source(**attributes))

    assert "Laterality" in capture
    assert (capture.Laterality or None) == laterality


@pytest.mark.parametrize(
    ("attributes", "orientation"),
    [
        ({"PatientOrientation": ["A", "F"]}, ["A", "F"]),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, ["P", "F"]),
        ({}, None),
    ],
    ids=["as stated", "as the direction cosines have it", "unknown"],
)
def test_its_rows_and_columns_run_as_those_of_the_source(
    attributes: dict[str, Any], orientation: list[str] | None
) -> None:
    assert (made(a_source(**attributes)).PatientOrientation or None) == orientation


def test_its_time_is_that_of_the_request_in_the_zone_of_the_site() -> None:
    capture = made()

    assert (capture.ContentDate, capture.ContentTime) == ("20260715", "003015.250000")
    assert "TimezoneOffsetFromUTC" not in capture


def test_its_time_is_in_the_zone_that_the_source_names() -> None:
    capture = made(a_source(TimezoneOffsetFromUTC="-0500"))

    assert (capture.ContentDate, capture.ContentTime) == ("20260714", "173015.250000")
    assert capture.TimezoneOffsetFromUTC == "-0500"


def test_making_it_again_makes_the_same_bytes() -> None:
    first = make(a_source(), OVERLAY, a_reading())

    assert make(a_source(), OVERLAY, a_reading()) == first


@pytest.mark.parametrize(
    "change",
    [
        {"study_version": 2},
        {"study_instance_uid": "2.25.999"},
        {"weights_sha256": "0" * 64},
        {"model": a_model(version="1.2.4")},
        {"model": a_model(name="forms")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_reading_has_other_uids(change: dict[str, Any]) -> None:
    first, second = (
        make(a_source(), OVERLAY, reading) for reading in (a_reading(), a_reading(**change))
    )

    assert first.sop_instance_uid != second.sop_instance_uid
    assert first.series_instance_uid != second.series_instance_uid
