"""Pixels as DCMTK and GDCM read them: independent of every library that the product reads with.

DCMTK decompresses everything but JPEG 2000, for which Debian's has no decoder; there it is GDCM.
pydicom only takes the native result apart, and the bits are cut as PS3.5 §8.1.1 says.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from tests.peers.processes import find_program, require

_JPEG_2000 = set(JPEG2000TransferSyntaxes)


def run(program: str, *arguments: str | Path, package: str = "dcmtk") -> bool:
    """Run a program and tell whether it succeeded."""
    command = [require(find_program(program), program, package), *arguments]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def native_copy(file: Path, folder: Path) -> Path | None:
    """Have the instance decompressed, or return ``None`` where neither reader can."""
    copy = folder / "native.dcm"
    copy.unlink(missing_ok=True)
    meta = pydicom.dcmread(file, force=True, specific_tags=["SOPClassUID"]).file_meta
    uid = meta.get("TransferSyntaxUID")
    if uid in _JPEG_2000:
        done = False
    elif uid in JPEGTransferSyntaxes:
        done = run("dcmdjpeg", "+te", file, copy)
    elif uid in JPEGLSTransferSyntaxes:
        done = run("dcmdjpls", "+te", file, copy)
    elif uid == RLELossless:
        done = run("dcmdrle", "+te", file, copy)
    else:
        done = run("dcmconv", "+te", file, copy)
    if not done:
        by_gdcm = folder / "gdcm.dcm"
        done = run("gdcmconv", "--raw", file, by_gdcm, package="libgdcm-tools")
        # What somebody wrote as UN is what the dictionary says of it (PS3.5 §6.2.2).
        done = done and run("dcmconv", "+te", "+uc", by_gdcm, copy)
    return copy if done and copy.exists() else None


def stored_values(native: Dataset, frame: int) -> Any:
    """Cut one frame out of native little endian pixel data; YBR becomes RGB."""
    bits, samples = native.BitsAllocated, native.get("SamplesPerPixel", 1)
    count = native.Rows * native.Columns * samples
    interpretation = native.get("PhotometricInterpretation")
    if interpretation == "YBR_FULL_422":
        count = count * 2 // 3
    if bits == 1:
        packed = np.frombuffer(native.PixelData, "u1")
        cells = np.unpackbits(packed, bitorder="little")[frame * count : (frame + 1) * count]
        return cells.reshape(native.Rows, native.Columns)
    kind = f"<u{bits // 8}"
    cells = np.frombuffer(native.PixelData, kind, count, frame * count * bits // 8)
    stored = native.get("BitsStored", bits)
    values = cells.astype(np.int64) >> (native.get("HighBit", stored - 1) + 1 - stored)
    values &= 2**stored - 1
    if native.get("PixelRepresentation") == 1:
        values -= (values >> (stored - 1)) << stored
    if samples == 1:
        return values.reshape(native.Rows, native.Columns)
    if interpretation == "YBR_FULL_422":
        y1, y2, blue, red = values.reshape(-1, 4).T
        values = np.stack([y1, blue, red, y2, blue, red], axis=-1).reshape(-1)
    if native.PlanarConfiguration == 1:
        values = values.reshape(3, -1).T
    values = values.reshape(native.Rows, native.Columns, 3)
    return as_rgb(values, stored) if str(interpretation).startswith("YBR_FULL") else values


def as_rgb(ybr: Any, bits: int) -> Any:
    """Convert YBR_FULL by the equations of PS3.3 §C.7.6.3.1.2, solved for RGB."""
    matrix = [[0.2990, 0.5870, 0.1140], [-0.1687, -0.3313, 0.5000], [0.5000, -0.4187, -0.0813]]
    centered = ybr - np.array([0, 2 ** (bits - 1), 2 ** (bits - 1)])
    return np.clip(np.rint(centered @ np.linalg.inv(matrix).T), 0, 2**bits - 1)


def as_dcmtk_shows_it(file: Path, frame: int, folder: Path, *options: str) -> Any:
    """Return DCMTK's rendering in 8 bits, or ``None`` where it makes none.

    The first VOI LUT or window is asked for; where there is none, more than 8 bits are shown
    between the least and the greatest value.
    """
    dataset = pydicom.dcmread(file, stop_before_pixels=True)
    if options:
        how = [*options]
    elif "VOILUTSequence" in dataset:
        how = ["+Wl", "1"]
    elif dataset.get("WindowCenter") not in (None, ""):
        how = ["+Wi", "1"]
    else:
        how = [] if 1 < dataset.get("BitsStored", 16) <= 8 else ["+Wm"]
    picture = folder / "dcmtk.pnm"
    picture.unlink(missing_ok=True)
    run("dcm2pnm", "+F", str(frame + 1), *how, "-O", "+op", file, picture)
    if not picture.exists():
        return None
    pixels: Any = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels
