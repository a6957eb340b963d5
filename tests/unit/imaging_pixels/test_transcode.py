"""Another transfer syntax, the same pixel values."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import ImageFile
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from imaging_pixels import codecs, inflation
from imaging_pixels import transcode as transcode_module
from imaging_pixels.decode import decode, frame_count
from imaging_pixels.transcode import (
    LOSSLESS,
    UNCOMPRESSED,
    NotTranscodable,
    can_be_read_from,
    can_be_written_in,
    transcode,
)
from tests.synthetic_images import a_gradient, an_image, part10

TARGETS = (*UNCOMPRESSED, *LOSSLESS)
shapes = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)),
)


def decoded(data_set: bytes, transfer_syntax_uid: str) -> Dataset:
    uid = UID(transfer_syntax_uid)
    read = read_dataset(BytesIO(data_set), uid.is_implicit_VR, uid.is_little_endian)
    read.file_meta = FileMetaDataset()
    read.file_meta.TransferSyntaxUID = uid
    return read


def frames(dataset: Dataset) -> list[Any]:
    return [decode(dataset, place) for place in range(frame_count(dataset))]


def assert_same_pixels(before: Dataset, after: Dataset) -> None:
    for one, other in zip(frames(before), frames(after), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=40)
@given(
    stored=st.sampled_from(["u1", "u2", "i2"]).flatmap(lambda dtype: arrays.arrays(dtype, shapes)),
    target=st.sampled_from(TARGETS),
)
def test_the_pixels_stay_as_they_are(stored: Any, target: str) -> None:
    # The codecs here know no signed color.
    stored = stored.astype("u2") if stored.ndim == 3 and stored.dtype == "i2" else stored
    source = an_image(stored)

    try:
        written = decoded(transcode(part10(source), target), target)
    except NotTranscodable:
        # An encoder refuses what it cannot hold, such as a single column in JPEG 2000.
        assert target in LOSSLESS
        assert min(stored.shape[:2]) < 32
        return

    assert_same_pixels(source, written)
    assert written.SOPInstanceUID == source.SOPInstanceUID


@pytest.mark.parametrize("through", LOSSLESS)
@pytest.mark.parametrize("target", TARGETS)
def test_what_was_compressed_goes_on_to_any_other(through: str, target: str) -> None:
    source = an_image(np.stack([a_gradient(), a_gradient()[::-1]]).astype("u2"), frames=True)
    compressed = decoded(transcode(part10(source), through), through)
    compressed.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    compressed.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID

    written = decoded(transcode(part10(compressed), target), target)

    assert_same_pixels(source, written)
    assert "ExtendedOffsetTable" not in written


def in_fewer_bits(through: UID, dtype: str) -> tuple[Dataset, Dataset]:
    """Return an instance of 8 bits in cells of 16, and the same coded with a precision of 8."""
    stored = np.arange(-128, 128).repeat(4).reshape(32, 32).astype(dtype)
    coded = decoded(transcode(part10(an_image(stored)), through), through)
    for image in (wide := an_image(stored.astype(f"{stored.dtype.kind}2")), coded):
        image.BitsAllocated = 16
        image.BitsStored, image.HighBit = 8, 7
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return wide, coded


@pytest.mark.parametrize("dtype", ["u1", "i1"])
@pytest.mark.parametrize("through", [JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("target", TARGETS)
def test_samples_of_fewer_bits_fill_their_cells(target: UID, through: UID, dtype: str) -> None:
    wide, coded = in_fewer_bits(through, dtype)

    written = decoded(transcode(part10(coded), target), target)

    assert_same_pixels(wide, written)
    assert written.BitsAllocated == 16
    if target in UNCOMPRESSED:
        assert written.PixelData == wide.PixelData
        assert written["PixelData"].VR == "OW"


@pytest.mark.parametrize(
    "uid", [*filter(codecs.reads, AllTransferSyntaxes)], ids=lambda uid: uid.name
)
def test_what_is_read_for_models_can_be_transcoded(uid: UID) -> None:
    assert can_be_read_from(uid)


def test_samples_that_do_not_fit_what_is_said_of_them_are_refused() -> None:
    _, coded = in_fewer_bits(JPEGLSLossless, "u1")
    coded.HighBit = 15

    with pytest.raises(NotTranscodable, match="low end of Bits Allocated"):
        transcode(part10(coded), ExplicitVRLittleEndian)

    of_16 = an_image(a_gradient().astype("u2") * 200)
    larger = decoded(transcode(part10(of_16), JPEGLSLossless), JPEGLSLossless)
    larger.file_meta.MediaStorageSOPClassUID = larger.SOPClassUID
    larger.file_meta.MediaStorageSOPInstanceUID = larger.SOPInstanceUID
    larger.BitsAllocated = larger.BitsStored = 8
    larger.HighBit = 7
    with pytest.raises(NotTranscodable, match="more than Bits Allocated"):
        transcode(part10(larger), ExplicitVRLittleEndian)


@pytest.mark.parametrize("target", UNCOMPRESSED)
def test_words_of_a_big_endian_object_are_turned_wherever_they_are(target: str) -> None:
    source = an_image(a_gradient().astype("u2"), transfer_syntax_uid=ExplicitVRBigEndian)
    lut = Dataset()
    lut.LUTDescriptor = [2, 0, 16]
    lut["LUTDescriptor"].VR = "US"
    lut.LUTData = b"\x00\x01\x00\x02"
    lut["LUTData"].VR = "OW"
    source.ModalityLUTSequence = [lut]

    written = decoded(transcode(part10(source), target), target)

    assert_same_pixels(source, written)
    assert written.ModalityLUTSequence[0].LUTData == b"\x01\x00\x02\x00"


def test_text_in_another_character_set_survives() -> None:
    source = an_image(
        a_gradient().astype("u2"), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg"
    )

    written = decoded(transcode(part10(source), ImplicitVRLittleEndian), ImplicitVRLittleEndian)

    assert str(written.PatientName) == "Müller^Jörg"


def test_lossy_images_are_decompressed_and_say_what_they_were() -> None:
    content = open_test_file("SC_rgb_dcmtk_+eb+cr.dcm")
    source = pydicom.dcmread(BytesIO(content))
    assert source.file_meta.TransferSyntaxUID == JPEGBaseline8Bit

    written = decoded(transcode(content, ExplicitVRLittleEndian), ExplicitVRLittleEndian)

    assert written.LossyImageCompression == "01"
    assert written.LossyImageCompressionMethod == "ISO_10918_1"
    assert float(written.LossyImageCompressionRatio) > 1
    assert written.SOPInstanceUID == source.SOPInstanceUID
    # As they were coded; the reader's way to RGB rounds differently from each.
    assert written.PhotometricInterpretation == source.PhotometricInterpretation
    difference = decode(source).astype(int) - decode(written).astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("target", [JPEG2000Lossless, JPEGLSLossless])
def test_what_lies_beside_the_stored_bits_is_never_lost(target: str) -> None:
    # An overlay in the upper bits, as old instances have them (PS3.5 §8.1.1).
    stored = a_gradient().astype("u2") | np.uint16(0x8000)
    source = an_image(stored, BitsStored=12, HighBit=11)

    with pytest.raises(NotTranscodable, match=r"beside the stored bits|does not go into"):
        transcode(part10(source), target)

    written = decoded(transcode(part10(source), RLELossless), RLELossless)
    plain = decoded(
        transcode(part10(written_with_meta(written, source)), ExplicitVRLittleEndian),
        ExplicitVRLittleEndian,
    )
    assert plain.PixelData == source.PixelData


def written_with_meta(written: Dataset, source: Dataset) -> Dataset:
    written.file_meta.MediaStorageSOPClassUID = source.SOPClassUID
    written.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    return written


def test_what_has_no_pixels_is_written_anew_and_not_compressed() -> None:
    content = open_test_file("test-SR.dcm")

    written = decoded(transcode(content, ImplicitVRLittleEndian), ImplicitVRLittleEndian)

    assert written.SOPInstanceUID == pydicom.dcmread(BytesIO(content)).SOPInstanceUID
    with pytest.raises(NotTranscodable, match="there are no pixels"):
        transcode(content, RLELossless)


@pytest.mark.parametrize("target", [JPEGBaseline8Bit, "1.2.3.4"])
def test_nothing_is_written_in_what_loses_or_is_not_known(target: str) -> None:
    assert not can_be_written_in(target)
    with pytest.raises(NotTranscodable):
        transcode(part10(an_image(a_gradient().astype("u2"))), target)


@pytest.mark.parametrize("source", ["1.2.3.4", "", "1.2.840.10008.1.2.4.102", "not a uid"])
def test_what_is_private_or_a_film_cannot_be_taken_apart(source: str) -> None:
    assert not can_be_read_from(source)


def test_damaged_pixels_are_refused_and_no_value_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a library does that draws what it can of any picture.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    source = pydicom.dcmread(BytesIO(open_test_file("JPEG2000.dcm")))
    source.PixelData = source.PixelData[:200] + b"\xff" * 40

    with pytest.raises(NotTranscodable, match=r"^the pixel data does not go into Explicit VR"):
        transcode(part10(source), ExplicitVRLittleEndian)
    with pytest.raises(NotTranscodable, match="cannot be read"):
        transcode(b"no DICOM", ExplicitVRLittleEndian)


def open_test_file(name: str) -> bytes:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    with open(path, "rb") as file:  # noqa: PTH123 - pydicom gives a str
        return file.read()


def test_what_does_not_fit_into_memory_is_refused_before_it_is_decompressed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = np.zeros((10, 64, 64), "u1")
    native = part10(an_image(stored, frames=True))
    small = decoded(transcode(native, RLELossless), RLELossless)
    small.file_meta.MediaStorageSOPClassUID = small.SOPClassUID
    small.file_meta.MediaStorageSOPInstanceUID = small.SOPInstanceUID
    compressed = part10(small)
    deflated = part10(an_image(stored, transfer_syntax_uid=DeflatedExplicitVRLittleEndian))

    monkeypatch.setattr(transcode_module, "MOST_BYTES", 10 * 64 * 64 - 1)
    with pytest.raises(NotTranscodable, match="decompress to more than"):
        transcode(compressed, ExplicitVRLittleEndian)
    monkeypatch.setattr(inflation, "MOST_BYTES", 10 * 64 * 64 - 1)
    with pytest.raises(NotTranscodable, match="cannot be read"):
        transcode(deflated, ExplicitVRLittleEndian)


@pytest.mark.parametrize("target", [JPEG2000Lossless, JPEGLSLossless])
def test_a_frame_that_claims_more_than_its_instance_is_not_decompressed(
    target: UID, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = decoded(transcode(part10(an_image(np.zeros((64, 64), "u1"))), target), target)
    large.file_meta.MediaStorageSOPClassUID = large.SOPClassUID
    large.file_meta.MediaStorageSOPInstanceUID = large.SOPInstanceUID
    fitting = part10(large)
    large.Rows = large.Columns = 8
    claiming = part10(large)

    def decompress(_: Dataset) -> None:
        raise MemoryError

    monkeypatch.setattr(codecs, "MOST_BYTES", 64 * 64)
    transcode(fitting, ExplicitVRLittleEndian)
    monkeypatch.setattr(codecs, "MOST_BYTES", 64 * 64 - 1)
    monkeypatch.setattr(transcode_module, "_decoded", decompress)
    with pytest.raises(NotTranscodable) as refused:
        transcode(claiming, ExplicitVRLittleEndian)

    assert "claims more than" in str(refused.value.__cause__)
