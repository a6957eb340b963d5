import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_listener.normalized import (
    INVALID_ATTRIBUTE_VALUE,
    MISSING_ATTRIBUTE,
    MISSING_ATTRIBUTE_VALUE,
)
from dicom_listener.procedure_step import (
    InvalidStep,
    ProcedureStep,
    StepStatus,
    created,
    modification,
)


def an_item(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def a_new_step(**changes: object) -> Dataset:
    scheduled = Sequence([an_item(StudyInstanceUID="1.2.3")])
    return an_item(
        **{
            "PerformedProcedureStepStatus": "IN PROGRESS",
            "ScheduledStepAttributesSequence": scheduled,
            **changes,
        }
    )


def a_series(images: list[str], others: list[str]) -> Dataset:
    def references(uids: list[str]) -> Sequence:
        return Sequence([an_item(ReferencedSOPInstanceUID=uid) for uid in uids])

    return an_item(
        ReferencedImageSequence=references(images),
        ReferencedNonImageCompositeSOPInstanceSequence=references(others),
    )


def test_a_step_is_of_every_study_that_it_names() -> None:
    scheduled = Sequence([an_item(StudyInstanceUID=uid) for uid in ("1.2.3", "1.2.4", "1.2.3")])

    step = created(a_new_step(ScheduledStepAttributesSequence=scheduled))

    assert step == ProcedureStep(StepStatus.IN_PROGRESS, ("1.2.3", "1.2.4"))


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_is_no_uid_is_passed_over() -> None:
    scheduled = Sequence([an_item(StudyInstanceUID=uid) for uid in ("1 2", "1.2\0003", "1.2.4")])

    step = created(a_new_step(ScheduledStepAttributesSequence=scheduled))

    assert step.study_instance_uids == ("1.2.4",)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"PerformedProcedureStepStatus": "COMPLETED"}, INVALID_ATTRIBUTE_VALUE),
        ({"PerformedProcedureStepStatus": ""}, MISSING_ATTRIBUTE_VALUE),
        ({"ScheduledStepAttributesSequence": Sequence()}, MISSING_ATTRIBUTE_VALUE),
        (
            {"ScheduledStepAttributesSequence": Sequence([an_item(StudyInstanceUID="")])},
            MISSING_ATTRIBUTE_VALUE,
        ),
    ],
)
def test_a_step_that_is_not_in_progress_or_names_no_study_is_refused(
    changes: dict[str, object], status: int
) -> None:
    with pytest.raises(InvalidStep) as refused:
        created(a_new_step(**changes))

    assert refused.value.status == status
    assert 0 < len(str(refused.value)) <= 64


@pytest.mark.parametrize(
    "keyword", ["PerformedProcedureStepStatus", "ScheduledStepAttributesSequence"]
)
def test_a_step_without_a_needed_attribute_is_refused(keyword: str) -> None:
    attributes = a_new_step()
    del attributes[keyword]

    with pytest.raises(InvalidStep) as refused:
        created(attributes)

    assert refused.value.status == MISSING_ATTRIBUTE


def test_images_and_others_of_all_series_are_listed_once() -> None:
    series = Sequence([a_series(["1", "2"], ["9"]), a_series(["2", "3"], [])])

    step = modification(
        an_item(PerformedProcedureStepStatus="COMPLETED", PerformedSeriesSequence=series)
    ).of(created(a_new_step()))

    assert step.status is StepStatus.COMPLETED
    assert step.sop_instance_uids == ("1", "2", "9", "3")


def test_a_sequence_that_is_set_takes_the_place_of_what_was_there() -> None:
    step = ProcedureStep(StepStatus.IN_PROGRESS, ("1.2.3",), ("1", "2"))

    series = Sequence([a_series(["3"], [])])

    assert modification(an_item(PerformedSeriesSequence=series)).of(step).sop_instance_uids == (
        "3",
    )
    assert modification(Dataset()).of(step) == step


def test_a_status_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidStep) as refused:
        modification(an_item(PerformedProcedureStepStatus="DONE"))

    assert refused.value.status == INVALID_ATTRIBUTE_VALUE


@pytest.mark.parametrize(
    ("code", "scheme", "is_wrong"),
    [("110514", "DCM", True), ("110514", "99LOCAL", False), ("110513", "DCM", False)],
)
def test_a_step_of_the_wrong_worklist_entry_is_told_from_others(
    code: str, scheme: str, *, is_wrong: bool
) -> None:
    reason = Sequence([an_item(CodeValue=code, CodingSchemeDesignator=scheme)])

    step = modification(
        an_item(
            PerformedProcedureStepStatus="DISCONTINUED",
            PerformedProcedureStepDiscontinuationReasonCodeSequence=reason,
        )
    ).of(created(a_new_step()))

    assert step.is_of_wrong_entry is is_wrong


def test_the_reason_alone_ends_no_step() -> None:
    reason = Sequence([an_item(CodeValue="110514", CodingSchemeDesignator="DCM")])

    step = modification(an_item(PerformedProcedureStepDiscontinuationReasonCodeSequence=reason)).of(
        created(a_new_step())
    )

    assert not step.is_of_wrong_entry


def test_what_is_malformed_is_taken_as_absent() -> None:
    series = Sequence(
        [
            an_item(ReferencedImageSequence=Sequence([Dataset(), an_item(RetrieveAETitle="PACS")])),
            Dataset(),
        ]
    )

    assert modification(an_item(PerformedSeriesSequence=series)).sop_instance_uids == ()
