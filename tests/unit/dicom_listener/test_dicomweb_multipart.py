from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.dicomweb.multipart import (
    MalformedMultipart,
    Mark,
    MultipartReader,
    content_type,
    end_of_parts,
    head_of_part,
)

BOUNDARY = "b0"


def read(pieces: Sequence[bytes], boundary: str = BOUNDARY) -> list[bytes]:
    """Return the parts of a body that comes in these pieces."""
    reader = MultipartReader(boundary)
    parts: list[bytearray] = []
    is_open = False
    for piece in pieces:
        for found in reader.feed(piece):
            if found is Mark.PART_BEGINS:
                assert not is_open
                is_open = True
                parts.append(bytearray())
            elif found is Mark.PART_ENDS:
                is_open = False
            else:
                assert is_open
                assert isinstance(found, memoryview)
                parts[-1] += found
    reader.close()
    assert not is_open
    return [bytes(part) for part in parts]


def body(parts: Sequence[bytes]) -> bytes:
    heads = head_of_part(BOUNDARY, "application/dicom")
    return b"".join(heads + part for part in parts) + end_of_parts(BOUNDARY)


@st.composite
def cut_bodies(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Draw parts that look like delimiters here and there, and their body cut anywhere."""
    near = st.lists(
        st.sampled_from([b"\r", b"\n", b"-", b"\r\n--b", b"\r\n--b0x", b"0", b"\r\n--", b"\0x"]),
        max_size=12,
    ).map(b"".join)
    # What follows a part is a line end, which would make a delimiter line of its last bytes.
    clean = near.filter(
        lambda part: not any(end in part + b"\r\n" for end in (b"\r\n--b0\r\n", b"\r\n--b0--"))
    )
    parts = draw(st.lists(clean, max_size=4))
    whole = body(parts)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    ends = [*cuts, len(whole)]
    return parts, [whole[a:b] for a, b in zip([0, *cuts], ends, strict=True)]


@given(cut_bodies())
def test_what_is_written_is_read_however_it_is_cut(
    drawn: tuple[list[bytes], list[bytes]],
) -> None:
    parts, pieces = drawn

    assert read(pieces) == parts


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_rubbish_is_refused_and_nothing_else_happens(pieces: list[bytes]) -> None:
    with pytest.raises(MalformedMultipart):
        read(pieces)


def test_preamble_padding_missing_heads_and_epilogue_are_passed_over() -> None:
    text = (
        b"preamble\r\n--b0 \t\r\n\r\nfirst\r\n--b0\r\nA: b\r\nC: d\r\n\r\nsecond\r\n--b0--\r\nrest"
    )

    assert read([text]) == [b"first", b"second"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"--b1\r\n\r\nother\r\n--b1--",
        b"--b0\r\n\r\nno end",
        b"--b0\r\n\r\nno end\r\n--b0",
        b"--b0\r\nA: " + b"x" * 20_000,
        b"--b0" + b" " * 200,
    ],
)
def test_a_body_without_its_delimiters_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedMultipart):
        read([text])


@pytest.mark.parametrize("boundary", ["", "x" * 71, "Größe"])
def test_a_boundary_has_a_length(boundary: str) -> None:
    with pytest.raises(MalformedMultipart):
        MultipartReader(boundary)


def test_no_more_is_held_back_than_a_delimiter() -> None:
    reader = MultipartReader(BOUNDARY)
    list(reader.feed(b"--b0\r\n\r\n"))

    given_back = sum(len(found) for found in reader.feed(bytes(100_000)) if found is not Mark)  # type: ignore[arg-type]

    assert given_back >= 100_000 - len("\r\n--b0")


def test_the_content_type_names_boundary_and_parts() -> None:
    assert content_type("b0", "image/png") == 'multipart/related; type="image/png"; boundary=b0'
