import pytest

from dicom_listener import store_status
from dicom_listener.store_status import StoreAnswer, StoreStatus, cannot_understand


def test_the_statuses_are_those_of_the_storage_service() -> None:
    # PS3.4 Table B.2-1 and PS3.7 Annex C
    assert {status.value for status in StoreStatus} == {0x0000, 0x0110, 0xA700, 0xA900, 0xC000}


@pytest.mark.parametrize(
    "answer", [value for value in vars(store_status).values() if isinstance(value, StoreAnswer)]
)
def test_every_failure_says_why_in_64_ascii_characters(answer: StoreAnswer) -> None:
    assert bool(answer.comment) == (answer.status != StoreStatus.SUCCESS)
    assert answer.comment.isascii()
    assert len(answer.comment) <= 64


@pytest.mark.parametrize("comment", ["", "x" * 65, "Größe", "a\\b", "a\nb"])
def test_a_comment_that_is_no_lo_is_refused(comment: str) -> None:
    with pytest.raises(ValueError, match="Error Comment"):
        StoreAnswer(StoreStatus.CANNOT_UNDERSTAND, comment)


def test_a_long_reason_is_cut() -> None:
    assert len(cannot_understand("x" * 100).comment) == 64
