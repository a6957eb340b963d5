"""C-STORE as a user of the Storage Service Class (PS3.4 Annex B): one association per batch.

The only module of the sender that imports pynetdicom.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from message_contracts.destination import PacsDestination
from service_runtime.errors import TransientError

NOT_ACCEPTED = 0x0122
"""SOP Class Not Supported: what we note where the PACS accepts no presentation context."""

_CONNECT_TIMEOUT_S = 15.0
_MOST_CONTEXTS = 128
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


class PacsUnavailable(TransientError):
    """The PACS is not reached, rejects or aborts the association, or falls silent."""


@dataclass(frozen=True)
class Caller:
    """Who sends, and how patiently."""

    ae_title: str
    timeout_s: float


def send(
    destination: PacsDestination,
    caller: Caller,
    instances: Sequence[bytes],
    on_answer: Callable[[str, int], None],
) -> None:
    """Send Part 10 files over one association; ``on_answer`` hears each UID and Status at once.

    Instances after one that is refused are still sent.

    Raises
    ------
    PacsUnavailable
        Before every instance had its answer.
    """
    datasets = [pydicom.dcmread(BytesIO(content)) for content in instances]
    association = _associate(destination, caller, _contexts(datasets))
    if association is None:
        for dataset in datasets:
            on_answer(str(dataset.SOPInstanceUID), NOT_ACCEPTED)
        return
    try:
        for message_id, dataset in enumerate(datasets, start=1):
            status = _store(association, dataset, message_id)
            if status is None:
                raise PacsUnavailable(f"{destination.name} ended the association without an answer")
            on_answer(str(dataset.SOPInstanceUID), status)
    finally:
        if association.is_established:
            association.release()


def _contexts(datasets: Sequence[Dataset]) -> list[PresentationContext]:
    """Return one context for each SOP class and kind of encoding.

    What is not compressed may go as Implicit VR too, which every PACS takes (PS3.5 §10.1).
    """
    proposed: dict[tuple[UID, tuple[UID, ...]], None] = {}
    for dataset in datasets:
        own = dataset.file_meta.TransferSyntaxUID
        is_compressed = own.is_compressed or own.is_deflated or not own.is_little_endian
        syntaxes = (own,) if is_compressed else _UNCOMPRESSED
        proposed[dataset.SOPClassUID, syntaxes] = None
    return [
        build_context(sop_class_uid, list(syntaxes))
        for sop_class_uid, syntaxes in list(proposed)[:_MOST_CONTEXTS]
    ]


def _associate(
    destination: PacsDestination, caller: Caller, contexts: list[PresentationContext]
) -> Association | None:
    """Return the association, or ``None`` where the PACS takes none of what was proposed."""
    entity = AE(ae_title=caller.ae_title)
    entity.connection_timeout = min(_CONNECT_TIMEOUT_S, caller.timeout_s)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = caller.timeout_s
    association = entity.associate(
        destination.host,
        destination.port,
        contexts=contexts,
        ae_title=destination.ae_title,
        evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay)],
    )
    if association.is_established:
        return association
    if association.is_rejected:
        why = getattr(association.acceptor.primitive, "reason_str", "") or "no reason given"
        raise PacsUnavailable(f"{destination.name} rejected the association: {why}")
    if association.rejected_contexts:
        return None
    raise PacsUnavailable(f"nobody answers for {destination.name}")


def _without_delay(event: evt.Event) -> None:
    # Nagle's algorithm holds the last fragment of a data set until the peer has acknowledged.
    association_socket = event.assoc.dul.socket
    if association_socket is not None and association_socket.socket is not None:
        association_socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _store(association: Association, dataset: Dataset, message_id: int) -> int | None:
    """Return the Status, or ``None`` where there was no answer."""
    try:
        response = association.send_c_store(dataset, msg_id=message_id)
    except ValueError:
        # No accepted presentation context is for it.
        return NOT_ACCEPTED
    except RuntimeError:
        return None
    return int(response.Status) if "Status" in response else None
