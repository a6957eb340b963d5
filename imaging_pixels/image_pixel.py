"""What the Image Pixel module says of an instance's pixels, read once and checked (PS3.3 §C.7.6.3).

Everything that is to be decoded passes through here first, so that no number of a broken or hostile
data set decides how much memory is taken.
"""

from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from service_runtime.errors import PermanentError

MOST_BYTES = 2**28
"""Of one decoded frame. The largest radiograph has a quarter of it; what claims more is broken."""

_PIXEL_KEYWORDS = {"PixelData": 0, "FloatPixelData": 32, "DoubleFloatPixelData": 64}
"""And the Bits Allocated that the element implies (PS3.3 §C.7.6.24, §C.7.6.25)."""

_GRAY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOR = (
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_PARTIAL_422",
    "YBR_PARTIAL_420",
    "YBR_ICT",
    "YBR_RCT",
)
_NATIVE = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
_MOST_BITS = 64
_BYTE = 8
_COLOR_SAMPLES = 3


class UndecodablePixels(PermanentError):
    """The instance has no pixels that can be read; the text says why and quotes no value of it."""


@dataclass(frozen=True)
class ImagePixel:
    """The Image Pixel module of an instance whose numbers fit each other."""

    transfer_syntax_uid: UID
    keyword: str
    """Of the element that holds the pixels: one of three."""
    rows: int
    columns: int
    samples_per_pixel: int
    """1 or 3."""
    photometric_interpretation: str
    planar_configuration: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool

    @property
    def is_float(self) -> bool:
        """Whether the values are floating point numbers."""
        return self.keyword != "PixelData"

    @property
    def is_color(self) -> bool:
        """Whether there are three samples per pixel."""
        return self.samples_per_pixel == _COLOR_SAMPLES


def frame_count(dataset: Dataset) -> int:
    """Return the Number of Frames (0028,0008); one where it is absent, empty or not a number."""
    try:
        return max(int(dataset.get("NumberOfFrames") or 1), 1)
    except Exception:  # noqa: BLE001
        # An element that is cut off, or claims another VR, fails in many ways.
        return 1


def image_pixel(dataset: Dataset) -> ImagePixel:
    """Read the Image Pixel module. What an old instance leaves out is what it then meant.

    Raises
    ------
    UndecodablePixels
        There is no pixel data, or the module is incomplete, contradicts itself, cannot be parsed,
        or claims a frame of more than :data:`MOST_BYTES`.
    """
    try:
        return _image_pixel(dataset)
    except UndecodablePixels:
        raise
    except Exception as error:
        # An element that is cut off, or claims another VR, fails in many ways.
        raise UndecodablePixels("the Image Pixel module is damaged") from error


def _image_pixel(dataset: Dataset) -> ImagePixel:
    transfer_syntax_uid = _transfer_syntax_of(dataset)
    keyword = next((each for each in _PIXEL_KEYWORDS if each in dataset), None)
    if keyword is None:
        raise UndecodablePixels("there is no pixel data in it")
    rows, columns = _positive(dataset, "Rows"), _positive(dataset, "Columns")
    bits_allocated = _PIXEL_KEYWORDS[keyword] or _positive(dataset, "BitsAllocated")
    bits_stored = _whole(dataset, "BitsStored", bits_allocated)
    if _PIXEL_KEYWORDS[keyword]:
        bits_stored = bits_allocated
    if not 1 <= bits_stored <= bits_allocated <= _MOST_BITS:
        raise UndecodablePixels("BitsStored (0028,0101) and BitsAllocated (0028,0100) do not fit")
    high_bit = _whole(dataset, "HighBit", bits_stored - 1)
    if not bits_stored - 1 <= high_bit < bits_allocated:
        high_bit = bits_stored - 1
    samples = _whole(dataset, "SamplesPerPixel", 1)
    if samples not in (1, _COLOR_SAMPLES):
        raise UndecodablePixels("SamplesPerPixel (0028,0002) is neither 1 nor 3")
    size_bytes = rows * columns * samples * max(bits_allocated // _BYTE, 1)
    if size_bytes > MOST_BYTES:
        raise UndecodablePixels(
            f"one frame of it would take {size_bytes >> 20} MiB; up to {MOST_BYTES >> 20} are read"
        )
    return ImagePixel(
        transfer_syntax_uid=transfer_syntax_uid,
        keyword=keyword,
        rows=rows,
        columns=columns,
        samples_per_pixel=samples,
        photometric_interpretation=_photometric_interpretation(dataset, samples),
        planar_configuration=_whole(dataset, "PlanarConfiguration", 0),
        frames=frame_count(dataset),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=high_bit,
        # Color never is (PS3.3 §C.7.6.3.1.1 speaks of gray; §C.7.6.3.1.2 of colors from 0 up).
        is_signed=_whole(dataset, "PixelRepresentation", 0) == 1 and samples == 1,
    )


def _transfer_syntax_of(dataset: Dataset) -> UID:
    meta = getattr(dataset, "file_meta", None)
    transfer_syntax_uid = meta.get("TransferSyntaxUID") if meta is not None else None
    if not transfer_syntax_uid:
        return _native_syntax_of(dataset)
    uid = UID(transfer_syntax_uid)
    if not uid.is_transfer_syntax and not uid.is_private:
        raise UndecodablePixels("the Transfer Syntax UID (0002,0010) names none that is known")
    return uid


def _native_syntax_of(dataset: Dataset) -> UID:
    """Return as what a file without (0002,0010) was parsed; compressed pixels need it to be told.

    Files from before PS3.10 have none and are native.
    """
    encoding: Any = getattr(dataset, "original_encoding", (None, None))
    uid = _NATIVE.get(encoding)
    is_encapsulated = "PixelData" in dataset and dataset["PixelData"].is_undefined_length
    if uid is None or is_encapsulated:
        raise UndecodablePixels("the Transfer Syntax UID (0002,0010) is missing")
    return uid


def _photometric_interpretation(dataset: Dataset, samples: int) -> str:
    value = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    if not value:
        return "MONOCHROME2" if samples == 1 else "RGB"
    if value not in _GRAY + _COLOR:
        raise UndecodablePixels("PhotometricInterpretation (0028,0004) is none that is read here")
    if (value in _COLOR) != (samples == _COLOR_SAMPLES):
        raise UndecodablePixels(
            "PhotometricInterpretation (0028,0004) does not fit SamplesPerPixel (0028,0002)"
        )
    return value


def _positive(dataset: Dataset, keyword: str) -> int:
    value = dataset.get(keyword)
    if not isinstance(value, int) or value < 1:
        raise UndecodablePixels(f"{keyword} is missing or not a positive number")
    return value


def _whole(dataset: Dataset, keyword: str, absent: int) -> int:
    value = dataset.get(keyword)
    if value is None or value == "":
        return absent
    if not isinstance(value, int):
        raise UndecodablePixels(f"{keyword} is not a number")
    return value
