from __future__ import annotations

from typing import Any

import cv2
import jpeg_ls
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from imaging_pixels.decode import UndecodablePixels, decode
from tests.synthetic_images import an_image

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
# One encoder has no room for a frame that compression makes larger, another no patience for less.
LARGER_SHAPES = st.tuples(st.integers(32, 40), st.integers(32, 40))
DEPTHS = st.tuples(st.sampled_from([8, 16]), st.integers(0, 7), st.booleans())


def compressed(image: Dataset, coded: bytes, transfer_syntax_uid: Any) -> Dataset:
    image.file_meta.TransferSyntaxUID = transfer_syntax_uid
    image.PixelData = encapsulate([coded])
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    return image


def values_of(depth: tuple[int, int, bool], shape: tuple[int, ...]) -> tuple[Any, int]:
    """Return values over the whole range of a depth, and how many bits they have."""
    width, spare, signed = depth
    bits = width - spare
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(low, low + 2**bits - 1, int(np.prod(shape))).round()
    return values.reshape(shape).astype(f"{'i' if signed else 'u'}{width // 8}"), bits


@given(SHAPES, st.sampled_from([1, 3]), st.sampled_from(["u1", "u2", "i2"]))
def test_rle_loses_nothing(shape: tuple[int, int], samples: int, kind: str) -> None:
    full = shape if samples == 1 else (*shape, 3)
    stored = (np.arange(np.prod(full)) * 2654435761 // 3).reshape(full).astype(kind)
    if samples == 3 and kind == "i2":
        stored = stored.view("u2")
    image = an_image(stored)
    coded = RLELosslessEncoder.encode(image, index=0, encoding_plugin="pydicom")

    np.testing.assert_array_equal(decode(compressed(image, coded, RLELossless)), stored)


@given(st.lists(st.tuples(st.integers(1, 128), st.integers(0, 255), st.booleans()), max_size=9))
def test_every_kind_of_run_is_unpacked(runs: list[tuple[int, int, bool]]) -> None:
    coded, values = b"", b""
    for length, value, is_literal in runs:
        if is_literal or length == 1:
            literal = bytes((value + place) % 256 for place in range(length))
            coded, values = coded + bytes([length - 1]) + literal, values + literal
        else:
            coded, values = coded + bytes([257 - length, value]), values + bytes([value]) * length
        coded += b"\x80"
    values += b"\7"
    header = np.array([1, 64, *[0] * 14], "<u4").tobytes()
    image = an_image(np.zeros((1, len(values)), "u1"))

    decoded = decode(compressed(image, header + coded + b"\0\7", RLELossless))

    assert decoded.tobytes() == values


@given(SHAPES)
def test_rle_of_single_bits_loses_nothing(shape: tuple[int, int]) -> None:
    stored = (np.arange(np.prod(shape)) * 7919 // 3 % 2).reshape(shape).astype("u1")
    image = an_image(stored, BitsAllocated=1, BitsStored=1, HighBit=0)
    packed = np.packbits(stored.ravel(), bitorder="little").tobytes()
    header = np.array([1, 64, *[0] * 14], "<u4").tobytes()
    coded = header + bytes([len(packed) - 1]) + packed

    decoded = decode(compressed(image, coded, RLELossless))

    np.testing.assert_array_equal(decoded, stored)


def test_an_unknown_transfer_syntax_is_refused() -> None:
    image = an_image(np.zeros((4, 4), "u1"))

    with pytest.raises(UndecodablePixels, match="none that is known"):
        decode(compressed(image, b"\0\0", UID("1.2.840.10008.1.2.8.99")))


@given(LARGER_SHAPES, DEPTHS)
def test_jpeg_ls_loses_nothing(shape: tuple[int, int], depth: tuple[int, int, bool]) -> None:
    stored, bits = values_of(depth, shape)
    image = an_image(stored, BitsStored=bits, HighBit=bits - 1)
    cells = stored.view(f"u{stored.dtype.itemsize}") & (2**bits - 1)
    coded = jpeg_ls.encode_array(np.ascontiguousarray(cells))

    decoded = decode(compressed(image, bytes(coded), JPEGLSLossless))

    np.testing.assert_array_equal(decoded, stored)


@pytest.mark.parametrize("interleave_mode", [0, 1, 2])
def test_jpeg_ls_may_hold_colors_in_three_ways(interleave_mode: int) -> None:
    colored = np.arange(60, dtype="u1").reshape(4, 5, 3)
    planes = colored.transpose(2, 0, 1).copy() if interleave_mode == 0 else colored
    coded = jpeg_ls.encode_array(planes, interleave_mode=interleave_mode)

    decoded = decode(compressed(an_image(colored), bytes(coded), JPEGLSLossless))

    np.testing.assert_array_equal(decoded, colored)


@given(LARGER_SHAPES, DEPTHS, st.booleans())
def test_jpeg_2000_loses_nothing(
    shape: tuple[int, int], depth: tuple[int, int, bool], says_sign: bool
) -> None:
    stored, bits = values_of(depth, shape)
    image = an_image(stored, BitsStored=bits, HighBit=bits - 1)
    cells = stored
    if not says_sign:
        # Many encoders compress signed values as the unsigned ones that have the same bits.
        cells = stored.view(f"u{stored.dtype.itemsize}") & (2**bits - 1)
    coded = encode_array(np.ascontiguousarray(cells), bits_stored=bits)

    decoded = decode(compressed(image, bytes(coded), JPEG2000Lossless))

    np.testing.assert_array_equal(decoded, stored)


def test_a_whole_cell_that_was_compressed_is_cut_by_its_high_bit() -> None:
    values = np.arange(400, dtype="u2").reshape(20, 20) * 10
    image = an_image(values, BitsStored=12, HighBit=14)
    coded = jpeg_ls.encode_array((values << 3) | 0x8005)

    decoded = decode(compressed(image, bytes(coded), JPEGLSLossless))

    np.testing.assert_array_equal(decoded, values)


def a_jpeg(picture: Any) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def test_jpeg_is_read_in_the_depth_of_the_frame_and_not_of_the_cell() -> None:
    picture = np.full((16, 16), 77, "u1")
    image = an_image(picture.astype("u2"), BitsStored=12, HighBit=11)

    decoded = decode(compressed(image, a_jpeg(picture), JPEGBaseline8Bit))

    assert set(decoded.ravel().tolist()) == {77}


@pytest.mark.parametrize("says", ["YBR_FULL_422", "RGB"])
def test_a_jfif_header_tells_colors_whatever_the_data_set_says(says: str) -> None:
    # PS3.5 §8.2.1: the frame's own characteristics count, and JFIF has no RGB (ITU-T T.871).
    colored = np.full((16, 16, 3), (200, 60, 10), "u1")
    image = an_image(colored, PhotometricInterpretation=says)

    decoded = decode(compressed(image, a_jpeg(colored[..., ::-1]), JPEGBaseline8Bit))

    assert np.abs(decoded.astype(int) - colored).max() <= 2


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": 17}, "size that Rows and Columns say"),
        ({"Columns": 8}, "size that Rows and Columns say"),
        ({"Rows": 16, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "as many samples"),
    ],
)
def test_a_frame_of_another_size_is_refused(attributes: dict[str, Any], reason: str) -> None:
    image = an_image(np.zeros((16, 16), "u1"), **attributes)

    with pytest.raises(UndecodablePixels, match=reason):
        decode(compressed(image, a_jpeg(np.zeros((16, 16), "u1")), JPEGBaseline8Bit))


def test_a_frame_of_another_kind_is_refused() -> None:
    image = an_image(np.zeros((16, 16), "u1"))

    with pytest.raises(UndecodablePixels, match="not of the kind that its transfer syntax says"):
        decode(compressed(image, a_jpeg(np.zeros((16, 16), "u1")), JPEG2000Lossless))
