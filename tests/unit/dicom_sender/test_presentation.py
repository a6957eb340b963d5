from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicom_sender.presentation import (
    MOST_CONTEXTS,
    Proposal,
    Stored,
    batches,
    candidates,
    proposals_for,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
PRIVATE = "1.2.826.0.1.3680043.2.1143.107.104.103.115.2.8.4"
MPEG = "1.2.840.10008.1.2.4.102"
SYNTAXES = (
    *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian),
    *(DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, JPEG2000Lossless, RLELossless),
    *(JPEGLSLossless, PRIVATE, MPEG),
)

syntaxes = st.sampled_from(SYNTAXES)


def stored(syntax: str, sop_class_uid: str = CT, number: int = 1) -> Stored:
    return Stored(sop_class_uid, f"1.2.3.{number}", syntax, "key", 0)


instances = st.lists(
    st.builds(stored, syntaxes, st.integers(1, 300).map("1.2.840.10008.5.1.4.1.1.{}".format)),
    max_size=300,
)


def syntaxes_of(proposals: tuple[Proposal, ...]) -> list[str]:
    return [each.transfer_syntax_uid for each in proposals]


def test_as_stored_comes_first_and_uncompressed_last() -> None:
    assert syntaxes_of(proposals_for(stored(JPEG2000Lossless), [RLELossless])) == [
        JPEG2000Lossless,
        RLELossless,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
    ]


def test_nothing_is_proposed_twice() -> None:
    assert syntaxes_of(
        proposals_for(stored(ExplicitVRLittleEndian), [ExplicitVRLittleEndian, RLELossless])
    ) == [ExplicitVRLittleEndian, RLELossless, ImplicitVRLittleEndian]


def test_what_cannot_be_taken_apart_goes_as_it_is_or_not_at_all() -> None:
    assert syntaxes_of(proposals_for(stored(PRIVATE), [RLELossless])) == [PRIVATE]
    assert syntaxes_of(proposals_for(stored(MPEG), [RLELossless])) == [MPEG]
    assert candidates(stored(PRIVATE), [], {CT: [ExplicitVRLittleEndian]}) == []


def test_a_wish_that_would_lose_something_is_not_followed() -> None:
    assert JPEGBaseline8Bit not in syntaxes_of(
        proposals_for(stored(ExplicitVRLittleEndian), [JPEGBaseline8Bit])
    )


def test_of_what_is_taken_the_destination_s_own_order_decides() -> None:
    accepted = {CT: [ImplicitVRLittleEndian, RLELossless, JPEGLSLossless]}

    assert candidates(stored(JPEG2000Lossless), [JPEGLSLossless, RLELossless], accepted) == [
        JPEGLSLossless,
        RLELossless,
        ImplicitVRLittleEndian,
    ]


@given(instances, st.lists(syntaxes, max_size=3))
def test_every_instance_is_in_one_batch_with_all_its_contexts(
    waiting: list[Stored], wanted: list[str]
) -> None:
    made = list(batches(waiting, wanted))

    assert [each for batch, _ in made for each in batch] == waiting
    for batch, proposals in made:
        assert len(proposals) == len(set(proposals)) <= MOST_CONTEXTS
        assert {p for each in batch for p in proposals_for(each, wanted)} == set(proposals)
