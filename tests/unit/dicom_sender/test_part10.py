from __future__ import annotations

from io import BytesIO

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from dicom_sender.part10 import UnreadableHeader, read_header
from tests.synthetic_images import a_gradient, an_image, part10


def test_the_header_says_what_is_in_the_file_and_where_it_begins() -> None:
    image = an_image(a_gradient().astype("u2"))
    content = part10(image)

    header = read_header(BytesIO(content), "a/key")

    assert header.sop_instance_uid == image.SOPInstanceUID
    assert header.sop_class_uid == image.SOPClassUID
    assert header.transfer_syntax_uid == ExplicitVRLittleEndian
    assert content[header.data_set_offset :].startswith(b"\x08\x00")
    assert header.key == "a/key"


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM\x02\x00\x00\x00UL\x04\x00" + b"\xff" * 4],
)
def test_anything_else_is_refused_with_its_key(content: bytes) -> None:
    with pytest.raises(UnreadableHeader, match="a/key"):
        read_header(BytesIO(content), "a/key")
