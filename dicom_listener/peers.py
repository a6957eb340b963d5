"""Who calls: what the installation knows of an application entity that sends to us."""

from dataclasses import dataclass
from datetime import timedelta, tzinfo

from message_contracts.inference import Urgency


@dataclass(frozen=True, slots=True)
class Peer:
    """What holds for the associations of one calling AE title; where it says nothing, the site's.

    Read once, when the association is accepted; a change holds from the next association on.
    """

    ae_title: str
    """The calling AE title."""
    quiet_period: timedelta
    default_issuer_of_patient_id: str
    """Of a patient whose instances name no issuer (0010,0021)."""
    zone: tzinfo
    """Of times that name no offset."""
    urgency: Urgency = Urgency.ROUTINE
    commitment: bool = False
    """Whether Storage Commitment is offered to it."""
