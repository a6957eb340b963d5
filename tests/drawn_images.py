"""Instances that hypothesis draws: any depth, sign, transformation and kind of color."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tests.synthetic_images import an_image

NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def packed(cells: Any, width: int) -> bytes:
    """Write cells without a gap, from the lowest bit of the first word up (PS3.5 §8.1.1)."""
    stream = 0
    for number, cell in enumerate(np.asarray(cells).ravel().tolist()):
        stream |= (int(cell) & (2**width - 1)) << (number * width)
    size = -(-np.asarray(cells).size * width // 8)
    return stream.to_bytes(size + size % 2, "little")


def with_cells(image: Dataset, cells: Any, transfer_syntax_uid: UID) -> Dataset:
    """Give an instance these cells, as words of 16 bits."""
    value = packed(cells, image.BitsAllocated)
    image.file_meta.TransferSyntaxUID = transfer_syntax_uid
    if not transfer_syntax_uid.is_little_endian:
        value = np.frombuffer(value, "u2").byteswap().tobytes()
    image.PixelData = value
    image["PixelData"].VR = "OW"
    return image


@st.composite
def cells_and_values(
    draw: st.DrawFn, *, widths: tuple[int, ...] = (1, 2, 8, 12, 16, 24, 32), most_frames: int = 3
) -> tuple[Dataset, Any]:
    """Draw a gray instance whose cells hold garbage beside their values, and the values."""
    width = draw(st.sampled_from(widths))
    bits = draw(st.integers(1, width))
    top = draw(st.integers(bits - 1, width - 1))
    signed = draw(st.booleans()) and bits > 1
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    frames = draw(st.integers(1, most_frames))
    count = rows * columns * frames
    randomness = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low = -(2 ** (bits - 1)) if signed else 0
    values = randomness.integers(low, low + 2**bits, count)
    garbage = randomness.integers(0, 2**width, count)
    mask = (2**bits - 1) << (top + 1 - bits)
    cells = garbage & ~mask | (values << (top + 1 - bits)) & mask
    image = an_image(
        np.zeros((frames, rows, columns), "u1"),
        frames=True,
        BitsAllocated=width,
        BitsStored=bits,
        HighBit=top,
        PixelRepresentation=int(signed),
        PhotometricInterpretation=draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),
    )
    with_cells(image, cells, draw(st.sampled_from(NATIVE)))
    return image, values.reshape(frames, rows, columns)


def a_table(entries: Any, first: int, bits: int, keyword: str = "LUTData") -> Dataset:
    """Make an item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries), first, bits])
    item.add_new(keyword, "US", [int(entry) for entry in entries])
    return item


@st.composite
def tables(draw: st.DrawFn, *, low: int, high: int) -> Dataset:
    """Draw a table whose first input lies between two values."""
    bits = draw(st.integers(8, 16))
    entries = draw(st.lists(st.integers(0, 2**bits - 1), min_size=2, max_size=40))
    return a_table(entries, draw(st.integers(low, high)), bits)


@st.composite
def transformations(
    draw: st.DrawFn, *, functions: tuple[str, ...], slopes: tuple[str, ...]
) -> dict[str, Any]:
    """Draw what makes CT numbers and fractions of brightness, for values of some 12 bits."""
    attributes: dict[str, Any] = {}
    modality = draw(st.sampled_from(["none", "rescale", "table"]))
    if modality == "rescale":
        attributes["RescaleSlope"] = draw(st.sampled_from(slopes))
        attributes["RescaleIntercept"] = str(draw(st.integers(-1024, 1024)))
    elif modality == "table":
        item = draw(tables(low=0, high=100))
        item.ModalityLUTType = "US"
        attributes["ModalityLUTSequence"] = [item]
    if draw(st.booleans()):
        low = -200 if modality == "rescale" and attributes["RescaleIntercept"] < "0" else 0
        attributes["VOILUTSequence"] = [draw(tables(low=low, high=300))]
    else:
        attributes["WindowCenter"] = str(draw(st.integers(-1000, 4000)))
        attributes["WindowWidth"] = str(draw(st.integers(1, 5000)))
        attributes["VOILUTFunction"] = draw(st.sampled_from(functions))
    return attributes
