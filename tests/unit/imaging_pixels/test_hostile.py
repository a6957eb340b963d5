"""What a broken or hostile instance claims decides neither memory nor time."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging_pixels.decode import UndecodablePixels, decode, frame_count
from imaging_pixels.render import render
from tests.peak_memory import peak_bytes, peak_bytes_from_now
from tests.synthetic_images import an_image

COMPRESSED = [
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000,
    HTJ2K,
    RLELossless,
]
EVERY_KIND = [ExplicitVRLittleEndian, ExplicitVRBigEndian, *COMPRESSED]


def a_jpeg_header(rows: int, columns: int, marker: int) -> bytes:
    size = struct.pack(">BBHBHHBBBB", 0xFF, marker, 11, 8, rows, columns, 1, 1, 0x11, 0)
    return b"\xff\xd8" + size + b"\xff\xda\0\x08\1\1\0\0\x3f\0\xff\xd9"


def a_jpeg_2000_header(rows: int, columns: int) -> bytes:
    sizes = struct.pack(">8I", columns, rows, 0, 0, columns, rows, 0, 0)
    return b"\xff\x4f\xff\x51\0\x29\0\0" + sizes + b"\0\1\x07\1\1\xff\x90\0\x0a\0\0\0\0\0\0\0\0"


HEADERS = {
    JPEGBaseline8Bit: lambda rows, columns: a_jpeg_header(rows, columns, 0xC0),
    JPEGExtended12Bit: lambda rows, columns: a_jpeg_header(rows, columns, 0xC1),
    JPEGLosslessSV1: lambda rows, columns: a_jpeg_header(rows, columns, 0xC3),
    JPEGLSLossless: lambda rows, columns: a_jpeg_header(rows, columns, 0xF7),
    JPEG2000: a_jpeg_2000_header,
    HTJ2K: a_jpeg_2000_header,
    RLELossless: lambda *_: struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0",
}


def a_claim(rows: int, columns: int, transfer_syntax_uid: UID, coded_rows: int = 0) -> Dataset:
    image = an_image(np.zeros((2, 2), "u1"), Rows=rows, Columns=columns)
    image.file_meta.TransferSyntaxUID = transfer_syntax_uid
    if transfer_syntax_uid in HEADERS:
        header = HEADERS[transfer_syntax_uid](coded_rows or rows, columns)
        image.PixelData = encapsulate([header])
        image["PixelData"].is_undefined_length = True
    return image


@pytest.mark.parametrize("transfer_syntax_uid", EVERY_KIND, ids=lambda uid: uid.name)
@pytest.mark.parametrize("size", [(46_000, 46_000), (65_535, 65_535)])
def test_gigabytes_out_of_nothing_are_refused_by_their_size(
    size: tuple[int, int], transfer_syntax_uid: UID
) -> None:
    before = peak_bytes_from_now()

    with pytest.raises(UndecodablePixels, match="frame of it would take"):
        render(a_claim(*size, transfer_syntax_uid))

    assert peak_bytes() - before < 2**25


@pytest.mark.parametrize("transfer_syntax_uid", COMPRESSED[:-1], ids=lambda uid: uid.name)
def test_a_frame_that_claims_more_than_the_data_set_is_refused(transfer_syntax_uid: UID) -> None:
    before = peak_bytes_from_now()

    with pytest.raises(UndecodablePixels, match="not the size that Rows and Columns say"):
        render(a_claim(64, 65_535, transfer_syntax_uid, coded_rows=65_535))

    assert peak_bytes() - before < 2**25


@pytest.mark.parametrize("transfer_syntax_uid", EVERY_KIND, ids=lambda uid: uid.name)
@pytest.mark.parametrize("frames", [2**31 - 1, 10**12])
def test_an_absurd_number_of_frames_is_refused(frames: int, transfer_syntax_uid: UID) -> None:
    image = a_claim(64, 64, transfer_syntax_uid)
    image.add_new("NumberOfFrames", "UT", str(frames))
    before = peak_bytes_from_now()

    for frame in (0, 1, frames - 1):
        with pytest.raises(UndecodablePixels, match=r"truncated|compressed frames are there"):
            render(image, frame)

    assert frame_count(image) == frames
    assert peak_bytes() - before < 2**25


@pytest.mark.parametrize("number", ["0", "-7", "1e400", "one"])
def test_a_number_of_frames_that_cannot_be_means_one(number: str) -> None:
    image = an_image(np.full((4, 4), 9, "u1"))
    image.add_new("NumberOfFrames", "UT", number)

    assert frame_count(image) == 1
    assert decode(image).tolist() == [[9] * 4] * 4


@pytest.mark.parametrize("frame", [-1, 1, 10**30])
def test_a_frame_that_is_not_there_is_refused(frame: int) -> None:
    with pytest.raises(UndecodablePixels, match="no frame"):
        render(an_image(np.zeros((4, 4), "u1")), frame)


KEYWORDS = {
    "Rows": "US",
    "Columns": "US",
    "SamplesPerPixel": "US",
    "BitsAllocated": "US",
    "BitsStored": "US",
    "HighBit": "US",
    "PixelRepresentation": "US",
    "PlanarConfiguration": "US",
    "PixelPaddingValue": "US",
    "WindowCenter": "DS",
    "WindowWidth": "DS",
    "RescaleSlope": "DS",
    "RescaleIntercept": "DS",
    "NumberOfFrames": "IS",
    "PhotometricInterpretation": "CS",
    "PresentationLUTShape": "CS",
}
ODD = {
    "US": st.one_of(st.integers(0, 40), st.integers(0, 65_535)),
    "DS": st.sampled_from(["0", "-1", "1E38", "1e-300", "7", "", "nan"]),
    "IS": st.sampled_from(["0", "-2", "1", "3", "99999999999", ""]),
    "CS": st.sampled_from(
        ["MONOCHROME1", "RGB", "YBR_FULL_422", "PALETTE COLOR", "YBR_RCT", "INVERSE", "", "X"]
    ),
}


@given(st.data(), st.sampled_from(EVERY_KIND), st.binary(max_size=200))
def test_whatever_it_says_it_is_a_picture_or_refused_in_words(
    data: st.DataObject, transfer_syntax_uid: UID, noise: bytes
) -> None:
    image = a_claim(4, 6, transfer_syntax_uid)
    for keyword in data.draw(st.sets(st.sampled_from(sorted(KEYWORDS)), max_size=5)):
        vr = KEYWORDS[keyword]
        image.add_new(keyword, "LO" if vr in ("DS", "IS") else vr, data.draw(ODD[vr]))
    if data.draw(st.booleans()):
        is_encapsulated = transfer_syntax_uid.is_encapsulated
        image.PixelData = encapsulate([noise + b"\0"]) if is_encapsulated else noise

    try:
        picture = render(image)
    except UndecodablePixels:
        return
    assert picture.dtype == np.uint8
    assert picture.shape[:2] == (image.Rows, image.Columns)
