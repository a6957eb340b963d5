"""An instance in another transfer syntax, with the same pixel values (PS3.5 §10, Annex A).

Nothing is ever compressed with loss. What was compressed with loss before may be decompressed: the
values are those that any reader of the original sees, so that the SOP Instance UID stays, and Lossy
Image Compression says what the transfer syntax no longer does (PS3.3 §C.7.6.1.1.5). What has been
compressed is decoded again and compared before it is given out.
"""

import warnings
from io import BytesIO
from typing import Any

import numpy.typing as npt
import pydicom
from pydicom import Dataset, config
from pydicom.encaps import generate_fragments, generate_frames
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import compress
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging_pixels.byte_order import from_big_endian
from imaging_pixels.codecs import check_decompressed_size
from imaging_pixels.decode import UndecodablePixels, frame_count
from imaging_pixels.inflation import check_inflated_size
from service_runtime.errors import PermanentError

LOSSY_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    JPEG2000MC: "ISO_15444_2",
    HTJ2K: "ISO_15444_15",
}
"""The Standard's name for what a lossy transfer syntax does (PS3.3 §C.7.6.1.1.5.1)."""

UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
LOSSLESS = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
"""What this module compresses to."""

MOST_BYTES = 2**30
"""Of all frames of one instance, decompressed: they are in memory together."""

_DECODERS = {
    RLELossless: "pydicom",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
}
"""Of others it is pylibjpeg. One for each transfer syntax: pydicom would try another on what one
refuses, and Pillow, once told to by any library of the process, makes something of a frame that is
cut off."""

_OFFSET_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


class NotTranscodable(PermanentError):
    """The instance cannot go into that transfer syntax unchanged; the reason quotes no value."""


def can_be_written_in(transfer_syntax_uid: str) -> bool:
    """Tell whether :func:`transcode` knows this transfer syntax as a target."""
    return transfer_syntax_uid in (*UNCOMPRESSED, *LOSSLESS)


def can_be_read_from(transfer_syntax_uid: str) -> bool:
    """Tell whether the data sets of this transfer syntax can be taken apart here."""
    uid = UID(transfer_syntax_uid, validation_mode=config.IGNORE)
    if uid.is_private or not uid.is_transfer_syntax:
        return False
    if not uid.is_compressed:
        return True
    try:
        return _decoder_of(uid) in get_decoder(uid).available_plugins
    except NotImplementedError:
        return False


def transcode(part_10: bytes, transfer_syntax_uid: str) -> bytes:
    """Return the data set of a Part 10 file in another transfer syntax, without a header.

    Raises
    ------
    NotTranscodable
        One of the two is not known here, the pixels are damaged, or the values would change.
    """
    target = UID(transfer_syntax_uid)
    # pydicom warns with values of the data set, which belong in no log.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_inflated_size(part_10)
            dataset = pydicom.dcmread(BytesIO(part_10))
            source = UID(dataset.file_meta.TransferSyntaxUID)
        except Exception as error:
            raise NotTranscodable("the data set cannot be read") from error
        if not can_be_written_in(target) or not can_be_read_from(source):
            raise NotTranscodable(f"not from {source.name} to {target.name}")
        try:
            _decompress(dataset, source)
            if target in LOSSLESS:
                _compress(dataset, target)
            dataset.file_meta.TransferSyntaxUID = target
            return _encoded(dataset, target)
        except NotTranscodable:
            raise
        except Exception as error:
            # Whatever a codec makes of broken bytes: its text may quote them.
            raise NotTranscodable(f"the pixel data does not go into {target.name}") from error


