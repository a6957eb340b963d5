import pytest

from dicom_listener.dicomweb.posting import Outcome
from dicom_listener.dicomweb.stow_response import body, status_code

STORED = Outcome("1.2", "1.3", 0, "")
REFUSED = Outcome("1.2", "1.4", 0xA900, "SOP Class UID differs")
FULL = Outcome("1.2", "1.5", 0xA700, "No room")
FAULT = Outcome("1.2", "1.6", 0x0110, "Internal error")
NO_FILE = Outcome("", "", 0xC000, "a part is no DICOM file")


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([STORED, STORED], 200),
        ([STORED, REFUSED], 202),
        ([STORED, FULL], 202),
        ([REFUSED, NO_FILE], 409),
        ([FULL], 503),
        ([REFUSED, FULL], 503),
        ([FAULT], 503),
        ([FAULT, REFUSED], 503),
        ([STORED, FAULT], 202),
    ],
)
def test_the_status_says_how_much_was_stored(outcomes: list[Outcome], expected: int) -> None:
    assert status_code(outcomes) == expected


def test_every_part_is_accounted_for() -> None:
    model = body([STORED, REFUSED, NO_FILE], {"1.3": ("9.1", "9.2")}, "http://here")

    [stored] = model["00081199"]["Value"]
    [failed] = model["00081198"]["Value"]
    [other] = model["0008119A"]["Value"]
    assert stored["00081155"]["Value"] == ["1.3"]
    assert stored["00081190"]["Value"] == ["http://here/studies/9.1/series/9.2/instances/1.3"]
    assert model["00081190"]["Value"] == ["http://here/studies/9.1"]
    assert failed["00081155"]["Value"] == ["1.4"]
    assert failed["00081197"]["Value"] == [0xA900]
    assert other["00081197"]["Value"] == [0xC000]
