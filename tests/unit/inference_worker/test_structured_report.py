from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom import DataElement, Dataset
from pydicom.uid import Comprehensive3DSRStorage

from inference_worker.structured_report import make
from tests.highdicom_report import content_tree
from tests.readings import WEIGHTS_SHA256, a_reading
from tests.synthetic_images import a_gradient, an_image, read


@pytest.fixture(autouse=True)
def _misspelled_keywords_are_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pydicom.config, "INVALID_KEYWORD_BEHAVIOR", "RAISE")
    return


def a_source(**attributes: Any) -> Dataset:
    return an_image(a_gradient().astype("u2"), **attributes)


def made(sources: Sequence[Dataset] | None = None, **changes: Any) -> Dataset:
    sources = sources or [a_source()]
    return read(make(sources, a_reading(**changes), [[0]] * len(sources)).content)


def group_of(report: Dataset) -> Any:
    parsed = highdicom.sr.Comprehensive3DSR.from_dataset(report)
    [group] = parsed.content.get_image_measurement_groups()
    return group


def items(container: Dataset, name: str) -> list[Dataset]:
    """Return the content items, at any depth, whose concept has this meaning."""
    found = []
    for item in container.get("ContentSequence", []):
        if item.ConceptNameCodeSequence[0].CodeMeaning == name:
            found.append(item)
        found += items(item, name)
    return found


def test_it_is_complete_and_unverified() -> None:
    report = made()

    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert report.Modality == "SR"
    assert report.CompletionFlag == "COMPLETE"
    assert report.VerificationFlag == "UNVERIFIED"
    assert "VerifyingObserverSequence" not in report
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_its_observer_is_the_device() -> None:
    report = made()

    [observer_type] = items(report, "Observer Type")
    [device] = items(report, "Device Observer UID")
    assert observer_type.ConceptCodeSequence[0].CodeMeaning == "Device"
    assert device.UID == "2.25.271828"


def test_the_algorithm_is_identified_down_to_its_weights() -> None:
    report = made()

    assert [item.TextValue for item in items(report, "Algorithm Name")] == ["shapes"]
    assert [item.TextValue for item in items(report, "Algorithm Version")] == ["1.2.3"]
    assert [item.TextValue for item in items(report, "Algorithm Parameters")] == [
        f"weights_sha256={WEIGHTS_SHA256}",
        "uncertain_below=0.6",
    ]


def test_its_finding_is_the_most_probable_class() -> None:
    assert group_of(made()).finding_type.value == "112003"


def test_its_finding_is_uncertain_where_the_reading_is() -> None:
    finding = group_of(made(uncertain=True)).finding_type

    assert (finding.value, finding.scheme_designator, finding.meaning) == (
        "64957009",
        "SCT",
        "Uncertain",
    )


def test_every_class_has_its_probability() -> None:
    probabilities = {}
    for item in items(made(), "Probability"):
        [modifier] = item.ContentSequence
        [measured] = item.MeasuredValueSequence
        probabilities[modifier.ConceptCodeSequence[0].CodeMeaning] = float(measured.NumericValue)

    assert probabilities == {"Star": 0.7, "Round": 0.2, "Square": 0.1}


def test_it_refers_to_every_instance_that_was_read() -> None:
    sources = [a_source(), a_source(SOPInstanceUID="2.25.104", SeriesInstanceUID="2.25.105")]

    report = made(sources)

    references = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in items(report, "Source of Measurement")
    ]
    [study] = report.CurrentRequestedProcedureEvidenceSequence
    assert references == ["2.25.103", "2.25.104"]
    assert study.StudyInstanceUID == "2.25.101"
    assert [series.SeriesInstanceUID for series in study.ReferencedSeriesSequence] == [
        "2.25.102",
        "2.25.105",
    ]