def _decompress(dataset: Dataset, source: UID) -> None:
    """Leave the data set in a native encoding, little endian; color stays as it was coded."""
    if not source.is_compressed:
        if not source.is_little_endian:
            _swap(dataset)
        if source != ImplicitVRLittleEndian:
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return
    if "PixelData" not in dataset:
        return
    if _native_bytes(dataset) > MOST_BYTES:
        raise NotTranscodable(f"its pixels decompress to more than {MOST_BYTES >> 20} MiB")
    tables: tuple[Any, ...] = tuple(dataset.get(keyword) for keyword in _OFFSET_TABLES)
    for coded in generate_frames(
        dataset.PixelData,
        number_of_frames=frame_count(dataset),
        extended_offsets=(tables[0], tables[1]) if all(tables) else None,
    ):
        # Codecs take the memory that a frame claims, whatever Rows and Columns say.
        check_decompressed_size(coded, source)
    _note_loss(dataset, source)
    frames, image = _decoded(dataset)
    value = b"".join(frames)
    dataset.PixelData = value + b"\0" * (len(value) % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated <= 8 else "OW"  # noqa: PLR2004 - bits
    dataset["PixelData"].is_undefined_length = False
    dataset.PhotometricInterpretation = image["photometric_interpretation"]
    if image["samples_per_pixel"] > 1:
        dataset.PlanarConfiguration = image["planar_configuration"]
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in _OFFSET_TABLES:
        if keyword in dataset:
            del dataset[keyword]


def _swap(dataset: Dataset) -> None:
    """Turn words from big to little endian (PS3.5 §7.3) where pydicom leaves bytes alone."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _swap(item)
        elif isinstance(element.value, bytes):
            element.value = from_big_endian(element.value, element.VR)


def _note_loss(dataset: Dataset, source: UID) -> None:
    """Keep what the transfer syntax tells: once lossy, always lossy."""
    method = LOSSY_METHODS.get(source)
    if method is None:
        return
    ratio = _ratio(dataset)
    dataset.LossyImageCompression = "01"
    if not dataset.get("LossyImageCompressionMethod"):
        dataset.LossyImageCompressionMethod = method
        dataset.LossyImageCompressionRatio = ratio


def _ratio(dataset: Dataset) -> str:
    coded = sum(len(fragment) for fragment in generate_fragments(dataset.PixelData))
    return f"{_native_bytes(dataset) / max(coded, 1):.2f}"


def _native_bytes(dataset: Dataset) -> float:
    """Return the size of all frames without compression."""
    cells: int = dataset.Rows * dataset.Columns * int(dataset.get("SamplesPerPixel") or 1)
    bits: int = dataset.BitsAllocated
    return cells * frame_count(dataset) * bits / 8


def _compress(dataset: Dataset, target: UID) -> None:
    if "PixelData" not in dataset:
        raise NotTranscodable(f"there are no pixels to go into {target.name}")
    before = _cells(dataset)
    bits = dataset.BitsStored, dataset.HighBit
    if target == RLELossless:
        # It codes the bytes of cells, whatever they hold; pydicom would cut off what is not stored.
        dataset.BitsStored, dataset.HighBit = dataset.BitsAllocated, dataset.BitsAllocated - 1
    compress(dataset, target, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = bits
    compressed = dataset.PixelData
    if _cells(dataset) != before:
        # Bits above Bits Stored, for instance, in which old instances keep overlays.
        raise NotTranscodable(f"{target.name} would lose what lies beside the stored bits")
    dataset.PixelData = compressed


def _cells(dataset: Dataset) -> list[bytes]:
    """Return the samples of each frame as native little-endian bytes, color by pixel."""
    try:
        return _decoded(dataset)[0]
    except Exception as error:
        raise UndecodablePixels("the pixel data is damaged or incomplete") from error


def _decoded(dataset: Dataset) -> tuple[list[bytes], dict[str, Any]]:
    """Return each frame as its native bytes, and what the Image Pixel module is to say of them.

    Without a change of color space, which would round, and with what lies beside the stored bits.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    frames: list[bytes] = []
    image: dict[str, Any] = {}
    for samples, properties in get_decoder(syntax).iter_array(
        dataset, as_rgb=False, correct_unused_bits=False, decoding_plugin=_decoder_of(syntax)
    ):
        frames.append(_in_cells(samples, dataset))
        image |= properties
    return frames, image


def _in_cells(samples: npt.NDArray[Any], dataset: Dataset) -> bytes:
    """Return samples in Bits Allocated each: decoders give as many bytes as a precision needs."""
    # Single bits are unpacked into bytes.
    cell_bytes = max(dataset.BitsAllocated // 8, 1)
    if samples.itemsize > cell_bytes:
        raise NotTranscodable("its samples take more than Bits Allocated says")
    if samples.itemsize < cell_bytes and dataset.HighBit != dataset.BitsStored - 1:
        raise NotTranscodable("its samples do not lie at the low end of Bits Allocated")
    return samples.astype(f"<{samples.dtype.kind}{cell_bytes}", copy=False).tobytes()


def _decoder_of(transfer_syntax_uid: UID) -> str:
    if not transfer_syntax_uid.is_compressed:
        return ""
    return _DECODERS.get(transfer_syntax_uid, "pylibjpeg")


def _encoded(dataset: Dataset, target: UID) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = target == ImplicitVRLittleEndian
    buffer.is_little_endian = True
    write_dataset(buffer, dataset)
    return buffer.getvalue()
