from __future__ import annotations

from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import (
    MPEG4HP41,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging_pixels.decode import UndecodablePixels, decode, frame_count
from service_runtime.errors import PermanentError
from tests.synthetic_images import a_gradient, an_image

NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


@pytest.mark.parametrize("transfer_syntax_uid", NATIVE)
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4"])
def test_stored_values_come_out_as_they_went_in(kind: str, transfer_syntax_uid: Any) -> None:
    stored = a_gradient(low=-100 if kind[0] == "i" else 0, high=120).astype(kind)

    values = decode(an_image(stored, transfer_syntax_uid=transfer_syntax_uid))

    np.testing.assert_array_equal(values, stored)


@given(
    bits_stored=st.integers(2, 16),
    signed=st.booleans(),
    spare_low=st.integers(0, 14),
    garbage=st.integers(0, 0xFFFF),
)
def test_bits_outside_bits_stored_never_count(
    bits_stored: int, signed: bool, spare_low: int, garbage: int
) -> None:
    high_bit = min(bits_stored - 1 + spare_low, 15)
    shift = high_bit + 1 - bits_stored
    low = -(2 ** (bits_stored - 1)) if signed else 0
    wanted = np.linspace(low, low + 2**bits_stored - 1, 64).round().astype(np.int64)
    mask = (2**bits_stored - 1) << shift
    cells = (((wanted << shift) & mask) | (garbage & ~mask & 0xFFFF)).astype("u2").reshape(8, 8)
    image = an_image(
        cells, BitsStored=bits_stored, HighBit=high_bit, PixelRepresentation=int(signed)
    )

    values = decode(image)

    np.testing.assert_array_equal(values.astype(np.int64).ravel(), wanted)


def test_one_frame_of_several_is_decoded() -> None:
    stored = np.stack([np.full((4, 6), number, "u2") for number in range(5)])

    values = decode(an_image(stored, frames=True), frame=3)

    np.testing.assert_array_equal(values, stored[3])


@pytest.mark.parametrize("frame", [-1, 5])
def test_a_frame_that_is_not_there_is_refused(frame: int) -> None:
    image = an_image(np.zeros((5, 4, 6), "u2"), frames=True)

    with pytest.raises(UndecodablePixels, match="it has 5 frames"):
        decode(image, frame)


def test_color_by_plane_comes_out_by_pixel() -> None:
    colored = np.arange(2 * 4 * 3, dtype="u1").reshape(2, 4, 3)
    image = an_image(colored, PlanarConfiguration=1)
    image.PixelData = np.moveaxis(colored, 2, 0).tobytes()

    np.testing.assert_array_equal(decode(image), colored)


def test_ybr_comes_out_as_rgb() -> None:
    gray_ybr = np.full((2, 2, 3), 128, "u1")
    gray_ybr[..., 0] = 77

    values = decode(an_image(gray_ybr, PhotometricInterpretation="YBR_FULL"))

    np.testing.assert_array_equal(values, np.full((2, 2, 3), 77))


def test_single_bits_are_unpacked() -> None:
    image = an_image(np.zeros((3, 8), "u1"), BitsAllocated=1, BitsStored=1, HighBit=0)
    image.PixelData = bytes([0b00000001, 0b10000000, 0b11111111, 0])

    values = decode(image)

    assert values.tolist() == [[1, *[0] * 7], [*[0] * 7, 1], [1] * 8]


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"]
)
def test_lossless_compression_loses_nothing(name: str) -> None:
    native = pydicom.dcmread(get_testdata_file("MR_small.dcm"))

    values = decode(pydicom.dcmread(get_testdata_file(name)))

    np.testing.assert_array_equal(values, decode(native))


@pytest.mark.parametrize(
    "name",
    [
        "JPGExtended.dcm",
        "JPEGLSNearLossless_16.dcm",
        "JPEG2000.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_rle_2frame.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "rtdose_rle.dcm",
    ],
)
def test_every_family_of_compression_is_read(name: str) -> None:
    dataset = pydicom.dcmread(get_testdata_file(name))

    values = decode(dataset)

    assert values.shape[:2] == (dataset.Rows, dataset.Columns)
    assert values.min() < values.max()


def test_an_old_instance_that_says_little_is_read() -> None:
    image = an_image(a_gradient().astype("u2"))
    for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"):
        delattr(image, keyword)

    np.testing.assert_array_equal(decode(image), a_gradient().astype("u2"))


def test_a_number_of_frames_that_is_no_number_means_one() -> None:
    image = an_image(a_gradient().astype("u2"))
    image.NumberOfFrames = None

    assert frame_count(image) == 1


def test_truncated_native_pixels_are_refused_with_the_sizes() -> None:
    image = an_image(np.zeros((4, 6), "u2"))
    image.PixelData = image.PixelData[:-10]

    with pytest.raises(UndecodablePixels, match="truncated: 38 of 48 bytes"):
        decode(image)


@pytest.mark.parametrize(
    "name",
    [
        "JPGExtended.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "JPEGLSNearLossless_08.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_RLE.dcm",
    ],
)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.98])
def test_truncated_compressed_pixels_are_refused(name: str, part: float) -> None:
    dataset = pydicom.dcmread(get_testdata_file(name))
    [coded] = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([coded[: int(len(coded) * part)]])

    with pytest.raises(UndecodablePixels, match=r"truncated|damaged or incomplete"):
        decode(dataset)


@given(st.binary(min_size=1, max_size=300))
def test_noise_instead_of_a_compressed_frame_is_refused(noise: bytes) -> None:
    dataset = pydicom.dcmread(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))
    dataset.PixelData = encapsulate([noise])

    with pytest.raises(UndecodablePixels):
        decode(dataset)


def test_a_text_is_no_picture() -> None:
    image = an_image(a_gradient().astype("u2"))
    del image.PixelData

    with pytest.raises(UndecodablePixels, match="no pixel data"):
        decode(image)


def test_a_film_is_refused_by_the_name_of_its_transfer_syntax() -> None:
    image = an_image(a_gradient().astype("u1"), transfer_syntax_uid=MPEG4HP41)

    with pytest.raises(UndecodablePixels, match="no decoder for the transfer syntax MPEG-4"):
        decode(image)


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated"])
def test_what_the_image_pixel_module_lacks_is_named(keyword: str) -> None:
    image = an_image(a_gradient().astype("u2"))
    delattr(image, keyword)

    with pytest.raises(UndecodablePixels, match=keyword):
        decode(image)


def test_a_missing_transfer_syntax_is_named() -> None:
    image = an_image(a_gradient().astype("u2"))
    del image.file_meta.TransferSyntaxUID

    with pytest.raises(UndecodablePixels, match=r"\(0002,0010\)"):
        decode(image)


def test_undecodable_pixels_are_not_tried_again() -> None:
    assert issubclass(UndecodablePixels, PermanentError)


@pytest.mark.parametrize("keyword", ["Rows", "BitsAllocated", "SamplesPerPixel"])
def test_an_image_pixel_module_that_cannot_be_parsed_is_refused(keyword: str) -> None:
    image = an_image(a_gradient().astype("u2"))
    tag = Tag(keyword)
    image._dict[tag] = RawDataElement(tag, "US", 3, b"\xff\0\xfe", 0, False, True)

    with pytest.raises(UndecodablePixels):
        decode(image)


def test_a_number_of_frames_that_cannot_be_parsed_means_one() -> None:
    image = an_image(a_gradient().astype("u2"))
    tag = Tag("NumberOfFrames")
    image._dict[tag] = RawDataElement(tag, "FD", 3, b"\xff\0\xfe", 0, False, True)

    assert frame_count(image) == 1
