"""A chest phantom: a frontal radiograph that nobody was exposed for, drawn and so labeled.

It is a valid Digital X-Ray Image - For Presentation (PS3.3 §A.26), so that every step between the
socket and the report treats it as it treats a patient's. What a model says about it means nothing.
"""

from datetime import datetime

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from message_contracts.identifiers import derived_uid

LABEL = "PHANTOM"
"""In the pixels, in Patient's Name and in Study Description."""

_SIDE = 1024
_BITS = 12
_PIXEL_SPACING_MM = 0.39
_SUPERSAMPLED = 4
"""Fixed-point bits of OpenCV's coordinates, so that curves are smooth."""

Picture = NDArray[np.float32]
Point = tuple[float, float]


def draw_chest_phantom(study_instance_uid: str, at: datetime, *, seed: int = 0) -> FileDataset:
    """Return a frontal chest phantom as a study of its own.

    Parameters
    ----------
    study_instance_uid
        (0020,000D); series and instance UIDs are derived from it, so that the same call makes the
        same object.
    at
        When it was "acquired"; an aware time, whose offset goes to (0008,0201).
    seed
        Of the noise: another seed is another exposure of the same phantom.
    """
    sop_instance_uid = UID(derived_uid("phantom", study_instance_uid))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    phantom = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    phantom.SpecificCharacterSet = "ISO_IR 192"
    phantom.SOPClassUID = DigitalXRayImageStorageForPresentation
    phantom.SOPInstanceUID = sop_instance_uid
    _describe_patient_and_study(phantom, study_instance_uid, at)
    _describe_series_and_equipment(phantom, derived_uid("phantom series", study_instance_uid))
    _describe_image(phantom, at)
    _put_pixels(phantom, _label(_add_noise(_anatomy(), seed)))
    return phantom


def _describe_patient_and_study(phantom: Dataset, study_instance_uid: str, at: datetime) -> None:
    phantom.PatientName = f"{LABEL}^CHEST"
    phantom.PatientID = f"{LABEL}-1"
    phantom.IssuerOfPatientID = "COUNTERSIGN-DEMO"
    phantom.PatientBirthDate = ""
    phantom.PatientSex = "O"
    phantom.QualityControlSubject = "YES"
    phantom.StudyInstanceUID = study_instance_uid
    phantom.StudyDate = at.strftime("%Y%m%d")
    phantom.StudyTime = at.strftime("%H%M%S")
    phantom.TimezoneOffsetFromUTC = at.strftime("%z")
    phantom.StudyID = "1"
    phantom.StudyDescription = f"{LABEL} chest, drawn, not a patient"
    phantom.AccessionNumber = ""
    phantom.ReferringPhysicianName = ""


def _describe_series_and_equipment(phantom: Dataset, series_instance_uid: str) -> None:
    phantom.Modality = "DX"
    phantom.SeriesInstanceUID = series_instance_uid
    phantom.SeriesNumber = 1
    phantom.SeriesDescription = f"{LABEL} PA"
    phantom.PresentationIntentType = "FOR PRESENTATION"
    phantom.BodyPartExamined = "CHEST"
    phantom.Manufacturer = "Countersign"
    phantom.ManufacturerModelName = "chest phantom"
    phantom.DeviceSerialNumber = "0"
    phantom.SoftwareVersions = "1"


def _describe_image(phantom: Dataset, at: datetime) -> None:
    phantom.InstanceNumber = 1
    phantom.ImageType = ["ORIGINAL", "PRIMARY", ""]
    phantom.AcquisitionDate = phantom.ContentDate = at.strftime("%Y%m%d")
    phantom.AcquisitionTime = phantom.ContentTime = at.strftime("%H%M%S")
    phantom.AcquisitionContextSequence = Sequence()
    phantom.ImageComments = f"{LABEL}: drawn by a program; shows nobody"
    phantom.QualityControlImage = "YES"
    phantom.BurnedInAnnotation = "NO"
    phantom.ImageLaterality = "U"
    phantom.AnatomicRegionSequence = Sequence([_code("816094009", "SCT", "Chest")])
    phantom.ViewPosition = "PA"
    phantom.ViewCodeSequence = Sequence([_code("399348003", "SCT", "postero-anterior")])
    phantom.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence()
    phantom.PatientOrientationCodeSequence = Sequence([_code("10904000", "SCT", "erect")])
    phantom.PositionerType = "NONE"
    phantom.PatientOrientation = ["L", "F"]
    phantom.DetectorType = "DIRECT"
    phantom.DetectorConfiguration = "AREA"
    phantom.DetectorID = "0"
    phantom.ImagerPixelSpacing = [_PIXEL_SPACING_MM, _PIXEL_SPACING_MM]
    phantom.LossyImageCompression = "00"


