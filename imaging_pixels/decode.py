"""One frame of an instance: from the bytes of Pixel Data to stored values (PS3.5 §8)."""

import warnings
from typing import Any

from pydicom import Dataset

from imaging_pixels.codecs import decompressed, reads
from imaging_pixels.color import rgb
from imaging_pixels.encapsulated import coded_frame
from imaging_pixels.image_pixel import (
    ImagePixel,
    UndecodablePixels,
    frame_count,
    image_pixel,
)
from imaging_pixels.native import native_frame
from imaging_pixels.stored_bits import StoredValues

__all__ = ["StoredValues", "UndecodablePixels", "decode", "frame_count"]


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
    image = image_pixel(dataset)
    if not 0 <= frame < image.frames:
        raise UndecodablePixels(f"it has {image.frames} frames, and no frame {frame}")
    name = image.transfer_syntax_uid.name
    if image.transfer_syntax_uid.is_compressed and not reads(image.transfer_syntax_uid):
        raise UndecodablePixels(f"no decoder for the transfer syntax {name}")
    try:
        # Codecs warn with values of the data set, which belong in no log.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(dataset, image, frame)
    except UndecodablePixels:
        raise
    except Exception as error:
        # Whatever a codec makes of broken bytes: its text may quote them, so it is not passed on.
        raise UndecodablePixels(f"the pixel data is damaged or incomplete ({name})") from error


def _decode(dataset: Dataset, image: ImagePixel, frame: int) -> StoredValues:
    element = dataset[image.keyword]
    value = element.value or b""
    if image.transfer_syntax_uid.is_compressed:
        coded = coded_frame(value, frame, image.frames, _extended_offsets(dataset))
        values, is_rgb = decompressed(coded, image)
    else:
        values = native_frame(value, image, frame, vr=element.VR)
        is_rgb = not image.photometric_interpretation.startswith("YBR")
    if image.is_color and not is_rgb:
        return rgb(values, image.photometric_interpretation, image.bits_stored)
    return values


def _extended_offsets(dataset: Dataset) -> tuple[bytes, bytes] | None:
    offsets: Any = dataset.get("ExtendedOffsetTable")
    lengths: Any = dataset.get("ExtendedOffsetTableLengths")
    return (offsets, lengths) if offsets and lengths else None
