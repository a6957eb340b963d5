"""What we show of instances that nobody has is what DCMTK shows, within one level of gray.

Where the two differ, the Standard is followed: see the comments on what is left out here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from imaging_pixels.decode import decode
from imaging_pixels.render import render
from tests.drawn_images import NATIVE, a_table, cells_and_values, transformations, with_cells
from tests.peers.pixel_readers import as_dcmtk_shows_it
from tests.synthetic_images import a_gradient, an_image, write

# One process of DCMTK per example: a handful in each run, and others in the next.
handful = settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=False
)
GRAY = ["MONOCHROME1", "MONOCHROME2"]


def greatest_difference(image: Dataset, folder: Path, frame: int = 0, *options: str) -> int:
    file = write(image, folder / "image.dcm")
    wanted = as_dcmtk_shows_it(file, frame, folder, *options)
    assert wanted is not None
    ours = render(pydicom.dcmread(file), frame)
    assert ours.shape == wanted.shape
    return int(np.abs(ours.astype(int) - wanted.astype(int)).max())


# Of frames of an odd number of bytes in words, DCMTK takes the last byte from the wrong word.
@handful
@given(drawn=cells_and_values(widths=(8, 12, 16, 24, 32), most_frames=1))
def test_cells_of_any_width_hold_the_same_values(
    drawn: tuple[Dataset, Any], tmp_path: Path
) -> None:
    image, _ = drawn
    image.PhotometricInterpretation = "MONOCHROME2"

    wanted = as_dcmtk_shows_it(write(image, tmp_path / "image.dcm"), 0, tmp_path, "-W")

    # DCMTK shifts what has fewer than 8 bits up, so that white is not white, where the P-Values of
    # PS3.3 §C.11.6 span the whole range. What it has read can be told from it all the same.
    bits = image.BitsStored
    stored = decode(image).astype(float)
    fraction = (stored + (2 ** (bits - 1) if image.PixelRepresentation else 0)) / 2**bits
    assert np.abs(fraction * 256 - wanted).max() <= 2


@pytest.mark.parametrize("photometric_interpretation", GRAY)
@pytest.mark.parametrize(
    ("kind", "bits_stored"), [("u1", 8), ("u2", 10), ("u2", 12), ("u2", 16), ("i2", 12), ("i2", 16)]
)
def test_what_has_no_window_looks_the_same(
    kind: str, bits_stored: int, photometric_interpretation: str, tmp_path: Path
) -> None:
    low = -(2 ** (bits_stored - 1)) if kind == "i2" else 0
    image = an_image(
        a_gradient(64, 64, low=low + 3, high=low + 2**bits_stored - 9).astype(kind),
        BitsStored=bits_stored,
        HighBit=bits_stored - 1,
        PhotometricInterpretation=photometric_interpretation,
    )

    assert greatest_difference(image, tmp_path) <= 1


@handful
@given(
    # DCMTK cuts what a rescale gives to whole numbers, of which PS3.3 §C.11.1 knows nothing.
    attributes=transformations(functions=("LINEAR", "SIGMOID"), slopes=("1", "2", "-1")),
    photometric_interpretation=st.sampled_from(GRAY),
    signed=st.booleans(),
    transfer_syntax_uid=st.sampled_from(NATIVE),
)
def test_every_grayscale_pipeline_looks_the_same(
    attributes: dict[str, Any],
    photometric_interpretation: str,
    signed: bool,
    transfer_syntax_uid: Any,
    tmp_path: Path,
) -> None:
    low = -2048 if signed else 0
    image = an_image(
        a_gradient(64, 64, low=low, high=low + 4095).astype("i2" if signed else "u2"),
        BitsStored=12,
        HighBit=11,
        PhotometricInterpretation=photometric_interpretation,
        **attributes,
    )
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = pydicom.dcmread(write(image, tmp_path / "drawn.dcm"))
    if transfer_syntax_uid.is_little_endian:
        image.file_meta.TransferSyntaxUID = transfer_syntax_uid

    assert greatest_difference(image, tmp_path) <= 1


@pytest.mark.parametrize("transfer_syntax_uid", NATIVE, ids=lambda uid: uid.name)
@pytest.mark.parametrize("is_planar", [False, True], ids=["by_pixel", "by_plane"])
@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("photometric_interpretation", ["RGB", "YBR_FULL"])
def test_colors_look_the_same(
    photometric_interpretation: str,
    width: int,
    is_planar: bool,
    transfer_syntax_uid: Any,
    tmp_path: Path,
) -> None:
    colored = np.random.default_rng(5).integers(0, 2**width, (9, 11, 3))
    image = an_image(colored.astype(f"u{width // 8}"), PlanarConfiguration=int(is_planar))
    image.PhotometricInterpretation = photometric_interpretation
    cells = colored.transpose(2, 0, 1) if is_planar else colored

    image = with_cells(image, cells, transfer_syntax_uid)

    # Of YBR with 8 bits DCMTK cuts each product to a whole number (PS3.3 §C.7.6.3.1.2 has none).
    assert greatest_difference(image, tmp_path) <= (2 if photometric_interpretation != "RGB" else 1)


@pytest.mark.parametrize("photometric_interpretation", ["YBR_FULL_422", "YBR_PARTIAL_422"])
def test_shared_colors_look_the_same(photometric_interpretation: str, tmp_path: Path) -> None:
    cells = np.random.default_rng(6).integers(16, 236, 12 * 10 * 2)
    image = an_image(np.zeros((12, 10, 3), "u1"))
    image.PhotometricInterpretation = photometric_interpretation

    image = with_cells(image, cells, ExplicitVRLittleEndian)

    assert greatest_difference(image, tmp_path) <= 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2"])
def test_palettes_look_the_same(kind: str, bits: int, tmp_path: Path) -> None:
    first = -20 if kind == "i2" else 20
    stored = (np.arange(120).reshape(10, 12) + first - 10).astype(kind)
    image = an_image(stored, PhotometricInterpretation="PALETTE COLOR")
    entries = np.random.default_rng(7).integers(0, 2**bits, (3, 100)).astype(f"<u{bits // 8}")
    for color, table in zip(("Red", "Green", "Blue"), entries, strict=True):
        keyword = f"{color}PaletteColorLookupTable"
        image.add_new(f"{keyword}Descriptor", "SS" if first < 0 else "US", [100, first, bits])
        image.add_new(f"{keyword}Data", "OW", table.tobytes())

    assert greatest_difference(image, tmp_path) <= 1


def test_overlays_in_unused_bits_are_left_out(tmp_path: Path) -> None:
    stored = a_gradient(32, 32, high=1023).astype("u2")
    image = an_image(stored | 0xA000, BitsStored=10, HighBit=9, WindowCenter=500, WindowWidth=900)
    image.add_new(0x60000100, "US", 16)
    image.add_new(0x60000102, "US", 13)

    assert greatest_difference(image, tmp_path) <= 1


def test_a_table_whose_first_value_has_the_wrong_sign_looks_the_same(tmp_path: Path) -> None:
    image = an_image(
        a_gradient(32, 32, low=-1000, high=1000).astype("i2"),
        VOILUTSequence=[a_table(range(0, 1000, 2), 2**16 - 250, 10)],
    )

    assert greatest_difference(image, tmp_path) <= 1
