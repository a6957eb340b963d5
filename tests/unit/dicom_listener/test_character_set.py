import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import python_encoding

from dicom_listener.character_set import decode, encodings_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize(
    ("character_set", "value", "text"),
    [
        # PS3.5 Annex H, I, J
        (
            rb"\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            rb"\ISO 2022 IR 149",
            (
                b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^"
                b"\x1b$)C\xb1\xe6\xb5\xbf"
            ),
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "Wang^XiaoDong=王^小東="),
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 144 ", b"\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3", "Люксембург"),
        (b"ISO-IR 100", b"J\xe9r\xf4me", "Jérôme"),
        (b"", b"J\xe9r\xf4me", "Jérôme"),
        (b"", "Jérôme".encode(), "Jérôme"),
        (b"NO SUCH SET", "Jérôme".encode(), "Jérôme"),
        (None, b"Doe^Jane \0", "Doe^Jane"),
        (b"ISO_IR 192", "क\u200dष\0".encode(), "क\u200dष"),
    ],
)
def test_text_is_read_as_its_character_set_says(
    character_set: bytes | None, value: bytes, text: str
) -> None:
    assert decode(value, encodings_of(character_set)) == text


@given(
    terms=st.lists(st.one_of(st.sampled_from(sorted(python_encoding)), st.text()), max_size=3),
    value=st.one_of(st.binary(), st.binary().map(lambda data: b"\x1b$B" + data)),
)
def test_no_text_fails(terms: list[str], value: bytes) -> None:
    text = decode(value, encodings_of("\\".join(terms).encode()))

    assert "\0" not in text
    assert text.encode("utf-8").decode("utf-8") == text
