"""What a C-STORE is answered with (PS3.4 §B.2.3, PS3.7 §C.5), each with words for the sender."""

from dataclasses import dataclass
from enum import IntEnum

_COMMENT_LENGTH = 64


class StoreStatus(IntEnum):
    """The statuses that this listener gives."""

    SUCCESS = 0x0000
    """Kept and durable; found through the index a moment later."""
    PROCESSING_FAILURE = 0x0110
    """A fault of ours; sending it again may help."""
    OUT_OF_RESOURCES = 0xA700
    """No room; sending it again helps once there is."""
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    """The data set is another instance, or of another SOP Class, than the command says."""
    CANNOT_UNDERSTAND = 0xC000
    """The data set does not say which instance of which study it is."""


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """A status and the Error Comment (0000,0902) that goes with every failure."""

    status: StoreStatus
    comment: str = ""
    """At most 64 ASCII characters (VR LO), and nothing of the patient's."""

    def __post_init__(self) -> None:
        fits = len(self.comment) <= _COMMENT_LENGTH and self.comment.isascii()
        if not fits or "\\" in self.comment or not self.comment.isprintable():
            raise ValueError("an Error Comment is at most 64 printable ASCII characters")
        if (self.status is StoreStatus.SUCCESS) == bool(self.comment):
            raise ValueError("every failure, and only a failure, has an Error Comment")


SUCCESS = StoreAnswer(StoreStatus.SUCCESS)
OUT_OF_RESOURCES = StoreAnswer(
    StoreStatus.OUT_OF_RESOURCES, "No room to store; send again when the operator made room"
)
PROCESSING_FAILURE = StoreAnswer(
    StoreStatus.PROCESSING_FAILURE, "Internal error, nothing was stored; please send again"
)
OTHER_SOP_CLASS = StoreAnswer(
    StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "SOP Class UID differs from the command's"
)
OTHER_CONTEXT = StoreAnswer(
    StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "SOP Class UID differs from the context's"
)
OTHER_SOP_INSTANCE = StoreAnswer(
    StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "SOP Instance UID differs from the command's"
)


def cannot_understand(why: str) -> StoreAnswer:
    """Answer for a data set that is not understood; ``why`` names the attribute at fault."""
    return StoreAnswer(StoreStatus.CANNOT_UNDERSTAND, f"{why}; quarantined"[:_COMMENT_LENGTH])
