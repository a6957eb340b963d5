from __future__ import annotations

import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging_pixels import inflation
from imaging_pixels.file_meta import parse_file_meta
from imaging_pixels.image_pixel import UndecodablePixels
from imaging_pixels.inflation import check_inflated_size
from tests.synthetic_images import an_image, part10


def a_deflated_file() -> bytes:
    stored = np.zeros((8, 8), "u1")
    return part10(an_image(stored, transfer_syntax_uid=DeflatedExplicitVRLittleEndian))


def with_data_set(deflated: bytes) -> bytes:
    content = a_deflated_file()
    meta = parse_file_meta(content)
    assert meta is not None
    return content[: meta.size_bytes] + deflated


def deflated_zeros(mebibytes: int) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = bytes(2**20)
    return b"".join(deflater.compress(block) for _ in range(mebibytes)) + deflater.flush()


def test_what_is_not_deflated_passes() -> None:
    check_inflated_size(part10(an_image(np.zeros((8, 8), "u1"))))
    check_inflated_size(b"")
    check_inflated_size(bytes(500))


def test_a_deflated_file_passes() -> None:
    check_inflated_size(a_deflated_file())
    check_inflated_size(Path(str(get_testdata_file("image_dfl.dcm"))).read_bytes())


def test_a_file_that_inflates_without_end_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inflation, "MOST_BYTES", 2**25)
    content = with_data_set(deflated_zeros(64))
    assert len(content) < 2**17

    tracemalloc.start()
    with pytest.raises(UndecodablePixels, match="inflates to more than 32 MiB"):
        check_inflated_size(content)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 2**23


@given(st.binary(min_size=1, max_size=100))
def test_noise_instead_of_a_deflated_data_set_is_refused_or_small(noise: bytes) -> None:
    try:
        check_inflated_size(with_data_set(noise))
    except UndecodablePixels:
        return
    assert len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(noise)) < 2**20


def test_it_says_how_much_a_data_set_inflates_to() -> None:
    assert check_inflated_size(with_data_set(deflated_zeros(3)), 2**22) == 3 * 2**20
    assert check_inflated_size(part10(an_image(np.zeros((8, 8), "u1")))) == 0
    with pytest.raises(UndecodablePixels, match="inflates to more than 2 MiB"):
        check_inflated_size(with_data_set(deflated_zeros(3)), 2**21)


def test_no_group_length_hides_what_is_deflated() -> None:
    content = with_data_set(deflated_zeros(3))
    # The group that it tells of ends with its first element.
    short = content[:140] + (14).to_bytes(4, "little") + content[144:]

    with pytest.raises(UndecodablePixels, match="File Meta Information is damaged"):
        check_inflated_size(short)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_broken_meta_information_is_refused_or_left_to_the_parser(noise: bytes, place: int) -> None:
    content = part10(an_image(np.zeros((8, 8), "u1")))

    with suppress(UndecodablePixels):
        check_inflated_size(content[:place] + noise)
