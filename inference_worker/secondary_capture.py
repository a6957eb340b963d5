"""The heat map over the picture that it explains, as a Secondary Capture (PS3.3 §A.8.1)."""

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from imaging_pixels.decode import frame_count
from inference_worker.copied_attributes import put, valid_values
from inference_worker.lossy_compression import describe_compression
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
    put_laterality,
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
    describe_compression(made, source)
    put_laterality(made, source)
    _describe_orientation(made, source, frame)
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


def _describe_orientation(made: Dataset, source: Dataset, frame: int) -> None:
    """Say how rows and columns run: as they do in the source, for nothing is turned upright."""
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
