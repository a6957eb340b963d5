"""Text and times as they were received, made fit for a document."""

import re
import unicodedata
from datetime import datetime

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_OTHER_SPACE = re.compile(r"[^\S \t\r\n]")
_DATE = re.compile(r"[0-9]{8}")
_TIMESTAMP = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?P<time>T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2}))?"
)


def printable(text: str) -> str:
    """Return ``text`` in NFC without the characters that JSON, XML and FHIR strings forbid.

    FHIR strings know four kinds of white space (R4 §2.24.0.1); any other becomes a space.
    """
    plain = _OTHER_SPACE.sub(" ", _UNPRINTABLE.sub("", text))
    return unicodedata.normalize("NFC", plain).strip()


def study_time(started: str) -> str:
    """Return when a study started as a FHIR dateTime: with time and offset, or a date only.

    What says neither is empty: a time is never invented.
    """
    match = _TIMESTAMP.fullmatch(started)
    if match is None:
        return ""
    for part in (match[0], match["date"]):
        try:
            datetime.fromisoformat(part)
        except ValueError:
            continue
        return part
    return ""


def calendar_date(da: str) -> str:
    """Return a DA value (PS3.5 §6.2) as ISO 8601; empty where it is not a day of the calendar."""
    if _DATE.fullmatch(da) is None:
        # strptime would make a day of fewer digits too, and invent a birth date.
        return ""
    try:
        return datetime.strptime(da, "%Y%m%d").date().isoformat()  # noqa: DTZ007 - only a date
    except ValueError:
        return ""
