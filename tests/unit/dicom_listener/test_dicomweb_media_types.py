import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.dicomweb.media_types import MediaType, acceptable, covers, parse_media_type


def test_a_content_type_is_read_with_its_parameters() -> None:
    parsed = parse_media_type('Multipart/Related; type="application/dicom" ;Boundary="a;\\"b,c"')

    assert parsed == MediaType(
        "multipart/related", {"type": "application/dicom", "boundary": 'a;"b,c'}
    )


def test_what_is_acceptable_comes_in_the_order_of_its_weight() -> None:
    fields = [
        'image/png;q=0.5, multipart/related; type="image/jpeg, x"; transfer-syntax=*',
        "text/html;q=0, */*;q=0.1, image/jls;q=high",
    ]

    found = acceptable(fields)

    assert [each.name for each in found] == ["multipart/related", "image/png", "*/*"]
    assert (found[0].part, found[0].transfer_syntax) == ("image/jpeg, x", "*")


def test_a_quotation_that_does_not_end_is_read_once() -> None:
    assert acceptable(['image/jls, "never, image/png']) == (MediaType("image/jls"),)
    assert acceptable(['image/jls, "never\\']) == (MediaType("image/jls"),)


@pytest.mark.parametrize("fields", [[], [""], ["nonsense"]])
def test_who_says_nothing_takes_anything(fields: list[str]) -> None:
    assert [each.name for each in acceptable(fields)] == ["*/*"]


@pytest.mark.parametrize(
    ("wanted", "name", "is_covered"),
    [
        ("*/*", "image/png", True),
        ("image/*", "image/png", True),
        ("image/*", "imagery/png", False),
        ("image/png", "image/jpeg", False),
    ],
)
def test_a_range_covers_its_types(wanted: str, name: str, is_covered: bool) -> None:
    assert covers(wanted, name) is is_covered


@given(st.lists(st.text(max_size=60), max_size=3))
def test_any_text_is_read(fields: list[str]) -> None:
    assert isinstance(acceptable(fields), tuple)
