"""The heat map over the picture that it explains, as a Secondary Capture (PS3.3 §A.8.1)."""

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from imaging_pixels.decode import frame_count
from inference_worker.content_items import coded
from inference_worker.copied_attributes import put, valid_values
from inference_worker.explicit_vr import elements, item_of
from inference_worker.lossy_compression import describe_compression
from inference_worker.plane_geometry import patient_orientation
from inference_worker.result_attributes import (
    NOT_FOR_PRIMARY_DIAGNOSIS,
    Draft,
    Kind,
    Reading,
    ResultObject,
    begin,
    can_be_referenced,
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


def make(  # noqa: PLR0913, PLR0917 - the last four tell the captures of a reading apart
    source: Dataset,
    picture_rgb: npt.NDArray[np.uint8],
    reading: Reading,
    frame: int = 0,
    number: int = 1,
    explained_class: str | None = None,
    kind: Kind = Kind.SECONDARY_CAPTURE,
) -> ResultObject:
    """Return a drawn heat map ``[rows, columns, 3]``, legend and all, as an object of the study.

    ``source`` is the instance that was explained and ``frame`` counts its frames from 0. Captures
    of one reading are numbered from 1, the most telling first. ``explained_class`` is the label of
    what the heat map explains, where that is not what is most probable in the study.
    """
    made, left_out = begin(source, reading, kind, SecondaryCaptureImageStorage, number)
    left_out += _describe_derivation(made, source, frame)
    describe_compression(made, source)
    put_laterality(made, source)
    _describe_orientation(made, source, frame)
    # A legend is no patient data; whether the picture below it has some, only the source knows.
    is_clean = valid_values(source, "BurnedInAnnotation") == ("NO",)
    rows, columns, samples = picture_rgb.shape
    made.encoded |= elements(
        Modality="OT",
        ConversionType="WSD",
        ImageType=["DERIVED", "SECONDARY"],
        DerivationDescription=(
            f"{NOT_FOR_PRIMARY_DIAGNOSIS}. Grad-CAM heat map of {reading.model.name} "
            f"{reading.model.version} for {explained_class or reading.probabilities[0].label}, "
            "blended over the source."
        ),
        BurnedInAnnotation="NO" if is_clean else "YES",
        Rows=rows,
        Columns=columns,
        SamplesPerPixel=samples,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=np.ascontiguousarray(picture_rgb).data.cast("B"),
    )
    return finish(made, left_out)


def _describe_derivation(made: Draft, source: Dataset, frame: int) -> tuple[str, ...]:
    made.encoded |= elements(DerivationCodeSequence=[coded(_BLENDED)])
    if not can_be_referenced(source):
        return ("SourceImageSequence",)
    reference = elements(
        ReferencedSOPClassUID=source.SOPClassUID,
        ReferencedSOPInstanceUID=source.SOPInstanceUID,
        PurposeOfReferenceCodeSequence=[coded(_SOURCE_IMAGE)],
    )
    if frame_count(source) > 1:
        reference |= elements(ReferencedFrameNumber=frame + 1)
    made.encoded |= elements(SourceImageSequence=[item_of(reference)])
    return ()


def _describe_orientation(made: Dataset, source: Dataset, frame: int) -> None:
    """Say how rows and columns run: as they do in the source, for nothing is turned upright."""
    stated = valid_values(source, "PatientOrientation")
    put(made, "PatientOrientation", stated or patient_orientation(source, frame) or ())
