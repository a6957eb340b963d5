import struct
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.part10 import file_meta
from imaging_pixels.file_meta import FileMeta, NotPart10, parse_file_meta, read_file_meta

META = file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", "MODALITY")
DATA_SET = bytes.fromhex("08001600") + b"UI" + bytes(60)
EXPECTED = FileMeta(
    "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", len(META), "MODALITY"
)
PREAMBLE = bytes(128) + b"DICM"


def test_it_is_read_as_soon_as_it_is_there() -> None:
    heads = [parse_file_meta((META + DATA_SET)[:length]) for length in range(len(META) + 20)]

    assert heads == [None] * len(META) + [EXPECTED] * 20


@pytest.mark.parametrize("claimed", [0, 1, len(META) * 3])
def test_a_wrong_group_length_is_passed_over(claimed: int) -> None:
    wrong = META[:140] + struct.pack("<L", claimed) + META[144:]

    assert parse_file_meta(wrong + DATA_SET) == EXPECTED


def test_a_missing_group_length_is_not_needed() -> None:
    assert parse_file_meta(META[:132] + META[144:] + DATA_SET) == FileMeta(
        "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", len(META) - 12, "MODALITY"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", bytes(200), PREAMBLE, PREAMBLE + DATA_SET, META[:150]],
)
def test_what_is_no_file_is_refused(content: bytes) -> None:
    with pytest.raises(NotPart10):
        parse_file_meta(content, whole=True)


def test_who_sent_it_may_be_unsaid_or_nonsense() -> None:
    for title in ("", "A" * 18, "A\x07"):
        meta = parse_file_meta(file_meta("1.2", "1.2.3", "1.2.840.10008.1.2.1", title), whole=True)

        assert meta is not None
        assert meta.source_ae_title == ""


def test_file_meta_information_has_an_end() -> None:
    endless = b"\x02\x00\x02\x01OB\0\0" + struct.pack("<L", 1000) + bytes(1000)

    with pytest.raises(NotPart10, match="cut off"):
        parse_file_meta(PREAMBLE + endless * 70)


@pytest.mark.parametrize("private_bytes", [0, 2000])
def test_a_file_is_left_where_its_data_set_begins(private_bytes: int) -> None:
    private = b"\x02\x00\x02\x01OB\0\0" + struct.pack("<L", private_bytes) + bytes(private_bytes)
    file = BytesIO(META[:132] + META[144:] + private + DATA_SET)

    meta = read_file_meta(file)

    assert (meta.sop_instance_uid, meta.transfer_syntax_uid) == ("1.2.3", "1.2.840.10008.1.2.1")
    assert file.tell() == meta.size_bytes
    assert file.read() == DATA_SET
    with pytest.raises(NotPart10):
        read_file_meta(BytesIO(b"GIF89a"))


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_understood_or_not(content: bytes, whole: bool) -> None:
    with suppress(NotPart10):
        parse_file_meta(PREAMBLE + content, whole=whole)
