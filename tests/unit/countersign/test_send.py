"""What is sent, and in how many associations; the sending itself is an integration test."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from countersign.send import (
    MOST_CONTEXTS,
    Address,
    Outcome,
    Sendable,
    WrongAddress,
    batches,
    survey,
)


def shipped(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("PACS@192.0.2.7:11112", Address("PACS", "192.0.2.7", 11112)),
        ("THE PACS@pacs.example:104", Address("THE PACS", "pacs.example", 104)),
        ("A@B@host:104", Address("A@B", "host", 104)),
        ("PACS@[::1]:104", Address("PACS", "::1", 104)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "PACS", "PACS@host", "host:104", "@host:104", "PACS@host:0", "PACS@host:65536",
     "PACS@host:port", "SEVENTEEN_LETTERS@host:104", "PA\\CS@host:104", "PACS@a:b:1"],
)  # fmt: skip
def test_what_is_no_address_is_told_the_form(text: str) -> None:
    with pytest.raises(WrongAddress, match="AET@HOST:PORT"):
        Address.parse(text)


def test_folders_are_walked_and_what_is_not_dicom_is_named(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "ct").write_bytes(shipped("CT_small.dcm").read_bytes())
    (tmp_path / "letter.txt").write_text("Dear colleague")
    (tmp_path / "empty").touch()

    found = survey([tmp_path])

    assert [file.path for file in found.sendable] == [deep / "ct"]
    assert {outcome.path.name for outcome in found.skipped} == {"letter.txt", "empty"}
    assert all("not a DICOM file" in outcome.reason for outcome in found.skipped)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = survey([tmp_path / "nothing"])

    assert found.skipped == [Outcome(tmp_path / "nothing", None, "No such file or directory")]


def test_a_file_keeps_its_transfer_syntax() -> None:
    [file] = survey([shipped("MR_small_RLE.dcm")]).sendable

    assert file.transfer_syntax_uid == "1.2.840.10008.1.2.5"
    assert not file.bare


def test_a_data_set_without_file_meta_information_is_sent_too() -> None:
    found = survey([shipped("ExplVR_LitEndNoMeta.dcm"), shipped("ExplVR_BigEndNoMeta.dcm")])

    syntaxes = [file.transfer_syntax_uid for file in found.sendable]
    assert syntaxes == ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"]
    assert all(file.bare for file in found.sendable)


def test_what_the_meta_information_lacks_is_named() -> None:
    found = survey([shipped("meta_missing_tsyntax.dcm")])

    assert "MediaStorageSOPClassUID" in found.skipped[0].reason


@given(st.lists(st.integers(0, 400), max_size=600))
def test_no_association_needs_more_contexts_than_there_are(kinds: list[int]) -> None:
    files = [Sendable(Path(str(n)), f"1.{kind}", "2", "3") for n, kind in enumerate(kinds)]

    divided = list(batches(files))

    assert [file for batch in divided for file in batch] == files
    assert all(batch for batch in divided)
    assert all(len({file.context for file in batch}) <= MOST_CONTEXTS for batch in divided)


@pytest.mark.parametrize(
    ("status", "taken"),
    [(0x0000, True), (0xB000, True), (0xB007, True), (0xA700, False), (0xC000, False),
     (0x0110, False), (None, False)],
)  # fmt: skip
def test_a_warning_is_taken_and_a_failure_is_not(status: int | None, taken: bool) -> None:
    assert Outcome(Path("x"), status).taken is taken


def test_a_refusal_tells_status_and_comment() -> None:
    outcome = Outcome(Path("ct.dcm"), 0xC000, "Study Instance UID is missing")

    assert str(outcome) == "ct.dcm: C000: Study Instance UID is missing"
