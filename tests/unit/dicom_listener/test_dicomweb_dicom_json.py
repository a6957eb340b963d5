import json
import math

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_listener.dicomweb.dicom_json import (
    attribute,
    dataset_json,
    encoded,
    person_name,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def json_of(ds: Dataset) -> dict[str, dict[str, object]]:
    return dataset_json(ds, lambda path: "/".join(f"{step:X}" for step in path))


def test_a_data_set_comes_back_as_it_was() -> None:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName = "Wang^XiaoDong=王^小東"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.Rows, ds.InstanceNumber, ds.PixelSpacing = 512, "3", ["0.5", "0.25"]
    ds.PatientID = ""
    ds.FrameIncrementPointer = 0x00181063
    item = Dataset()
    item.CodeValue = "T-1"
    ds.ProcedureCodeSequence = Sequence([item])

    assert Dataset.from_json(json.dumps(json_of(ds))) == ds


def test_large_values_and_pixels_are_pointed_at_by_their_path() -> None:
    item = Dataset()
    item.PixelData = bytes(2)
    item["PixelData"].VR = "OW"
    ds = Dataset()
    ds.IconImageSequence = Sequence([Dataset(), item])
    ds.RedPaletteColorLookupTableData = bytes(1000)
    ds.EncapsulatedDocument = b"\1\2"

    model = json_of(ds)

    assert model["00880200"]["Value"][1]["7FE00010"]["BulkDataURI"] == "880200/1/7FE00010"  # type: ignore[index]
    assert model["00281201"]["BulkDataURI"] == "281201"
    assert model["00420011"] == {"vr": "OB", "InlineBinary": "AQI="}


def test_text_is_utf_8_whatever_it_was() -> None:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 144"
    ds.StudyDescription = "Грудь"

    model = json_of(ds)

    assert model["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert model["00081030"]["Value"] == ["Грудь"]


def test_what_is_broken_is_left_out_and_the_rest_stays() -> None:
    ds = Dataset()
    ds.add(DataElement(0x00200013, "IS", "1"))
    ds[0x00200013]._value = "one"
    ds.add(DataElement(0x00189073, "FD", math.nan))
    ds.PatientID = "P1"

    model = json_of(ds)

    assert "00200013" not in model
    assert model["00189073"] == {"vr": "FD"}
    assert model["00100020"]["Value"] == ["P1"]
    json.dumps(model, allow_nan=False)


def test_empty_values_are_attributes_without_one() -> None:
    assert attribute("LO", "") == {"vr": "LO"}
    assert attribute("IS", 0) == {"vr": "IS", "Value": [0]}
    assert person_name("") == {"vr": "PN"}
    assert person_name("^^^") == {"vr": "PN"}
    assert person_name("=王") == {"vr": "PN", "Value": [{"Ideographic": "王"}]}


def test_an_answer_is_utf_8() -> None:
    assert encoded([{"00100010": person_name("Ä")}]).decode().count("Ä") == 1
