"""What a C-STORE response means for us: taken, refused for good, or to be tried again. Pure."""

from enum import StrEnum

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111
"""The PACS has it already (PS3.7 Annex C)."""

PENDING = 0xFF00
"""Sent, and not yet answered; whether the PACS has it is open (PS3.7 Annex C)."""

_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})
_REFUSED = frozenset(
    {
        0x0105,  # no such attribute
        0x0106,  # invalid attribute value
        0x0112,  # no such SOP instance
        0x0117,  # invalid SOP instance
        0x0118,  # no such SOP class
        0x0119,  # class-instance conflict
        0x0120,  # missing attribute
        0x0121,  # missing attribute value
        0x0122,  # SOP class not supported
        0x0124,  # not authorized
        0x0211,  # unrecognized operation
        0x0212,  # mistyped argument
    }
)


class StoreOutcome(StrEnum):
    """One of three, and what is to be done."""

    TAKEN = "taken"
    REFUSED = "refused"
    """Trying again cannot help."""
    TO_BE_TRIED_AGAIN = "to_be_tried_again"


def outcome_of(status: int) -> StoreOutcome:
    """Return what a Status (0000,0900) means (PS3.4 §B.2.3, PS3.7 Annex C).

    A status that the Standard does not list is tried again: it is somebody's invention, and a
    refusal would need a person.
    """
    if status in {SUCCESS, DUPLICATE_SOP_INSTANCE} or status in _WARNINGS or status >> 12 == 0xB:  # noqa: PLR2004
        return StoreOutcome.TAKEN
    # 0xA9xx: the data set does not match its SOP class; 0xCxxx: it cannot be understood.
    if status in _REFUSED or status >> 8 == 0xA9 or status >> 12 == 0xC:  # noqa: PLR2004
        return StoreOutcome.REFUSED
    return StoreOutcome.TO_BE_TRIED_AGAIN


def may_be_there(status: int) -> bool:
    """Tell whether the PACS has the instance, or may have it."""
    return status == PENDING or outcome_of(status) is StoreOutcome.TAKEN


def is_warning(status: int) -> bool:
    """Tell whether the PACS has taken the instance and changed or doubted something of it."""
    return status != SUCCESS and outcome_of(status) is StoreOutcome.TAKEN
