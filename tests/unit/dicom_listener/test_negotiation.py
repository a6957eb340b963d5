"""Who is let in, and which presentation contexts and roles are accepted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, timedelta

import pytest
from pynetdicom.presentation import PresentationContext, build_context

from dicom_listener.admission import APPLICATION_CONTEXT_NAME, AssociationRequest, Rejection
from dicom_listener.association_count import AssociationCount
from dicom_listener.negotiation import FrontDoor, answer_contexts
from dicom_listener.normalized import Answer, Offer, Request, offer_to
from dicom_listener.peers import Entry, Listed, Peer
from service_runtime.database import DatabaseUnavailable

SITE = Peer("", timedelta(seconds=30), "LOCAL", UTC)
REQUEST = AssociationRequest("CT1", "COUNTERSIGN", APPLICATION_CONTEXT_NAME, "127.0.0.1")
MPPS, COMMITMENT, CT = (
    "1.2.840.10008.3.1.2.3.3",
    "1.2.840.10008.1.20.1",
    "1.2.840.10008.5.1.4.1.1.2",
)
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.50"


@dataclass
class Service:
    """Offered to, or heard from, everybody or nobody."""

    sop_class_uid: str
    is_open: bool = True

    def is_offered_to(self, _: Peer) -> bool:
        return self.is_open

    is_heard_from = is_offered_to

    def n_create(self, _: Request) -> Answer:
        return Answer(0x0000)

    n_set = n_action = n_event_report = n_create


def offer(*, commits: bool = False, hears: bool = False) -> Offer:
    return offer_to(
        SITE, [Service(MPPS), Service(COMMITMENT, commits)], [Service(COMMITMENT, hears)]
    )


def front_door(listed: Listed, limit: int = 9) -> FrontDoor:
    count = AssociationCount(processes=1, limit=limit).of_process(0)
    return FrontDoor("COUNTERSIGN", SITE, lambda _: listed, count)


def proposed(abstract_syntax: str, *transfer_syntaxes: str) -> PresentationContext:
    context = build_context(abstract_syntax, list(transfer_syntaxes or (EXPLICIT, IMPLICIT)))
    context.context_id = 1
    return context


def test_who_is_let_in_is_counted_until_it_leaves() -> None:
    door = front_door(Listed(Entry(), is_anybody=True), limit=1)

    peer = door.admit(REQUEST, is_draining=False)
    second = door.admit(REQUEST, is_draining=False)
    assert isinstance(peer, Peer)
    door.leave(peer)
    third = door.admit(REQUEST, is_draining=False)

    assert (peer, second, third) == (
        replace(SITE, ae_title="CT1"),
        Rejection.TOO_MANY,
        replace(SITE, ae_title="CT1"),
    )


def test_nobody_is_let_in_while_the_process_drains() -> None:
    door = front_door(Listed(Entry(), is_anybody=True))

    assert door.admit(REQUEST, is_draining=True) is Rejection.DRAINING


def test_what_would_not_help_later_is_said_also_while_the_process_drains() -> None:
    door = front_door(Listed(None, is_anybody=True))

    assert door.admit(REQUEST, is_draining=True) is Rejection.CALLING_AE_TITLE


def test_a_list_that_cannot_be_read_lets_nobody_in_for_now() -> None:
    def look_up(_: str) -> Listed:
        raise DatabaseUnavailable("database: away")

    door = replace(front_door(Listed(None, is_anybody=False)), look_up=look_up)

    assert door.admit(REQUEST, is_draining=False) is Rejection.UNDECIDED


@pytest.mark.parametrize(
    ("abstract_syntax", "transfer_syntaxes", "result", "accepted"),
    [
        (CT, (JPEG, EXPLICIT), 0, JPEG),
        (CT, ("1.2.3.4",), 4, "1.2.3.4"),
        (MPPS, (EXPLICIT, IMPLICIT), 0, EXPLICIT),
        (MPPS, (JPEG, IMPLICIT), 0, IMPLICIT),
        (MPPS, (JPEG,), 4, JPEG),
        (COMMITMENT, (IMPLICIT,), 1, IMPLICIT),
        ("1.2.840.10008.5.1.4.1.2.2.1", (IMPLICIT,), 3, IMPLICIT),
    ],
)
def test_contexts_are_answered_by_what_there_is_for_the_peer(
    abstract_syntax: str, transfer_syntaxes: tuple[str, ...], result: int, accepted: str
) -> None:
    [context], roles = answer_contexts([proposed(abstract_syntax, *transfer_syntaxes)], {}, offer())

    assert (context.result, context.transfer_syntax, context.context_id) == (result, [accepted], 1)
    assert roles == []


@pytest.mark.parametrize(
    ("asked", "commits", "hears", "result", "role"),
    [
        # Who reports proposes to be SCP; who asks, SCU; some propose both.
        ((False, True), True, True, 0, (False, True)),
        ((False, True), True, False, 1, None),
        ((True, False), True, True, 0, (True, False)),
        ((True, True), True, True, 0, (True, True)),
        ((True, True), False, True, 0, (False, True)),
        ((True, True), False, False, 1, None),
    ],
)
def test_roles_are_accepted_as_far_as_there_is_a_counterpart(
    asked: tuple[bool, bool],
    commits: bool,
    hears: bool,
    result: int,
    role: tuple[bool, bool] | None,
) -> None:
    [context], roles = answer_contexts(
        [proposed(COMMITMENT)], {COMMITMENT: asked}, offer(commits=commits, hears=hears)
    )

    assert context.result == result
    assert [(item.scu_role, item.scp_role) for item in roles] == ([role] if role else [])


def test_a_role_for_storage_is_the_default_one_and_not_spoken_of() -> None:
    [context], roles = answer_contexts([proposed(CT)], {CT: (True, True)}, offer())

    assert (context.result, context.as_scp, context.as_scu, roles) == (0, True, False, [])
