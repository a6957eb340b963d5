"""What a PACS would take, found out without sending it anything: one association, and a C-ECHO."""

from dataclasses import dataclass

from pydicom.uid import UID

from dicom_sender.association import (
    associated,
    propose_commitment,
    propose_echo,
)
from dicom_sender.caller import Caller
from dicom_sender.presentation import Proposal
from message_contracts.destination import PacsDestination

SOP_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.59",  # Key Object Selection Document
    "1.2.840.10008.5.1.4.1.1.1",  # CR
    "1.2.840.10008.5.1.4.1.1.1.1",  # DX, for presentation
    "1.2.840.10008.5.1.4.1.1.1.2",  # mammography, for presentation
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.6.1",  # US
    "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation
    "1.2.840.10008.5.1.4.1.1.104.1",  # encapsulated PDF
)
"""What we make, first; then what is most often sent on."""

TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
)
"""Each is proposed in a context of its own: with 12 SOP classes 108 of the 128 that there are."""


@dataclass(frozen=True)
class Capability:
    """A SOP class, and the transfer syntaxes in which a PACS takes it."""

    sop_class: str
    transfer_syntaxes: tuple[str, ...]


def probe(destination: PacsDestination, caller: Caller) -> list[Capability]:
    """Return what a PACS accepts of what we would propose, by the Standard's names.

    Raises
    ------
    PacsUnavailable
        There is no association; the reason says why.
    """
    proposals = [
        *(Proposal(each, syntax) for each in SOP_CLASSES for syntax in TRANSFER_SYNTAXES),
        propose_echo(),
        propose_commitment(),
    ]
    with associated(destination, caller, proposals) as association:
        accepted = {} if association is None else association.accepted
    return [
        Capability(UID(sop_class_uid).name, tuple(UID(each).name for each in syntaxes))
        for sop_class_uid, syntaxes in accepted.items()
    ]


def echo(destination: PacsDestination, caller: Caller) -> int | None:
    """Return the Status of a C-ECHO; ``None`` where Verification is not accepted.

    Raises
    ------
    PacsUnavailable
        There is no association, or no answer; the reason says why.
    """
    with associated(destination, caller, [propose_echo()]) as association:
        return None if association is None else association.echo()
