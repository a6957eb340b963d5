"""Who calls: what the installation knows of an application entity that sends to us."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta, tzinfo
from ipaddress import IPv4Network, IPv6Network

from message_contracts.inference import Urgency

Network = IPv4Network | IPv6Network


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


@dataclass(frozen=True, slots=True)
class Entry:
    """What is listed of a calling AE title; ``None`` where the site's word holds."""

    networks: Sequence[Network] = ()
    """Where it may call from; none: from anywhere."""
    quiet_period: timedelta | None = None
    default_issuer_of_patient_id: str | None = None
    zone: tzinfo | None = None
    urgency: Urgency = Urgency.ROUTINE
    max_associations: int | None = None
    """At one time, in all receiving processes."""
    commitment: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """What the registry says of one calling AE title."""

    entry: Entry | None
    is_anybody: bool
    """Whether there is any entry at all."""


def peer_of(ae_title: str, entry: Entry | None, site: Peer) -> Peer:
    """Return the peer that a calling AE title is: what is listed of it, and else the site's."""
    peer = replace(site, ae_title=ae_title)
    if entry is None:
        return peer
    return replace(
        peer,
        quiet_period=entry.quiet_period or site.quiet_period,
        default_issuer_of_patient_id=entry.default_issuer_of_patient_id
        or site.default_issuer_of_patient_id,
        zone=entry.zone or site.zone,
        urgency=entry.urgency,
        commitment=entry.commitment,
    )
