"""An A-ASSOCIATE-RQ, and what it is answered with: of each that is alike, worked out once.

A modality asks for the same each time, often for a hundred presentation contexts: to decode them
and to encode the answer costs more than to receive an image.
"""

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from dicom_listener.admission import is_ae_title

_CALLED, _CALLING = slice(10, 26), slice(26, 42)
"""Where the PDU has its AE titles (PS3.8 §9.3.2)."""
AE_TITLES_END = _CALLING.stop

_REMEMBERED = 32
_REMEMBERED_BYTES = 16 * 1024
"""Longer requests are decoded each time: nobody fills the memory with them."""
_remembered: "dict[bytes, AssociateRequest]" = {}
_lock = Lock()


@dataclass(frozen=True, slots=True)
class Agreement:
    """What an association request is answered with; nobody changes it."""

    accepted: dict[int, PresentationContext]
    rejected: list[PresentationContext]
    pdu: bytes
    """The A-ASSOCIATE-AC (PS3.8 §9.3.3)."""


class AssociateRequest(A_ASSOCIATE_RQ):  # type: ignore[misc]
    """An A-ASSOCIATE-RQ (PS3.8 §9.3.2) that is turned into its primitive once."""

    def __init__(self) -> None:
        super().__init__()
        self.pdu = b""
        """As it came; by it the request is known again."""
        self.agreements: dict[tuple[frozenset[str], ...], Agreement] = {}
        """What it was answered with, by what was on offer to its sender."""

    def to_primitive(self) -> A_ASSOCIATE:
        """Return the indication; of its own are its parameters, but not what they hold."""
        return copy(self._indication)

    @cached_property
    def _indication(self) -> A_ASSOCIATE:
        return super().to_primitive()


def decode(pdu: bytes) -> AssociateRequest:
    """Return the request that a PDU is: the same object for the same bytes, where remembered.

    Raises
    ------
    Exception
        It is none, or asks for what cannot be asked for, such as a presentation context with an
        even ID (PS3.8 §9.3.2.2).
    """
    request = _remembered.get(pdu)
    if request is None:
        request = AssociateRequest()
        request.decode(pdu)
        request.to_primitive()
        request.pdu = pdu
    return request


def remember(request: AssociateRequest) -> None:
    """Have a request known when it comes again; only who has been let in is worth the memory."""
    if len(request.pdu) > _REMEMBERED_BYTES or request.pdu in _remembered:
        return
    with _lock:
        if len(_remembered) >= _REMEMBERED:
            del _remembered[next(iter(_remembered))]
        _remembered[request.pdu] = request


def ae_titles(pdu: memoryview) -> tuple[str, str]:
    """Return the called and the calling AE title, and leave there what pynetdicom takes."""
    return _ae_title(pdu[_CALLED]), _ae_title(pdu[_CALLING])


def _ae_title(field: memoryview) -> str:
    """Return what stands in a field, and leave there what pynetdicom takes.

    Some pad with NUL instead of spaces; others send nothing but spaces. pynetdicom would abort,
    where the one is to be understood and the other to be rejected.
    """
    padded = bytes(field).replace(b"\0", b" ")
    title = padded.decode("latin-1").strip(" ")
    field[:] = padded if is_ae_title(title) else b"?".ljust(len(field))
    return title
