"""Text of a data set as Unicode, by Specific Character Set (PS3.5 §6.1). It never fails."""

import re
import unicodedata
from collections.abc import Sequence

from pydicom.charset import decode_bytes, python_encoding

_DELIMITERS = {ord("^"), ord("=")}
_UTF8 = "UTF8"
_DEFAULT = "iso8859"
_UNWANTED = {"Cc", "Cs"}


def encodings_of(specific_character_set: bytes | None) -> tuple[str, ...]:
    """Return the Python encodings that the value of (0008,0005) names, the first one first.

    A term that PS3.3 §C.12.1.1.2 does not know is read as it was probably meant
    (``ISO-IR 100``), else passed over. Without any the tuple is empty: see `decode`.
    """
    terms = (specific_character_set or b"").decode("ascii", "replace").strip(" \0").split("\\")
    found = [_encoding(term.strip(" \0")) for term in terms]
    if not any(found):
        return ()
    return tuple(encoding or _DEFAULT for encoding in found)


def _encoding(term: str) -> str | None:
    upper = term.upper()
    if not upper:
        return None
    patched = re.sub(r"^ISO[^A-Z0-9]IR[^0-9]*", "ISO_IR ", upper)
    patched = re.sub(r"^ISO.2022.IR[^0-9]*", "ISO 2022 IR ", patched)
    return python_encoding.get(upper) or python_encoding.get(patched)


def decode(value: bytes, encodings: Sequence[str]) -> str:
    """Return ``value`` as text, trimmed, in NFC and without control characters.

    Undeclared text outside ASCII is read as UTF-8 where it is that, else as ISO 8859-1. Bytes that
    the declared character set does not have become U+FFFD.
    """
    if value.isascii() and (plain := value.decode("ascii")).isprintable():
        # Nearly everything, and the same in every character set that there is.
        return plain.strip()
    if not encodings:
        text = _undeclared(value)
    elif b"\x1b" in value:
        text = _with_escapes(value, encodings)
    else:
        text = _plain(value, encodings[0])
    if not text.isprintable():
        # Format characters stay: some scripts need them.
        text = "".join(" " if unicodedata.category(c) in _UNWANTED else c for c in text)
    return unicodedata.normalize("NFC", text).strip()


def _undeclared(value: bytes) -> str:
    try:
        return value.decode(_UTF8)
    except UnicodeDecodeError:
        return value.decode(_DEFAULT)


def _plain(value: bytes, encoding: str) -> str:
    try:
        return value.decode(encoding, "replace")
    except LookupError:
        return value.decode(_DEFAULT)


def _with_escapes(value: bytes, encodings: Sequence[str]) -> str:
    try:
        return decode_bytes(value, encodings, _DELIMITERS)
    except (LookupError, UnicodeError, ValueError):
        return _plain(value, encodings[0])
