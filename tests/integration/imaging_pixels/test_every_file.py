"""Every real instance at hand is read as an independent reader reads it, or refused in words."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from imaging_pixels.decode import UndecodablePixels, decode, frame_count
from imaging_pixels.render import render
from inference_worker import decoding
from inference_worker.cell_grid import CellGrid
from inference_worker.decoding import KeptInstance, parse
from inference_worker.study_reading import UnreadableStudy, read_study
from tests.peers.pixel_readers import as_dcmtk_shows_it, native_copy, run, stored_values
from tests.readings import a_model

# Odd values of odd files make pydicom warn.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PYDICOM_DATA = Path(pydicom.__file__).parent / "data"

# ITU-T T.83 lets inverse cosine transforms differ by one; of 8 bits ours is DCMTK's own. What that
# is on a screen hangs on the window, so that the same stored values are compared there.
INEXACT = {"JPEG-lossy.dcm", "JPGExtended.dcm"}

# The pixel data of two ends early, and DCMTK shows the rest black. In the third, which is big
# endian, a sequence of undefined length is a little-endian UN (CP-246): pydicom cannot parse it.
SHOWN_BY_OTHERS = {
    "MR_truncated.dcm",
    "bad_mr_truncated.dcm",
    "bad_ct_undefined_length.dcm",
}

# It says neither its transfer syntax nor its Photometric Interpretation: before PS3.10 nothing did.
READ_BY_US_ALONE = {"ct_no_preamble_acr_nema.dcm"}

REFUSED = {
    "bad_ct_undefined_length.dcm": "its data set cannot be parsed",
    "bad_meta_missing_transfer_syntax.dcm": "Rows is missing",
    "bad_mr_truncated.dcm": "truncated: 8130 of 8192 bytes",
    "nested_private_sq.dcm": "Rows is missing",
    # Four bytes of its header have been written over.
    "JPEG2000-embedded-sequence-delimiter.dcm": "not the size that Rows and Columns say",
    "MR_truncated.dcm": "truncated: 8130 of 8192 bytes",
    "meta_missing_tsyntax.dcm": "Rows is missing",
    "nested_priv_SQ.dcm": "Rows is missing",
}
POOL = ThreadPoolExecutor(1)
WITHOUT_PIXELS = "there is no pixel data in it"


@dataclass(frozen=True)
class Read:
    probabilities: tuple[float, ...]
    cam: npt.NDArray[np.float32]
    refusal: str | None = None
    grid: CellGrid | None = None
    distance: float | None = None


def uncertain(batch: npt.NDArray[np.uint8]) -> Sequence[Read]:
    return [Read((0.2, 0.3, 0.5), np.zeros((4, 4), np.float32)) for _ in batch]


@pytest.fixture(autouse=True)
def _any_picture_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "quality_fault", lambda _picture: None)


def refusal(file: Path) -> str | None:
    """Have a model read the instance as a worker would, and return why it could not."""
    instance = KeptInstance("2.25.7", file.read_bytes)
    try:
        read_study([instance], a_model(), uncertain, POOL)
    except UnreadableStudy as error:
        return str(error)
    return None


def difference(file: Path, folder: Path) -> tuple[int, int] | str | None:
    """Return by how much stored and shown values differ at most, or what else there is to say."""
    try:
        dataset = parse(file.read_bytes())
        decode(dataset)
    except UndecodablePixels:
        dataset = None
    folder.mkdir()
    if dataset is None:
        return "shown by others" if is_shown(file, folder) else None
    copy = native_copy(file, folder)
    native = None if copy is None else pydicom.dcmread(copy)
    if native is None or "PixelData" not in native or "PhotometricInterpretation" not in native:
        return "read by us alone"
    stored, shown = 0, 0
    for frame in sorted({0, frame_count(dataset) - 1}):
        values = decode(dataset, frame)
        picture = render(native if file.name in INEXACT else dataset, frame)
        wanted = as_dcmtk_shows_it(copy, frame, folder)
        far = np.abs(values.astype(np.int64) - stored_values(native, frame))
        stored = max(stored, int(far.max()))
        shown = max(shown, int(np.abs(picture.astype(int) - wanted).max()))
    return stored, shown


def is_shown(file: Path, folder: Path) -> bool:
    """Tell whether another reader shows a picture of it."""
    try:
        copy = native_copy(file, folder)
    except OSError:
        # pydicom cannot even tell its transfer syntax.
        copy = file
    picture = folder / "shown.pnm"
    return copy is not None and run("dcm2pnm", "+op", copy, picture) and picture.exists()


def check(files: Sequence[Path], folder: Path) -> tuple[int, dict[str, Any]]:
    """Compare what can be read: how many, and what is not as it should be."""
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(difference, files, [folder / str(n) for n in range(len(files))]))
    unlike = {
        file.name: what
        for file, what in zip(files, found, strict=True)
        if (isinstance(what, str) and file.name not in READ_BY_US_ALONE | SHOWN_BY_OTHERS)
        or (isinstance(what, tuple) and any(np.greater(what, (file.name in INEXACT, 1))))
    }
    return sum(isinstance(what, tuple) for what in found), unlike


def everything_of_pydicom() -> list[Path]:
    return sorted(each for each in PYDICOM_DATA.rglob("*") if _is_dicom(each))


def _is_dicom(file: Path) -> bool:
    if not file.is_file() or file.suffix not in ("", ".dcm"):
        return False
    return file.suffix == ".dcm" or file.read_bytes()[128:132] == b"DICM"


def test_pydicoms_own_files_are_read_as_other_readers_read_them(tmp_path: Path) -> None:
    compared, unlike = check(everything_of_pydicom(), tmp_path)

    assert unlike == {}
    assert compared >= 95


def test_real_instances_are_read_as_other_readers_read_them(
    test_data: Path, tmp_path: Path
) -> None:
    compared, unlike = check(sorted((test_data / "dicom").rglob("*.dcm")), tmp_path)

    assert unlike == {}
    assert compared >= 42


def test_every_other_file_of_pydicoms_is_refused_in_words() -> None:
    refused = {file.name: refusal(file) for file in everything_of_pydicom()}

    assert unexpected(refused) == {}


def test_every_other_real_instance_is_refused_in_words(test_data: Path) -> None:
    files = sorted((test_data / "dicom").rglob("*.dcm"))

    assert unexpected({file.name: refusal(file) for file in files}) == {}


def unexpected(refused: dict[str, str | None]) -> dict[str, str]:
    return {
        name: reason
        for name, reason in refused.items()
        if reason is not None and REFUSED.get(name, WITHOUT_PIXELS) not in reason
    }


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_what_cannot_be_read_says_why(name: str, reason: str, request: Any) -> None:
    file = PYDICOM_DATA / "test_files" / name
    if not file.exists():
        file = request.getfixturevalue("test_data") / "dicom" / name

    said = refusal(file)

    assert said is not None
    assert said.startswith("The instance cannot be read: ")
    assert reason in said
