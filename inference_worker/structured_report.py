"""What the model found, as a Measurement Report (PS3.16 TID 1500) in a Comprehensive 3D SR.

It is the model's word alone: complete, unverified, observed by a device. What the doctor concludes
stands in the report and never here.
"""

from collections.abc import Sequence

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from imaging_pixels.decode import frame_count
from inference_worker.content_items import (
    MOST_FRAMES,
    Relationship,
    code,
    container,
    image,
    number,
    root,
    text,
    uid_reference,
)
from inference_worker.explicit_vr import elements, item_of
from inference_worker.result_attributes import (
    MANUFACTURER,
    Kind,
    Reading,
    ResultObject,
    begin,
    can_be_referenced,
    finish,
)
from message_contracts.coding import CodedConcept
from message_contracts.inference import UNCERTAIN, ClassProbability
from message_contracts.model_description import ModelDescription


def _dcm(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value=value, scheme_designator="DCM", meaning=meaning)


# Of PS3.16 Annex D; the rows are of the templates that TID 1500 consists of.
_REPORT = _dcm("126000", "Imaging Measurement Report")
_LANGUAGE = _dcm("121049", "Language of Content Item and Descendants")
_ENGLISH = CodedConcept(
    value="en-US", scheme_designator="RFC5646", meaning="English (United States)"
)
_OBSERVER_TYPE = _dcm("121005", "Observer Type")
_DEVICE = _dcm("121007", "Device")
_DEVICE_UID = _dcm("121012", "Device Observer UID")
_DEVICE_NAME = _dcm("121013", "Device Observer Name")
_DEVICE_MANUFACTURER = _dcm("121014", "Device Observer Manufacturer")
_DEVICE_MODEL_NAME = _dcm("121015", "Device Observer Model Name")
_PROCEDURE_REPORTED = _dcm("121058", "Procedure reported")
_MEASUREMENTS = _dcm("126010", "Imaging Measurements")
_GROUP = _dcm("125007", "Measurement Group")
_TRACKING = _dcm("112039", "Tracking Identifier")
_TRACKING_UID = _dcm("112040", "Tracking Unique Identifier")
_FINDING = _dcm("121071", "Finding")
_ALGORITHM_NAME = _dcm("111001", "Algorithm Name")
_ALGORITHM_VERSION = _dcm("111003", "Algorithm Version")
_ALGORITHM_MANUFACTURER = _dcm("122405", "Algorithm Manufacturer")
_ALGORITHM_PARAMETERS = _dcm("111002", "Algorithm Parameters")
_PROBABILITY = _dcm("122157", "Probability")
_SOURCE = _dcm("121112", "Source of Measurement")
_COMMENT = _dcm("121106", "Comment")

_IMAGING_PROCEDURE = CodedConcept(
    value="363679005", scheme_designator="SCT", meaning="Imaging procedure"
)
_UNCERTAIN = CodedConcept(value="64957009", scheme_designator="SCT", meaning=UNCERTAIN)
_NO_UNITS = CodedConcept(value="1", scheme_designator="UCUM", meaning="no units")


def make(
    sources: Sequence[Dataset],
    reading: Reading,
    read_frames: Sequence[Sequence[int]],
    telling: Sequence[tuple[Dataset, int]] = (),
    remark: str | None = None,
) -> ResultObject:
    """Return the report of a reading of ``sources``, the first of which names the patient.

    ``read_frames`` has, for each source, the frames that the model read, counted from 0. The
    probability of the foremost class is inferred from the ``telling`` frames before all others.
    ``remark`` says in words what else a reader must know, such as what could not be read.
    """
    made, left_out = begin(sources[0], reading, Kind.STRUCTURED_REPORT, Comprehensive3DSRStorage)
    made.encoded |= elements(
        Modality="SR",
        CompletionFlag="COMPLETE",
        VerificationFlag="UNVERIFIED",
        PreliminaryFlag="FINAL",
        # Type 2: whoever ordered and performed the procedure is known to the archive, not to us.
        PerformedProcedureCodeSequence=[],
        ReferencedPerformedProcedureStepSequence=[],
    )
    referenced = [
        (source, frames)
        for source, frames in zip(sources, read_frames, strict=True)
        if can_be_referenced(source)
    ]
    if referenced:
        evidence = _evidence([source for source, _ in referenced], reading)
        made.encoded |= elements(CurrentRequestedProcedureEvidenceSequence=[evidence])
    if len(referenced) < len(sources):
        left_out += ("CurrentRequestedProcedureEvidenceSequence",)
    inferred_from = [each for each in telling if can_be_referenced(each[0])]
    return finish(made, left_out, _measurement_report(reading, referenced, inferred_from, remark))


