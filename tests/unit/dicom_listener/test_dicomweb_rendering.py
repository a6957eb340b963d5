import pytest

from dicom_listener.dicomweb.media_types import acceptable
from dicom_listener.dicomweb.rendering import (
    JPEG,
    PNG,
    InvalidRendering,
    Region,
    Rendering,
    parse_rendering,
    picture_type,
)
from service_runtime.problem_details import Problem


def test_a_rendering_is_read() -> None:
    asked = [("window", "40,400,linear"), ("viewport", "512,256,0,10,100,50.5"), ("quality", "70")]

    assert parse_rendering(JPEG, asked) == Rendering(
        JPEG, (40.0, 400.0, "LINEAR"), (512, 256), (0.0, 10.0, 100.0, 50.5), 70
    )


@pytest.mark.parametrize(
    ("value", "viewport", "region"),
    [
        ("512,", (512, None), None),
        (",256", (None, 256), None),
        (",", (None, None), None),
        (",,,,,", (None, None), None),
        (",,100,,,", (None, None), (100.0, None, None, None)),
        (",,100,20,,-30", (None, None), (100.0, 20.0, None, -30.0)),
        ("64,,,,0.5,0.5", (64, None), (None, None, 0.5, 0.5)),
    ],
)
def test_numbers_of_a_viewport_may_be_elided(
    value: str, viewport: tuple[int | None, int | None], region: Region | None
) -> None:
    asked = parse_rendering(JPEG, [("viewport", value)])

    assert (asked.viewport, asked.region) == (viewport, region)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", "40,400"),
        ("window", "40,0,linear"),
        ("window", "40,nan,linear"),
        ("window", "a,b,linear"),
        ("viewport", "512"),
        ("viewport", ""),
        ("viewport", ",,"),
        ("viewport", ",0"),
        ("viewport", ",,a,,,"),
        ("viewport", "0,10"),
        ("viewport", "100000,10"),
        ("viewport", "inf,10"),
        ("quality", "0"),
        ("quality", "101"),
        ("annotation", "patient"),
    ],
)
def test_a_parameter_that_is_not_understood_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidRendering):
        parse_rendering(JPEG, [(name, value)])


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", (JPEG, False)),
        ("image/*", (JPEG, False)),
        ("image/png, image/jpeg;q=0.5", (PNG, False)),
        ('multipart/related; type="image/jpeg"', (JPEG, True)),
    ],
)
def test_a_picture_comes_in_the_type_that_is_wanted_most(
    accept: str, expected: tuple[str, bool]
) -> None:
    assert picture_type(acceptable([accept])) == expected


def test_who_takes_no_picture_is_told_so() -> None:
    with pytest.raises(Problem) as refused:
        picture_type(acceptable(["video/mpeg"]))

    assert refused.value.status == 406
