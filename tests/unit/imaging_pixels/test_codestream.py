from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openjpeg.utils import encode_array

from imaging_pixels.codestream import as_rgb_or_not, jpeg_2000_frame, jpeg_frame
from imaging_pixels.image_pixel import UndecodablePixels

PICTURE = np.linspace(0, 255, 32 * 48 * 3).astype("u1").reshape(32, 48, 3)
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def a_jpeg() -> bytes:
    return cv2.imencode(".jpg", PICTURE)[1].tobytes()


def an_adobe_marker(transform: int) -> bytes:
    return b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])


def bare() -> bytes:
    """Return the frame without a word about its colors."""
    coded = a_jpeg()
    assert coded[2:20] == JFIF
    return coded[:2] + coded[20:]


def with_identifiers(identifiers: bytes) -> bytes:
    coded = bytearray(bare())
    for place, identifier in enumerate(identifiers):
        coded[coded.index(b"\xff\xc0") + 10 + 3 * place] = identifier
        coded[coded.index(b"\xff\xda") + 5 + 2 * place] = identifier
    return bytes(coded)


def test_a_header_says_size_depth_and_samples() -> None:
    frame = jpeg_frame(a_jpeg())

    assert (frame.rows, frame.columns, frame.samples, frame.precision) == (32, 48, 3, 8)


@pytest.mark.parametrize(
    ("coded", "is_rgb"),
    [
        (a_jpeg(), False),
        (bare(), None),
        (bare()[:2] + an_adobe_marker(0) + bare()[2:], True),
        (bare()[:2] + an_adobe_marker(1) + bare()[2:], False),
        (with_identifiers(b"RGB"), True),
    ],
    ids=["jfif", "nothing", "adobe_rgb", "adobe_ybr", "identifiers"],
)
def test_a_frame_may_say_what_its_colors_are(coded: bytes, is_rgb: bool | None) -> None:
    assert jpeg_frame(coded).is_rgb is is_rgb


@pytest.mark.parametrize("is_rgb", [True, False])
def test_a_frame_is_made_to_say_what_its_colors_are(is_rgb: bool) -> None:
    said = as_rgb_or_not(a_jpeg(), is_rgb=is_rgb)

    assert jpeg_frame(said).is_rgb is is_rgb
    assert jpeg_frame(said).rows == 32


def test_the_spectral_selection_of_a_sequential_scan_is_mended() -> None:
    coded = bytearray(a_jpeg())
    scan = coded.index(b"\xff\xda")
    length = struct.unpack_from(">H", coded, scan + 2)[0]
    coded[scan + 2 + length - 2] = 0

    assert jpeg_frame(bytes(coded)).codestream == a_jpeg()


@given(cut=st.integers(0, 330))
def test_a_header_that_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(UndecodablePixels, match="truncated"):
        jpeg_frame(a_jpeg()[:cut])


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    for read in (jpeg_frame, jpeg_2000_frame):
        for start in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51"):
            with pytest.raises(UndecodablePixels):
                read(start + noise)


@pytest.mark.parametrize("transformed", [True, False])
def test_a_jpeg_2000_header_says_whether_colors_are_transformed(transformed: bool) -> None:
    coded = encode_array(PICTURE, use_mct=transformed, photometric_interpretation=1)

    frame = jpeg_2000_frame(b"a box before it" + bytes(coded))

    assert (frame.rows, frame.columns, frame.samples, frame.precision) == (32, 48, 3, 8)
    assert frame.is_rgb is (True if transformed else None)
    assert frame.codestream == bytes(coded)