def _measurement_report(
    reading: Reading,
    referenced: Sequence[tuple[Dataset, Sequence[int]]],
    telling: Sequence[tuple[Dataset, int]],
    remark: str | None,
) -> dict[int, bytes]:
    """Return the content tree (TID 1500)."""
    content = [
        code(Relationship.HAS_CONCEPT_MOD, _LANGUAGE, _ENGLISH),
        *_observer(reading.model),
        code(Relationship.HAS_CONCEPT_MOD, _PROCEDURE_REPORTED, _IMAGING_PROCEDURE),
        container(_MEASUREMENTS, [_group(reading, referenced, telling, remark)]),
    ]
    return root(_REPORT, content, template="1500")


def _observer(model: ModelDescription) -> list[bytes]:
    """Return who observed: the device (TID 1004)."""
    context = Relationship.HAS_OBS_CONTEXT
    return [
        code(context, _OBSERVER_TYPE, _DEVICE),
        uid_reference(context, _DEVICE_UID, model.device_uid),
        text(context, _DEVICE_NAME, model.name),
        text(context, _DEVICE_MANUFACTURER, MANUFACTURER),
        text(context, _DEVICE_MODEL_NAME, f"{model.name} {model.version}"),
    ]


def _group(
    reading: Reading,
    referenced: Sequence[tuple[Dataset, Sequence[int]]],
    telling: Sequence[tuple[Dataset, int]],
    remark: str | None,
) -> bytes:
    """Return the group of measurements (TID 1501, which is extensible: hence the comment)."""
    model = reading.model
    tracking_uid = reading.uid(Kind.STRUCTURED_REPORT, "tracking")
    finding = _UNCERTAIN if reading.uncertain else reading.probabilities[0].code
    content = [
        text(Relationship.HAS_OBS_CONTEXT, _TRACKING, f"{model.name} {model.version}"),
        uid_reference(Relationship.HAS_OBS_CONTEXT, _TRACKING_UID, tracking_uid),
        code(Relationship.CONTAINS, _FINDING, finding),
        *_algorithm(reading),
        *(
            _probability(each, () if place else telling)
            for place, each in enumerate(reading.probabilities)
        ),
        *(
            each
            for source, frames in referenced
            for each in _images(Relationship.CONTAINS, source, frames)
        ),
        *([] if remark is None else [text(Relationship.CONTAINS, _COMMENT, remark)]),
    ]
    return container(_GROUP, content, template="1501")


def _algorithm(reading: Reading) -> list[bytes]:
    """Return which algorithm it was (TID 4019)."""
    model = reading.model
    modifier = Relationship.HAS_CONCEPT_MOD
    return [
        text(modifier, _ALGORITHM_NAME, model.name),
        text(modifier, _ALGORITHM_VERSION, model.version),
        text(modifier, _ALGORITHM_MANUFACTURER, MANUFACTURER),
        text(modifier, _ALGORITHM_PARAMETERS, f"weights_sha256={reading.weights_sha256}"),
        text(modifier, _ALGORITHM_PARAMETERS, f"uncertain_below={model.uncertain_below:g}"),
    ]


def _probability(of_class: ClassProbability, inferred_from: Sequence[tuple[Dataset, int]]) -> bytes:
    """Return a class's probability (TID 300), with the class as a modifier of its name."""
    content = [
        code(Relationship.HAS_CONCEPT_MOD, _FINDING, of_class.code),
        *(
            each
            for source, frame in inferred_from
            for each in _images(Relationship.INFERRED_FROM, source, [frame])
        ),
    ]
    return number(_PROBABILITY, round(of_class.probability, 6), _NO_UNITS, content)


def _images(relationship: Relationship, source: Dataset, frames: Sequence[int]) -> list[bytes]:
    """Return references to an instance, or to frames of it, counted from 0.

    Frames are named where they are not all of the instance's (PS3.3 §10.3), and in several items
    where they are too many for one.
    """
    referenced = (str(source.SOPClassUID), str(source.SOPInstanceUID))
    if len(frames) == frame_count(source):
        return [image(relationship, _SOURCE, referenced)]
    numbers = [frame + 1 for frame in frames]
    return [
        image(relationship, _SOURCE, referenced, numbers[first : first + MOST_FRAMES])
        for first in range(0, len(numbers), MOST_FRAMES)
    ]


def _evidence(sources: Sequence[Dataset], reading: Reading) -> bytes:
    """Return the study's item of the evidence sequence (PS3.3 §C.17.2.1)."""
    by_series: dict[str, list[bytes]] = {}
    for source in sources:
        instance = elements(
            ReferencedSOPClassUID=source.SOPClassUID,
            ReferencedSOPInstanceUID=source.SOPInstanceUID,
        )
        by_series.setdefault(str(source.SeriesInstanceUID), []).append(item_of(instance))
    series = [
        item_of(elements(SeriesInstanceUID=uid, ReferencedSOPSequence=instances))
        for uid, instances in by_series.items()
    ]
    return item_of(
        elements(StudyInstanceUID=reading.study_instance_uid, ReferencedSeriesSequence=series)
    )
