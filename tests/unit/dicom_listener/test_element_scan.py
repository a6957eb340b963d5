from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from dicom_listener import element_scan, instance_header
from dicom_listener.element_scan import Scanned, scan
from dicom_listener.instance_header import InstanceHeader, NotUnderstood, parse_header


def encode(ds: Dataset, *, is_implicit_vr: bool) -> bytes:
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = is_implicit_vr, True
    write_dataset(file, ds)
    return file.getvalue()


def parsed(data: bytes, transfer_syntax_uid: str) -> InstanceHeader | str:
    try:
        header = parse_header(BytesIO(data), transfer_syntax_uid)
    except NotUnderstood as error:
        return str(error)
    assert header is not None
    return header


def parsed_by_pydicom(data: bytes, transfer_syntax_uid: str) -> InstanceHeader | str:
    def nothing(*_: object, **__: object) -> Scanned:
        return Scanned({}, 0, reached_end=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance_header, "scan", nothing)
        return parsed(data, transfer_syntax_uid)


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of what pydicom finds odd

PYDICOM_FILES = sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*.dcm"))


def small_file(path: Path) -> bool:
    return path.stat().st_size < 1024 * 1024


@pytest.mark.parametrize(
    "path",
    [path for path in PYDICOM_FILES if small_file(path)],
    ids=lambda path: path.name,
)
def test_a_header_is_what_pydicom_reads(path: Path) -> None:
    try:
        ds = dcmread(path, force=True, stop_before_pixels=True)
        syntax = str(ds.file_meta.TransferSyntaxUID)
        start = 132 + 12 + ds.file_meta.FileMetaInformationGroupLength
    except (AttributeError, EOFError, ValueError):
        pytest.skip("no File Meta Information")
    data = path.read_bytes()[start:]

    assert parsed(data, syntax) == parsed_by_pydicom(data, syntax)


TEXT = st.text(alphabet="ABC ^\\1.", max_size=20)
HEADERS = st.fixed_dictionaries(
    {
        "SOPClassUID": st.just("1.2.840.10008.5.1.4.1.1.2"),
        "SOPInstanceUID": st.just("1.2.3"),
        "StudyInstanceUID": st.just("1.2.4"),
        "SeriesInstanceUID": st.just("1.2.5"),
    },
    optional={
        "PatientName": TEXT,
        "PatientID": TEXT,
        "StudyDescription": TEXT,
        "InstanceNumber": st.integers(0, 10**6).map(str),
        "Rows": st.integers(0, 65535),
        "Columns": st.integers(0, 65535),
        "NumberOfFrames": st.integers(0, 1000).map(str),
    },
)


@given(
    values=HEADERS,
    is_implicit_vr=st.booleans(),
    sequence=st.sampled_from(["none", "defined", "undefined"]),
    cut=st.integers(0, 40),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
)
def test_any_header_is_what_pydicom_reads(
    values: dict[str, object],
    is_implicit_vr: bool,
    sequence: str,
    cut: int,
    flips: list[tuple[int, int]],
) -> None:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    if sequence != "none":
        device = Dataset()
        device.add(DataElement(0x00181002, "UI", "1.2.6"))
        ds.ContributingEquipmentSequence = Sequence([device])
        ds["ContributingEquipmentSequence"].is_undefined_length = sequence == "undefined"
    data = bytearray(encode(ds, is_implicit_vr=is_implicit_vr))
    for place, byte in flips:
        if place < len(data):
            data[place] = byte
    data = data[: len(data) - cut]
    syntax = str(ImplicitVRLittleEndian if is_implicit_vr else ExplicitVRLittleEndian)

    assert parsed(bytes(data), syntax) == parsed_by_pydicom(bytes(data), syntax)


@given(data=st.binary(max_size=200), is_implicit_vr=st.booleans())
def test_no_bytes_make_it_fail_or_read_beyond_them(data: bytes, is_implicit_vr: bool) -> None:
    scanned = scan(data, range(2**32), 2**32, is_implicit_vr=is_implicit_vr)

    assert scanned.length <= len(data)


def test_every_vr_that_pydicom_knows_is_known() -> None:
    plain = {vr.value.encode() for vr in VR if len(vr.value) == 2}

    assert {vr.encode() for vr in EXPLICIT_VR_LENGTH_32} == element_scan._LONG_VRS
    assert plain == element_scan._LONG_VRS | element_scan._SHORT_VRS
