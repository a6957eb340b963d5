"""What we show is what DCMTK shows, within one level of gray where nothing lossy is between."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import JPEGLSTransferSyntaxes

from imaging_pixels.decode import UndecodablePixels, frame_count
from imaging_pixels.render import render
from tests.peers.processes import find_program, require
from tests.synthetic_images import a_gradient, an_image, write

PYDICOM_FILES = [
    "CT_small.dcm",
    "ExplVR_BigEnd.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_16bit.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "examples_overlay.dcm",
    "examples_palette.dcm",
    "examples_rgb_color.dcm",
    "rtdose.dcm",
]
# What one level of the inverse cosine transform makes of a value, the rescale and window multiply.
LOSSY = {"JPGExtended.dcm": 2, "ct_chest_jpeg_baseline.dcm": 24}


def as_dcmtk_shows_it(file: Path, frame: int, folder: Path) -> Any:
    """Return DCMTK's rendering, or ``None`` where it has no decoder."""
    dataset = pydicom.dcmread(file, stop_before_pixels=True)
    if "VOILUTSequence" in dataset:
        how = ["+Wl", "1"]
    elif dataset.get("WindowCenter") not in (None, ""):
        how = ["+Wi", "1"]
    else:
        how = ["+Wm"] if dataset.BitsStored > 8 else []
    is_jpeg_ls = dataset.file_meta.TransferSyntaxUID in JPEGLSTransferSyntaxes
    program = "dcml2pnm" if is_jpeg_ls else "dcmj2pnm"
    picture = folder / "dcmtk.pnm"
    picture.unlink(missing_ok=True)
    subprocess.run(
        [
            require(find_program(program), program, "dcmtk"),
            *("+F", str(frame + 1), *how, "-O", "+op", str(file), str(picture)),
        ],
        check=False,
        capture_output=True,
    )
    if not picture.exists():
        return None
    pixels = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels


def greatest_difference(file: Path, folder: Path, frame: int = 0) -> int:
    wanted = as_dcmtk_shows_it(file, frame, folder)
    assert wanted is not None
    ours = render(pydicom.dcmread(file), frame)
    assert ours.shape == wanted.shape
    return int(np.abs(ours.astype(int) - wanted.astype(int)).max())


@pytest.mark.parametrize("name", [*PYDICOM_FILES, "JPGExtended.dcm"])
def test_pydicoms_own_files_look_the_same(name: str, tmp_path: Path) -> None:
    file = Path(str(get_testdata_file(name)))

    assert greatest_difference(file, tmp_path) <= LOSSY.get(name, 1)


def a_table(first: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, first, 10])
    item.add_new("LUTData", "US", [round(1023 * (step / 255) ** 2) for step in range(256)])
    return item


@pytest.mark.parametrize("photometric_interpretation", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("kind", "bits_stored"), [("u1", 8), ("u2", 10), ("u2", 12), ("u2", 16), ("i2", 12), ("i2", 16)]
)
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"WindowCenter": 100, "WindowWidth": 150},
        {"WindowCenter": 100, "WindowWidth": 150, "VOILUTFunction": "SIGMOID"},
        {"RescaleSlope": 2.5, "RescaleIntercept": -40, "WindowCenter": 60, "WindowWidth": 333},
        {"ModalityLUTSequence": [a_table(10)], "WindowCenter": 300, "WindowWidth": 400},
        {"VOILUTSequence": [a_table(20)]},
    ],
    ids=["plain", "window", "sigmoid", "rescale", "modality_lut", "voi_lut"],
)
def test_every_grayscale_pipeline_looks_the_same(
    kind: str,
    bits_stored: int,
    photometric_interpretation: str,
    attributes: dict[str, Any],
    tmp_path: Path,
) -> None:
    low = -(2 ** (bits_stored - 1)) if kind == "i2" else 0
    stored = a_gradient(64, 64, low=low, high=low + 2**bits_stored - 1).astype(kind)
    image = an_image(
        stored,
        BitsStored=bits_stored,
        HighBit=bits_stored - 1,
        PhotometricInterpretation=photometric_interpretation,
        **attributes,
    )
    if "ModalityLUTSequence" in attributes:
        image.ModalityLUTSequence[0].ModalityLUTType = "US"

    assert greatest_difference(write(image, tmp_path / "image.dcm"), tmp_path) <= 1


def test_real_instances_look_the_same(test_data: Path, tmp_path: Path) -> None:
    compared, differing = 0, {}
    for file in sorted((test_data / "dicom").rglob("*.dcm")):
        dataset = pydicom.dcmread(file, force=True, defer_size=1024) if _is_read(file) else None
        # Segmentations are masks, not pictures: a single bit has no gray to agree on.
        if dataset is None or dataset.get("Modality") == "SEG":
            continue
        frame = frame_count(dataset) // 2
        if as_dcmtk_shows_it(file, frame, tmp_path) is None:
            continue  # JPEG 2000: Debian's DCMTK has no decoder.
        compared += 1
        difference = greatest_difference(file, tmp_path, frame)
        if difference > LOSSY.get(file.name, 1):
            differing[file.name] = difference

    assert differing == {}
    assert compared >= 35


def _is_read(file: Path) -> bool:
    try:
        render(pydicom.dcmread(file, force=True))
    except (UndecodablePixels, OSError):
        return False
    return True
