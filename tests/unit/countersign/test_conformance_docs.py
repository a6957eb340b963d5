"""The tables of the conformance statement say what the code does."""

import pytest

from countersign.conformance_docs import BLOCKS, UnknownBlock, fill
from dicom_listener.sop_classes import TRANSFER_SYNTAXES


def test_a_marked_block_is_made_anew_and_the_rest_stays() -> None:
    statement = "before\n<!-- begin limits -->\nold\n<!-- end limits -->\nafter\n"

    filled = fill(statement)

    assert filled.startswith("before\n<!-- begin limits -->\n")
    assert filled.endswith("<!-- end limits -->\nafter\n")
    assert "old" not in filled
    assert "COUNTERSIGN_MAX_ASSOCIATIONS" in filled


def test_filling_again_changes_nothing() -> None:
    once = fill("".join(f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in BLOCKS))

    assert fill(once) == once


def test_a_block_that_nobody_makes_is_refused_by_name() -> None:
    with pytest.raises(UnknownBlock, match="weather"):
        fill("<!-- begin weather -->\n<!-- end weather -->\n")


def test_every_transfer_syntax_that_is_accepted_is_listed() -> None:
    table = BLOCKS["transfer-syntaxes"]()

    assert all(f"`{uid}`" in table for uid in TRANSFER_SYNTAXES)


def test_every_failure_has_words_for_the_sender() -> None:
    rows = BLOCKS["storage-statuses"]().splitlines()[2:]

    failures = [row for row in rows if not row.startswith("| 0000")]

    assert failures
    assert all(row.split("|")[3].strip() for row in failures)


def test_the_limits_of_dicomweb_are_those_of_the_code() -> None:
    table = BLOCKS["dicomweb-limits"]()

    assert "| one frame, decoded | 256 MiB | 406 |" in table
    assert "| a deflated data set, inflated, where it is not sent as stored | 256 MiB |" in table
    assert "| its frames together, decompressed | 1024 MiB | 406;" in table
    assert "| results of a search at series level | 2000 | a Warning |" in table