def _put_pixels(phantom: Dataset, stored: NDArray[np.uint16]) -> None:
    phantom.SamplesPerPixel = 1
    phantom.PhotometricInterpretation = "MONOCHROME2"
    phantom.Rows, phantom.Columns = stored.shape
    phantom.BitsAllocated = 16
    phantom.BitsStored = _BITS
    phantom.HighBit = _BITS - 1
    phantom.PixelRepresentation = 0
    phantom.PixelIntensityRelationship = "LOG"
    phantom.PixelIntensityRelationshipSign = -1
    phantom.RescaleIntercept = 0
    phantom.RescaleSlope = 1
    phantom.RescaleType = "US"
    phantom.PresentationLUTShape = "IDENTITY"
    phantom.WindowCenter = 2**_BITS / 2
    phantom.WindowWidth = 2**_BITS
    phantom.PixelData = stored.astype("<u2").tobytes()


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _anatomy() -> Picture:
    """Return brightness from 0 (air) to 1 (bone); every length is a fraction of the side."""
    picture = np.zeros((_SIDE, _SIDE), np.float32)
    _fill(picture, _ellipse((0.5, 0.62), (0.47, 0.6)), 0.52, blur=0.012)
    _fill(picture, _ellipse((0.5, 0.08), (0.11, 0.2)), 0.5, blur=0.012)
    for side in (-1, 1):
        _fill(picture, _lung(side), 0.16, blur=0.010)
    _fill(picture, _ellipse((0.5, 0.38), (0.075, 0.36)), 0.62, blur=0.02)
    _fill(picture, _ellipse((0.555, 0.64), (0.15, 0.14), turned_degrees=35), 0.68, blur=0.014)
    for side in (-1, 1):
        _vessels(picture, side)
    for row in range(26):
        _add(picture, _ellipse((0.5, 0.03 + row * 0.037), (0.035, 0.014)), 0.09, blur=0.004)
    for side in (-1, 1):
        for rib in range(9):
            _add(picture, _rib(side, 0.16 + rib * 0.072, 0.27 + 0.012 * rib), 0.10, blur=0.003)
        _add(picture, _band([(0.5 + side * 0.05, 0.17), (0.5 + side * 0.36, 0.10)], 0.02), 0.16)
    return picture


def _lung(side: int) -> NDArray[np.float64]:
    """Return a lung's outline: apex, costal wall, dome of the diaphragm, mediastinum."""
    base = 0.80 if side < 0 else 0.83
    outline = [(0.10, 0.14), (0.20, 0.11), (0.28, 0.22), (0.345, 0.42), (0.37, 0.62), (0.375, 0.85)]
    dome = [(0.28, base - 0.03), (0.19, base - 0.045), (0.10, base)]
    inner = [(0.075, 0.62), (0.06, 0.42), (0.06, 0.24)]
    return np.array([(0.5 + side * across, down) for across, down in outline + dome + inner])


def _rib(side: int, top: float, reach: float) -> NDArray[np.float64]:
    angles = np.linspace(0.15, 1.75, 24)
    across = 0.5 + side * (0.04 + reach * np.sin(angles))
    down = top + 0.11 * (1 - np.cos(angles))
    return _band(list(zip(across, down, strict=True)), 0.011)


def _vessels(picture: Picture, side: int) -> None:
    """Add the branching markings that come out of the hilum."""
    for angle in np.linspace(-1.1, 1.2, 9):
        start = (0.5 + side * 0.075, 0.46)
        length = 0.13 + 0.05 * np.cos(angle * 2)
        end = (start[0] + side * length * np.cos(angle), start[1] + length * 1.5 * np.sin(angle))
        _add(picture, _band([start, end], 0.008), 0.06, blur=0.005)
    _add(picture, _ellipse((0.5 + side * 0.085, 0.46), (0.03, 0.05)), 0.10, blur=0.012)


def _ellipse(center: Point, axes: Point, turned_degrees: float = 0) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    turn = np.deg2rad(turned_degrees)
    x, y = axes[0] * np.cos(angles), axes[1] * np.sin(angles)
    return np.stack(
        [
            center[0] + x * np.cos(turn) - y * np.sin(turn),
            center[1] + x * np.sin(turn) + y * np.cos(turn),
        ],
        axis=1,
    )


def _band(line: list[Point], width: float) -> NDArray[np.float64]:
    """Return the outline of a line of this width."""
    points = np.array(line)
    along = np.gradient(points, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    across *= width / 2 / np.linalg.norm(across, axis=1, keepdims=True)
    return np.concatenate([points + across, (points - across)[::-1]])


def _mask(outline: NDArray[np.float64], blur: float) -> Picture:
    mask = np.zeros((_SIDE, _SIDE), np.float32)
    fixed_point = np.round(outline * _SIDE * 2**_SUPERSAMPLED).astype(np.int32)
    cv2.fillPoly(mask, [fixed_point], 1.0, cv2.LINE_8, _SUPERSAMPLED)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur * _SIDE), np.float32)


def _fill(picture: Picture, outline: NDArray[np.float64], level: float, *, blur: float) -> None:
    mask = _mask(outline, blur)
    picture += mask * (level - picture)


def _add(
    picture: Picture, outline: NDArray[np.float64], amount: float, *, blur: float = 0.004
) -> None:
    picture += _mask(outline, blur) * amount


def _add_noise(picture: Picture, seed: int) -> Picture:
    random = np.random.default_rng(seed)
    fine = random.normal(0, 0.012, picture.shape).astype(np.float32)
    mottle = random.normal(0, 1, (_SIDE // 16, _SIDE // 16)).astype(np.float32)
    coarse = cv2.resize(mottle, picture.shape[::-1], interpolation=cv2.INTER_CUBIC) * 0.008
    return np.asarray(picture + fine + coarse, np.float32)


def _label(picture: Picture) -> NDArray[np.uint16]:
    """Scale to stored values and write into the pixels what this is."""
    stored = np.clip(picture * 3800 + 120, 0, 2**_BITS - 1).astype(np.uint16)
    words = np.zeros(stored.shape, np.uint8)
    for text, at, scale in ((LABEL, (28, 60), 1.6), ("not a patient", (30, 96), 0.8)):
        cv2.putText(words, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 3)
    stored[words > 0] = 2**_BITS - 1
    return stored
