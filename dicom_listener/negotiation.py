"""Association negotiation (PS3.8 §7.1.1): who is let in, and for which presentation contexts."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom import AE, _config
from pynetdicom.acse import ACSE
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_listener.admission import (
    APPLICATION_CONTEXT_NAME,
    AssociationRequest,
    Rejection,
    rejection_of,
)
from dicom_listener.associate_request import Agreement, AssociateRequest, remember
from dicom_listener.association_count import AssociationsOfProcess
from dicom_listener.metrics import REJECTIONS
from dicom_listener.normalized import (
    NOTHING,
    EventReceiver,
    NormalizedService,
    Offer,
    offer_to,
)
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.peers import Listed, Peer, peer_of
from dicom_listener.sop_classes import TRANSFER_SYNTAXES, VERIFICATION, is_storage
from service_runtime.errors import TransientError

if TYPE_CHECKING:
    from dicom_listener.storage_scp import Acceptor

MAXIMUM_PDU_BYTES = 131_072
"""What is announced (PS3.8 §D.1); DCMTK sends no longer ones."""

_SERVICE_USER = 0x01
_ACCEPTED, _USER_REJECTION, _NO_SUCH_SYNTAX, _NO_TRANSFER_SYNTAX = 0x00, 0x01, 0x03, 0x04
_UNCOMPRESSED = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
)
"""Transfer syntaxes of data sets without pixels."""
_DEFAULT_ROLES = (True, False)

log = structlog.get_logger()


def application_entity(ae_title: str) -> AE:
    """Return the local AE, and have pynetdicom neither log nor print what passes through it."""
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    ae = AE(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
    return ae


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """Lets associations in, or says why not."""

    ae_title: str
    """Of this installation."""
    site: Peer
    """What holds for a peer of which nothing is listed."""
    look_up: Callable[[str], Listed]
    """Tells what is listed of a calling AE title now; `TransientError` where nothing can."""
    count: AssociationsOfProcess
    services: Sequence[NormalizedService] = ()
    receivers: Sequence[EventReceiver] = ()

    def admit(self, request: AssociationRequest, *, is_draining: bool) -> Peer | Rejection:
        """Return the peer, which is counted from now on until `leave`; or why it is rejected."""
        try:
            listed = self.look_up(request.calling_ae_title)
        except TransientError as error:
            log.warning("application_entity.not_read", exc_info=error)
            return Rejection.UNDECIDED
        rejection = rejection_of(request, self.ae_title, listed)
        if rejection is None and is_draining:
            rejection = Rejection.DRAINING
        if rejection is None:
            limit = listed.entry.max_associations if listed.entry else None
            rejection = self.count.enter(request.calling_ae_title, limit)
        return rejection or peer_of(request.calling_ae_title, listed.entry, self.site)

    def leave(self, peer: Peer) -> None:
        """Count an association less."""
        self.count.leave(peer.ae_title)

    def offer_to(self, peer: Peer) -> Offer:
        """Return what a peer may use beside Storage and Verification."""
        return offer_to(peer, self.services, self.receivers)


class Negotiation(ACSE):  # type: ignore[misc]
    """Accepts by rule instead of by a list of contexts that would be copied each time."""

    def _negotiate_as_acceptor(self) -> None:
        association: Acceptor = self.assoc
        request = association.request
        outcome = association.front_door.admit(request, is_draining=association.dul.is_draining)
        if isinstance(outcome, Rejection):
            self.send_reject(outcome.result, outcome.source, outcome.diagnostic)
            association.kill()
            REJECTIONS.labels(outcome.name.lower()).inc()
            log.warning(
                "association.rejected",
                reason=outcome.reason,
                status_code=f"{outcome.result}/{outcome.source}/{outcome.diagnostic}",
                peer=request.address,
                calling_ae_title=_printable(request.calling_ae_title),
                called_ae_title=_printable(request.called_ae_title),
            )
            return
        association.enter(outcome)
        assert association.dul.request is not None  # noqa: S101 - it has just been received
        offer = association.services.offer if association.services else NOTHING
        agreement = self._agreement_on(association.dul.request, offer)
        association._accepted_cx = agreement.accepted  # noqa: SLF001
        association._rejected_cx = agreement.rejected  # noqa: SLF001
        association.dul.accept(agreement.pdu)
        association.is_established = True

    def _agreement_on(self, request: AssociateRequest, offer: Offer) -> Agreement:
        """Return what a request is answered with: with the same, where it has come before."""
        key = tuple(map(frozenset, (offer.services, offer.receivers, offer.known)))
        agreement = request.agreements.get(key)
        if agreement is None:
            agreement = request.agreements[key] = self._agree(offer)
            remember(request)
        return agreement

    def _agree(self, offer: Offer) -> Agreement:
        primitive = self.requestor.primitive
        contexts, roles = answer_contexts(
            primitive.presentation_context_definition_list,
            {
                str(uid): (bool(item.scu_role), bool(item.scp_role))
                for uid, item in self.requestor.role_selection.items()
            },
            offer,
        )
        accept = A_ASSOCIATE()
        accept.application_context_name = APPLICATION_CONTEXT_NAME
        accept.calling_ae_title = primitive.calling_ae_title
        accept.called_ae_title = primitive.called_ae_title
        accept.result, accept.result_source = _ACCEPTED, _SERVICE_USER
        accept.presentation_context_definition_results_list = contexts
        accept.user_information = [*self.acceptor.user_information, *roles]
        return Agreement(
            accepted={c.context_id: c for c in contexts if c.result == _ACCEPTED},
            rejected=[c for c in contexts if c.result != _ACCEPTED],
            pdu=A_ASSOCIATE_AC(accept).encode(),
        )


def answer_contexts(
    proposed: Sequence[PresentationContext],
    roles: Mapping[str, tuple[bool, bool]] | None = None,
    offer: Offer = NOTHING,
) -> tuple[list[PresentationContext], list[SCP_SCU_RoleSelectionNegotiation]]:
    """Answer proposed presentation contexts (PS3.8 §7.1.1.13) and roles (PS3.7 §D.3.3.4).

    Of the transfer syntaxes of a context the first that the Standard defines is accepted.
    ``roles`` says whether the requestor would be SCU, and SCP, of a SOP Class.
    """
    roles = roles or {}
    contexts, answered = [], {}
    for context in proposed:
        uid = str(context.abstract_syntax)
        would_be = roles.get(uid, _DEFAULT_ROLES)
        may_be = (would_be[0] and uid in offer.services, would_be[1] and uid in offer.receivers)
        answer = _answer(context, uid, may_be, offer)
        contexts.append(answer)
        if uid in roles and uid in offer.known and answer.result == _ACCEPTED:
            answered[uid] = _role(uid, *may_be)
    return contexts, list(answered.values())


def _answer(
    proposed: PresentationContext, uid: str, roles: tuple[bool, bool], offer: Offer
) -> PresentationContext:
    context = PresentationContext()
    context.context_id = proposed.context_id
    context.abstract_syntax = proposed.abstract_syntax
    context.transfer_syntax = proposed.transfer_syntax[:1]
    is_ours = uid == VERIFICATION or is_storage(uid)
    context._as_scp, context._as_scu = is_ours or roles[0], roles[1]  # noqa: SLF001
    if uid in offer.known and not any(roles):
        context.result = _USER_REJECTION
        return context
    if not is_ours and uid not in offer.known:
        context.result = _NO_SUCH_SYNTAX
        return context
    understood = TRANSFER_SYNTAXES if is_ours else _UNCOMPRESSED
    context.result = _NO_TRANSFER_SYNTAX
    for transfer_syntax in proposed.transfer_syntax:
        if transfer_syntax in understood:
            context.transfer_syntax = [transfer_syntax]
            context.result = _ACCEPTED
            break
    return context


def _role(uid: str, scu: bool, scp: bool) -> SCP_SCU_RoleSelectionNegotiation:  # noqa: FBT001
    item = SCP_SCU_RoleSelectionNegotiation()
    item.sop_class_uid, item.scu_role, item.scp_role = uid, scu, scp
    return item


def _printable(title: Any) -> str:
    return "".join(each if each.isprintable() else "?" for each in str(title))
