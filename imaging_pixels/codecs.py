"""From the compressed bytes of one frame to cells, by transfer syntax (PS3.5 §8.2, §A.4)."""

from typing import Any

import cv2
import jpeg_ls
import libjpeg
import numpy as np
import openjpeg
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging_pixels.codestream import CodedFrame, as_rgb_or_not, jpeg_2000_frame, jpeg_frame
from imaging_pixels.image_pixel import MOST_BYTES, ImagePixel, UndecodablePixels
from imaging_pixels.rle import rle_frame
from imaging_pixels.stored_bits import StoredValues, cell_type, cut

_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
_JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
_JPEG_2000 = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
_DCT = (0, 1, 2)
_COLOR_BY_PLANE = 0


def reads(transfer_syntax_uid: UID) -> bool:
    """Tell whether a compressed transfer syntax is one of those that are read."""
    return transfer_syntax_uid in (*_JPEG, *_JPEG_LS, *_JPEG_2000, RLELossless)


def decompressed(coded: bytes, image: ImagePixel) -> tuple[StoredValues, bool]:
    """Return the stored values of a frame, and whether its three samples are RGB.

    Raises
    ------
    UndecodablePixels
        The frame is cut off, or not of the size or kind that the Image Pixel module promises.
        The codecs raise errors of many other types about broken bytes.
    """
    says_rgb = not image.photometric_interpretation.startswith("YBR")
    uid = image.transfer_syntax_uid
    if uid == RLELossless:
        cells = rle_frame(coded, image)
        values = cut(cells, bits=image.bits_stored, top=image.high_bit, signed=image.is_signed)
        return values, says_rgb
    frame = _header(coded, uid)
    _check_size(frame, image)
    is_rgb = says_rgb if frame.is_rgb is None else frame.is_rgb
    if uid in _JPEG_2000:
        # The codec undoes the color transformation; of YBR_ICT and YBR_RCT it is the whole.
        is_rgb = is_rgb or image.photometric_interpretation in ("YBR_ICT", "YBR_RCT")
        cells = openjpeg.decode(frame.codestream)
    elif uid in _JPEG_LS:
        cells = _jpeg_ls(frame)
    elif frame.process in _DCT and frame.precision == 8:  # noqa: PLR2004 - bits
        cells, is_rgb = _jpeg_of_8_bits(frame, is_rgb=is_rgb), True
    else:
        cells = libjpeg.decode(frame.codestream)
    shape = (image.rows, image.columns, 3)[: cells.ndim]
    if cells.shape != shape:
        raise UndecodablePixels("the compressed frame cannot be decompressed to its size")
    return _values(np.asarray(cells), frame, image), is_rgb


def check_decompressed_size(coded: bytes, transfer_syntax_uid: UID) -> None:
    """Look at the header of a frame; what says nothing of its size passes.

    Raises
    ------
    UndecodablePixels
        It claims more than :data:`imaging_pixels.image_pixel.MOST_BYTES`, or is cut off.
    """
    if transfer_syntax_uid == RLELossless or not reads(transfer_syntax_uid):
        return
    frame = _header(coded, transfer_syntax_uid)
    if frame.rows * frame.columns * frame.samples * -(-frame.precision // 8) > MOST_BYTES:
        raise UndecodablePixels(f"a compressed frame claims more than {MOST_BYTES >> 20} MiB")


def _header(coded: bytes, uid: UID) -> CodedFrame:
    return jpeg_2000_frame(coded) if uid in _JPEG_2000 else jpeg_frame(coded)


def _check_size(frame: CodedFrame, image: ImagePixel) -> None:
    if (frame.rows, frame.columns) != (image.rows, image.columns):
        raise UndecodablePixels("the compressed frame has not the size that Rows and Columns say")
    if frame.samples != image.samples_per_pixel:
        raise UndecodablePixels(
            "the compressed frame has not as many samples as SamplesPerPixel (0028,0002) says"
        )


def _jpeg_of_8_bits(frame: CodedFrame, *, is_rgb: bool) -> StoredValues:
    """Decompress by the Independent JPEG Group's arithmetic, as most do; color comes out as RGB."""
    stream = as_rgb_or_not(frame.codestream, is_rgb=is_rgb)
    cells: Any = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_UNCHANGED)
    if cells is None:
        raise UndecodablePixels("the pixel data is damaged: the compressed frame has no picture")
    # OpenCV has blue first.
    return np.asarray(cells if frame.samples == 1 else cells[..., ::-1])


def _jpeg_ls(frame: CodedFrame) -> StoredValues:
    content, header = jpeg_ls.decode_pixel_data(frame.codestream)
    cells = np.frombuffer(content, cell_type(frame.precision, signed=False))
    if frame.samples == 1:
        return cells.reshape(frame.rows, frame.columns)
    if header["interleave_mode"] == _COLOR_BY_PLANE:
        return cells.reshape(frame.samples, frame.rows, frame.columns).transpose(1, 2, 0)
    return cells.reshape(frame.rows, frame.columns, frame.samples)


def _values(cells: StoredValues, frame: CodedFrame, image: ImagePixel) -> StoredValues:
    """Cut stored values out of what came out of a codec.

    Most codecs know no sign, and encoders differ in whether they compress the stored bits or the
    whole cell with them.
    """
    has_whole_cell = frame.precision > image.high_bit
    bits = min(frame.precision, image.bits_stored)
    top = image.high_bit if has_whole_cell else bits - 1
    wide = np.ascontiguousarray(cells).astype(
        cell_type(max(image.bits_allocated, frame.precision), signed=cells.dtype.kind == "i")
    )
    return cut(wide, bits=bits, top=top, signed=image.is_signed)
