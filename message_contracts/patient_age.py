"""How old a patient was when they were examined. Pure."""

import re
from datetime import date

_AGE_STRING = re.compile(r"(\d{1,3})([DWMY])")
_UNITS_A_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_DAYS_A_YEAR = 365.25
_OLDEST_YEARS = 150


def age_in_years(age_string: str, birth_date: str, study_date: str) -> float | None:
    """Return the age in years, or ``None`` where neither source says it.

    Parameters
    ----------
    age_string
        Patient's Age (0010,1010), VR AS (PS3.5 §6.2), such as ``018Y`` or ``003M``. What it says
        is believed first: it is the age at the examination.
    birth_date
        Patient's Birth Date (0010,0030), ``YYYYMMDD``.
    study_date
        Study Date (0008,0020) as ``YYYYMMDD``, or a moment that begins ``YYYY-MM-DD``.
    """
    stated = _AGE_STRING.fullmatch(age_string.strip(" \0").upper())
    if stated is not None:
        return int(stated[1]) / _UNITS_A_YEAR[stated[2]]
    born, examined = _date(birth_date), _date(study_date[:10].replace("-", ""))
    if born is None or examined is None or examined < born:
        return None
    years = examined.year - born.year
    if _birthday(born, examined.year) > examined:
        years -= 1
    if years > _OLDEST_YEARS:
        return None
    # Whole years count by birthdays: on the day itself one is a year older.
    return years + (examined - _birthday(born, born.year + years)).days / _DAYS_A_YEAR


def _birthday(born: date, year: int) -> date:
    try:
        return born.replace(year=year)
    except ValueError:
        return date(year, 3, 1)


def _date(text: str) -> date | None:
    digits = text.strip(" \0").replace(".", "")
    if not re.fullmatch(r"[0-9]{8}", digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
