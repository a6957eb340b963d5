"""The heat map over the picture that it explains, as a Secondary Capture (PS3.3 §A.8.1)."""

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import generate_fragments
from pydicom.uid import UID, SecondaryCaptureImageStorage

from imaging_pixels.decode import frame_count
from imaging_pixels.transcode import LOSSY_METHODS
from inference_worker.copied_attributes import put, valid_values
from inference_worker.plane_geometry import patient_orientation
from inference_worker.result_attributes import (
    NOT_FOR_PRIMARY_DIAGNOSIS,
    Kind,
    Reading,
    ResultObject,
    begin,
    can_be_referenced,
    code_item,
    finish,
)
from message_contracts.coding import CodedConcept

_SOURCE_IMAGE = CodedConcept(
    value="121322",
    scheme_designator="DCM",
    meaning="Source image for image processing operation",
)
_BLENDED = CodedConcept(value="113042", scheme_designator="DCM", meaning="Pixel by pixel addition")


def make(
    source: Dataset,
    picture_rgb: npt.NDArray[np.uint8],
    reading: Reading,
    frame: int = 0,
    number: int = 1,
    explained_class: str | None = None,
) -> ResultObject:
    """Return a drawn heat map ``[rows, columns, 3]``, legend and all, as an object of the study.

    ``source`` is the instance that was explained and ``frame`` counts its frames from 0. Captures
    of one reading are numbered from 1, the most telling first. ``explained_class`` is the label of
    what the heat map explains, where that is not what is most probable in the study.
    """
    made, left_out = begin(
        source, reading, Kind.SECONDARY_CAPTURE, SecondaryCaptureImageStorage, number
    )
    made.Modality = "OT"
    made.ConversionType = "WSD"
    made.ImageType = ["DERIVED", "SECONDARY"]
    left_out += _describe_derivation(made, source, frame)
    made.DerivationDescription = (
        f"{NOT_FOR_PRIMARY_DIAGNOSIS}. Grad-CAM heat map of {reading.model.name} "
        f"{reading.model.version} for {explained_class or reading.probabilities[0].label}, "
        "blended over the source."
    )
    _describe_compression(made, source)
    _describe_place(made, source, frame)
    # A legend is no patient data; whether the picture below it has some, only the source knows.
    is_clean = valid_values(source, "BurnedInAnnotation") == ("NO",)
    made.BurnedInAnnotation = "NO" if is_clean else "YES"
    _set_pixels(made, picture_rgb)
    return finish(made, left_out)


def _describe_derivation(made: Dataset, source: Dataset, frame: int) -> tuple[str, ...]:
    made.DerivationCodeSequence = [code_item(_BLENDED)]
    if not can_be_referenced(source):
        return ("SourceImageSequence",)
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if frame_count(source) > 1:
        reference.ReferencedFrameNumber = frame + 1
    reference.PurposeOfReferenceCodeSequence = [code_item(_SOURCE_IMAGE)]
    made.SourceImageSequence = [reference]
    return ()


def _describe_compression(made: Dataset, source: Dataset) -> None:
    """Once lossy, always lossy (PS3.3 §C.7.6.1.1.5)."""
    transfer_syntax_uid = UID(source.file_meta.get("TransferSyntaxUID", ""))
    declared = valid_values(source, "LossyImageCompression")
    if declared == ("01",) or transfer_syntax_uid in LOSSY_METHODS:
        made.LossyImageCompression = "01"
    elif declared == ("00",):
        made.LossyImageCompression = "00"
        return
    else:
        return
    ratios = valid_values(source, "LossyImageCompressionRatio")
    methods = valid_values(source, "LossyImageCompressionMethod")
    if transfer_syntax_uid in LOSSY_METHODS and not (ratios and len(ratios) == len(methods)):
        ratios, methods = (_ratio(source),), (LOSSY_METHODS[transfer_syntax_uid],)
    if ratios and len(ratios) == len(methods):
        put(made, "LossyImageCompressionRatio", ratios)
        put(made, "LossyImageCompressionMethod", methods)


def _ratio(source: Dataset) -> str:
    """Return the size of the pixels in the form that we read them, over their size as kept."""
    coded = sum(len(fragment) for fragment in generate_fragments(source.PixelData))
    samples = int(source.get("SamplesPerPixel") or 1)
    cells = source.Rows * source.Columns * samples * frame_count(source)
    return f"{cells * source.BitsAllocated / 8 / max(coded, 1):.2f}"


def _describe_place(made: Dataset, source: Dataset, frame: int) -> None:
    """Say which side, as far as the source knows it; empty otherwise (Type 2C, PS3.3 §C.7.3.1).

    Rows and columns run as they do in the source: nothing is turned upright. Body Part Examined is
    not taken over: beside an unpaired one, Laterality may not be present.
    """
    sides = [valid_values(source, keyword) for keyword in ("Laterality", "ImageLaterality")]
    known = next((side for side in sides if side in {("R",), ("L",)}), ())
    put(made, "Laterality", known)
    stated = valid_values(source, "PatientOrientation")
    put(made, "PatientOrientation", stated or patient_orientation(source, frame) or ())


def _set_pixels(made: Dataset, rgb: npt.NDArray[np.uint8]) -> None:
    made.Rows, made.Columns, made.SamplesPerPixel = rgb.shape
    made.PhotometricInterpretation = "RGB"
    made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.PixelRepresentation = 0
    value = rgb.tobytes()
    made.PixelData = value + b"\0" * (len(value) % 2)
    made["PixelData"].VR = "OB"
