"""The drawn chest: valid, labeled, and the same every time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation

from countersign.phantom import LABEL, draw_chest_phantom

AT = datetime(2026, 3, 14, 23, 59, 58, tzinfo=timezone(timedelta(hours=1)))
STUDY = "1.2.826.0.1.3680043.8.498.7"


@pytest.fixture(scope="module")
def phantom() -> FileDataset:
    return draw_chest_phantom(STUDY, AT)


def test_it_is_a_radiograph_of_the_chest(phantom: FileDataset) -> None:
    assert phantom.SOPClassUID == DigitalXRayImageStorageForPresentation
    assert (phantom.Modality, phantom.BodyPartExamined, phantom.ViewPosition) == (
        "DX",
        "CHEST",
        "PA",
    )


def test_it_says_everywhere_that_it_is_no_patient(phantom: FileDataset) -> None:
    assert LABEL in str(phantom.PatientName)
    assert LABEL in phantom.StudyDescription
    assert LABEL in phantom.ImageComments
    assert phantom.QualityControlSubject == "YES"


def test_the_label_is_in_the_pixels(phantom: FileDataset) -> None:
    corner = phantom.pixel_array[20:110, 20:300]
    opposite = phantom.pixel_array[20:110, -300:-20]

    assert np.count_nonzero(corner == 4095) > 2000
    assert np.count_nonzero(opposite == 4095) == 0


def test_air_is_dark_and_bone_is_bright(phantom: FileDataset) -> None:
    pixels = phantom.pixel_array

    air, lung, spine = pixels[600, 5], pixels[560, 260], pixels[480, 512]

    assert air < lung < spine


def test_the_same_call_makes_the_same_object(phantom: FileDataset) -> None:
    again = draw_chest_phantom(STUDY, AT)

    assert again.to_json_dict() == phantom.to_json_dict()


def test_another_seed_is_another_exposure(phantom: FileDataset) -> None:
    other = draw_chest_phantom(STUDY, AT, seed=1)

    assert other.PixelData != phantom.PixelData


def test_the_time_keeps_its_zone(phantom: FileDataset) -> None:
    assert (phantom.StudyDate, phantom.StudyTime) == ("20260314", "235958")
    assert phantom.TimezoneOffsetFromUTC == "+0100"
