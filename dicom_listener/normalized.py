"""The DIMSE-N services beside Storage: what is asked, what is answered (PS3.7 §10.1)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset

from dicom_listener.peers import Peer

SUCCESS = 0x0000
ATTRIBUTE_LIST_ERROR = 0x0107
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
INVALID_SOP_INSTANCE = 0x0117
NO_SUCH_SOP_CLASS = 0x0118
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
INVALID_ATTRIBUTE_VALUE = 0x0106
INVALID_ARGUMENT_VALUE = 0x0115
UNRECOGNIZED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a DIMSE-N service."""

    peer: Peer
    sop_class_uid: str
    """Affected or Requested SOP Class UID."""
    sop_instance_uid: str
    """Affected or Requested SOP Instance UID; empty where an N-CREATE leaves it to us."""
    data_set: Dataset
    """Attribute or Modification List, Action or Event Information; empty where none came."""
    action_type_id: int | None = None
    """Action Type ID of an N-ACTION, Event Type ID of an N-EVENT-REPORT."""


@dataclass(frozen=True, slots=True)
class EventReport:
    """An N-EVENT-REPORT (PS3.7 §10.1.1) of the instance that a request was about.

    It is sent on the same association, right after the response to the request.
    """

    event_type_id: int
    information: Dataset
    """Event Information."""
    on_answer: Callable[[int | None], None]
    """Called with the status that the peer answers; with ``None`` where it answers nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The response: a status of PS3.7 Annex C, and with every failure words for the sender."""

    status: int
    comment: str = ""
    """Error Comment (0000,0902): at most 64 ASCII characters, and nothing of the patient's."""
    error_id: int | None = None
    """Error ID (0000,0903), where a service defines one beside its status."""
    sop_instance_uid: str = ""
    """Affected SOP Instance UID of an N-CREATE response, where the request left it to us."""
    event: EventReport | None = None
    """What is told on this association as soon as the response has left."""


class NormalizedService(Protocol):
    """Answers the DIMSE-N requests of one SOP Class; never raises."""

    @property
    def sop_class_uid(self) -> str:
        """Which SOP Class it is."""

    def is_offered_to(self, peer: Peer) -> bool:
        """Whether a presentation context for it is accepted."""

    def n_create(self, request: Request) -> Answer:
        """Answer an N-CREATE-RQ."""

    def n_set(self, request: Request) -> Answer:
        """Answer an N-SET-RQ."""

    def n_action(self, request: Request) -> Answer:
        """Answer an N-ACTION-RQ."""


class EventReceiver(Protocol):
    """Takes the N-EVENT-REPORTs of one SOP Class whose SCU we are; never raises.

    The peer that requests the association is its SCP, by role selection (PS3.7 §D.3.3.4).
    """

    @property
    def sop_class_uid(self) -> str:
        """Which SOP Class it is."""

    def is_heard_from(self, peer: Peer) -> bool:
        """Whether a presentation context for it is accepted."""

    def n_event_report(self, request: Request) -> Answer:
        """Answer an N-EVENT-REPORT-RQ."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is beside Storage, and what of it one peer may use."""

    services: Mapping[str, NormalizedService]
    """By SOP Class UID, whose SCP we are for this peer."""
    receivers: Mapping[str, EventReceiver]
    """By SOP Class UID, whose SCU we are for this peer."""
    known: frozenset[str]
    """SOP Classes that some peer may use."""


NOTHING = Offer({}, {}, frozenset())


def offer_to(
    peer: Peer, services: Sequence[NormalizedService], receivers: Sequence[EventReceiver]
) -> Offer:
    """Return what of all services a peer may use."""
    return Offer(
        {each.sop_class_uid: each for each in services if each.is_offered_to(peer)},
        {each.sop_class_uid: each for each in receivers if each.is_heard_from(peer)},
        frozenset(each.sop_class_uid for each in services)
        | {each.sop_class_uid for each in receivers},
    )