def test_it_names_the_frames_that_were_read() -> None:
    source = an_image(np.zeros((4, 8, 8), "u2"), frames=True)

    report = read(make([source], a_reading(), [[1, 3]]).content)

    [item] = items(report, "Source of Measurement")
    assert list(item.ReferencedSOPSequence[0].ReferencedFrameNumber) == [2, 4]


def test_an_instance_that_was_read_whole_is_named_without_its_frames() -> None:
    source = a_source(NumberOfFrames=20_000)

    report = read(make([source], a_reading(), [range(20_000)]).content)

    [item] = items(report, "Source of Measurement")
    assert "ReferencedFrameNumber" not in item.ReferencedSOPSequence[0]


def test_more_frames_than_one_reference_holds_are_named_in_several() -> None:
    source = a_source(NumberOfFrames=40_000)

    report = read(make([source], a_reading(), [range(1, 40_000, 2)]).content)

    references = [item.ReferencedSOPSequence[0] for item in items(report, "Source of Measurement")]
    named = [number for each in references for number in each.ReferencedFrameNumber]
    assert named == list(range(2, 40_001, 2))
    assert {each.ReferencedSOPInstanceUID for each in references} == {"2.25.103"}


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("uncertain", [True, False])
@pytest.mark.parametrize("probabilities", [(0.7, 0.2, 0.1), (1.0, 1e-7, 0.0), (1 / 3, 1 / 3, 2e-5)])
def test_the_content_tree_is_as_highdicom_makes_it(
    frames: int, uncertain: bool, probabilities: tuple[float, ...]
) -> None:
    stored = np.zeros((frames, 8, 8), "u2") if frames > 1 else a_gradient().astype("u2")
    source = an_image(stored, frames=frames > 1)
    other = an_image(stored, frames=frames > 1, SOPInstanceUID="2.25.104")
    reading = a_reading(uncertain=uncertain)
    reading = replace(
        reading,
        probabilities=tuple(
            each.model_copy(update={"probability": probability})
            for each, probability in zip(reading.probabilities, probabilities, strict=True)
        ),
    )
    read_frames = [list(range(frames)), [0]]

    report = read(make([source, other], reading, read_frames, [(other, 0)]).content)

    expected = content_tree(
        reading, list(zip([source, other], read_frames, strict=True)), [(other, [0])]
    )
    for element in expected:
        _separate(element)
    tree = Dataset()
    for element in expected:
        tree.add(report[element.tag])
    assert tree.to_json_dict() == Dataset(expected).to_json_dict()


def _separate(element: DataElement) -> None:
    """Say of every container that its items stand by themselves, which highdicom does not."""
    if element.keyword == "ContinuityOfContent":
        element.value = "SEPARATE"
    for item in element.value if element.VR == "SQ" else ():
        for inner in item:
            _separate(inner)


def test_a_tracking_identifier_follows_the_reading() -> None:
    [first] = items(made(), "Tracking Unique Identifier")
    [again] = items(made(), "Tracking Unique Identifier")
    [other] = items(made(study_version=2), "Tracking Unique Identifier")

    assert first.UID == again.UID != other.UID


def test_it_carries_the_patient_and_the_model() -> None:
    source = a_source(PatientName="Test^Paula", PatientID="P-1", IssuerOfPatientID="Site A")

    report = made([source])

    assert report.PatientName == "Test^Paula"
    assert (report.PatientID, report.IssuerOfPatientID) == ("P-1", "Site A")
    assert report.ContributingEquipmentSequence[0].DeviceUID == "2.25.271828"


def test_making_it_again_makes_the_same_bytes() -> None:
    first, second = (make([a_source()], a_reading(), [[0]]) for _ in range(2))

    assert first == second


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_malformed_instance_uid_is_not_referenced_but_counted() -> None:
    result = make([a_source(SOPInstanceUID="999.01.2")], a_reading(), [[0]])

    assert result.left_out == ("CurrentRequestedProcedureEvidenceSequence",)
    assert items(read(result.content), "Source of Measurement") == []
