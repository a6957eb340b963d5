"""Who may open an association: decided from what the request says and from who is listed.

While nobody is listed anyone may from loopback, and nobody else. Once anybody is, the list decides,
for loopback too.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address

from dicom_listener.peers import Listed

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
"""Of DICOM, the only one (PS3.7 §A.2.1)."""

_FIRST_PRINTABLE, _LAST_PRINTABLE = " ", "~"


class Rejection(Enum):
    """Why an association is rejected: Result, Source and Reason of PS3.8 Table 9-21, and words."""

    APPLICATION_CONTEXT = (1, 1, 2, "application context name not supported")
    CALLED_AE_TITLE = (1, 1, 7, "called AE title not recognized")
    CALLING_AE_TITLE = (1, 1, 3, "calling AE title not listed")
    ADDRESS = (1, 1, 3, "called from elsewhere than is listed")
    TOO_MANY = (2, 3, 2, "too many associations")
    TOO_MANY_OF_PEER = (2, 3, 2, "too many associations of this AE title")
    DRAINING = (2, 3, 1, "draining")
    UNDECIDED = (2, 3, 1, "the list of application entities cannot be read")

    def __init__(self, result: int, source: int, diagnostic: int, reason: str) -> None:
        self.result = result
        """1 permanent, 2 transient."""
        self.source = source
        """1 service user, 3 service provider (presentation related)."""
        self.diagnostic = diagnostic
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """What an A-ASSOCIATE-RQ says of itself (PS3.8 §9.3.2), and where it comes from."""

    calling_ae_title: str
    """Without the spaces around it, which mean nothing; empty where there is nothing else."""
    called_ae_title: str
    application_context_name: str
    """Empty where the item is missing."""
    address: str
    """IPv4 or IPv6 address of the requestor."""


def rejection_of(request: AssociationRequest, ae_title: str, listed: Listed) -> Rejection | None:
    """Return why ``request`` is rejected whatever else goes on; ``None`` where it is not.

    Parameters
    ----------
    ae_title
        Of this installation.
    listed
        What the registry says of the calling AE title.
    """
    if request.application_context_name != APPLICATION_CONTEXT_NAME:
        return Rejection.APPLICATION_CONTEXT
    if request.called_ae_title != ae_title.strip():
        return Rejection.CALLED_AE_TITLE
    if not is_ae_title(request.calling_ae_title):
        return Rejection.CALLING_AE_TITLE
    if listed.is_anybody and listed.entry is None:
        return Rejection.CALLING_AE_TITLE
    return None if _may_call_from(request.address, listed) else Rejection.ADDRESS


def _may_call_from(text: str, listed: Listed) -> bool:
    address = _address(text)
    if listed.entry is None:
        return address.is_loopback
    networks = listed.entry.networks
    return not networks or any(address in network for network in networks)


def is_ae_title(title: str) -> bool:
    """Whether this is a value of VR AE (PS3.5 §6.2) that names somebody."""
    return (
        bool(title.strip())
        and "\\" not in title
        and all(_FIRST_PRINTABLE <= character <= _LAST_PRINTABLE for character in title)
    )


def _address(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text.partition("%")[0])
    # A socket that listens on :: shows IPv4 peers so.
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
