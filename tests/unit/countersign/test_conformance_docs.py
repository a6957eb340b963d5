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
