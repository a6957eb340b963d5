"""One frame of an instance: from the bytes of Pixel Data to stored values (PS3.5 §8)."""

import math
import warnings
from typing import Any

import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from service_runtime.errors import PermanentError

StoredValues = npt.NDArray[Any]
"""``[rows, columns]``, or ``[rows, columns, 3]`` where there are three samples per pixel."""

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_REQUIRED = ("Rows", "Columns", "BitsAllocated")


class UndecodablePixels(PermanentError):
    """The instance has no pixels that can be read; the text says why and quotes no value of it."""


def frame_count(dataset: Dataset) -> int:
    """Return the Number of Frames (0028,0008); one where it is absent, empty or not a number."""
    try:
        return max(int(dataset.get("NumberOfFrames") or 1), 1)
    except Exception:  # noqa: BLE001
        # An element that is cut off, or claims another VR, fails in many ways.
        return 1


def decode(dataset: Dataset, frame: int = 0) -> StoredValues:
    """Return the stored values of one frame, counted from 0; color comes out as RGB.

    Gray and palette frames are ``[rows, columns]``: what lies outside Bits Stored is cut off and
    signed values are signed (PS3.5 §8.1.1). Three samples per pixel are ``[rows, columns, 3]``,
    converted from YBR and from color by plane. Only the frame that was asked for is decompressed.

    Raises
    ------
    UndecodablePixels
        There are none, they are broken or truncated, the Image Pixel module is incomplete, or
        nothing here reads the transfer syntax.
    """
    transfer_syntax_uid = _transfer_syntax_of(dataset)
    try:
        _check_image_pixel_module(dataset, frame)
        if not transfer_syntax_uid.is_compressed:
            _check_length(dataset)
    except UndecodablePixels:
        raise
    except Exception as error:
        # An element that is cut off, or claims another VR, fails in many ways.
        raise UndecodablePixels("the Image Pixel module is damaged") from error
    try:
        decoder = get_decoder(transfer_syntax_uid)
    except NotImplementedError:
        raise UndecodablePixels(
            f"no decoder for the transfer syntax {transfer_syntax_uid.name}"
        ) from None
    try:
        # pydicom warns with values of the data set, which belong in no log.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if transfer_syntax_uid in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
                _check_end_of_image(dataset, frame)
            values, _ = decoder.as_array(dataset, index=frame, **_options(dataset))
    except UndecodablePixels:
        raise
    except Exception as error:
        # Whatever a codec makes of broken bytes: its text may quote them, so it is not passed on.
        raise UndecodablePixels(
            f"the pixel data is damaged or incomplete ({transfer_syntax_uid.name})"
        ) from error
    if values.ndim not in (2, 3):
        raise UndecodablePixels("Samples per Pixel (0028,0002) is neither 1 nor 3")
    return values if values.ndim > 2 else _stored_bits(values, dataset)  # noqa: PLR2004


def _transfer_syntax_of(dataset: Dataset) -> UID:
    meta = getattr(dataset, "file_meta", None)
    transfer_syntax_uid = meta.get("TransferSyntaxUID") if meta is not None else None
    if not transfer_syntax_uid:
        raise UndecodablePixels("the Transfer Syntax UID (0002,0010) is missing")
    uid = UID(transfer_syntax_uid)
    if not uid.is_transfer_syntax and not uid.is_private:
        raise UndecodablePixels("the Transfer Syntax UID (0002,0010) names no transfer syntax")
    return uid


def _check_image_pixel_module(dataset: Dataset, frame: int) -> None:
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        raise UndecodablePixels("there is no pixel data in it")
    for keyword in _REQUIRED:
        if not isinstance(dataset.get(keyword), int) or dataset[keyword].value < 1:
            raise UndecodablePixels(f"{keyword} is missing or not a positive number")
    if not 0 <= frame < frame_count(dataset):
        raise UndecodablePixels(f"it has {frame_count(dataset)} frames, and no frame {frame}")


def _check_length(dataset: Dataset) -> None:
    """Compare the length of native pixel data with what the Image Pixel module promises."""
    value = next(dataset[keyword].value for keyword in _PIXEL_KEYWORDS if keyword in dataset)
    samples = dataset.get("SamplesPerPixel") or 1
    bits = dataset.BitsAllocated
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        # Two pixels share their chrominance (PS3.3 §C.7.6.3.1.2).
        samples = 2
    per_frame = dataset.Rows * dataset.Columns * samples * bits
    needed = math.ceil(per_frame * frame_count(dataset) / 8)
    present = len(value) if value is not None else 0
    if present < needed:
        raise UndecodablePixels(
            f"the pixel data is truncated: {present} of {needed} bytes are there"
        )


def _check_end_of_image(dataset: Dataset, frame: int) -> None:
    """Refuse a JPEG or JPEG-LS frame without its end (ITU-T T.81 §B.1.1.3, T.87 §C.1).

    The codecs fill what is missing with gray and say nothing. Within a scan neither marker can
    occur, because both codings stuff what follows a byte of ones.
    """
    coded = get_frame(dataset.PixelData, frame, number_of_frames=frame_count(dataset))
    if coded.rfind(_END_OF_IMAGE) <= coded.rfind(_START_OF_SCAN):
        raise UndecodablePixels("the pixel data is truncated: the compressed frame has no end")


def _options(dataset: Dataset) -> dict[str, Any]:
    """Return what is taken to be so where an old instance says nothing.

    Unused bits are left to :func:`_stored_bits`, which knows High Bit.
    """
    bits_allocated = dataset.BitsAllocated
    assumed = {
        "SamplesPerPixel": ("samples_per_pixel", 1),
        "PhotometricInterpretation": ("photometric_interpretation", "MONOCHROME2"),
        "PixelRepresentation": ("pixel_representation", 0),
        "BitsStored": ("bits_stored", bits_allocated),
    }
    missing = {
        option: value
        for keyword, (option, value) in assumed.items()
        if dataset.get(keyword) in (None, "")
    }
    return {"correct_unused_bits": False, **missing}


def _stored_bits(values: StoredValues, dataset: Dataset) -> StoredValues:
    """Cut a sample out of its cell: Bits Stored bits that end at High Bit (PS3.5 §8.1.1).

    Overlays in the bits above, and High Bits of old instances that are not Bits Stored - 1, are
    the reason. Decompressed samples lie at the bottom of their cell already.
    """
    if values.dtype.kind not in "iu":
        return values
    cell = values.dtype.itemsize * 8
    stored = int(dataset.get("BitsStored") or cell)
    high_bit = dataset.get("HighBit")
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    top = stored - 1 if high_bit is None or compressed else int(high_bit)
    if not (0 < stored <= cell and stored - 1 <= top < cell) or (stored == cell):
        return values
    native = values.astype(values.dtype.newbyteorder("="))
    # Left to the top of the cell, then back down: the second shift brings the sign with it.
    cut: StoredValues = (native << (cell - 1 - top)) >> (cell - stored)
    return cut
