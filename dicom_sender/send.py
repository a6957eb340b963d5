"""C-STORE as a user of the Storage Service Class (PS3.4 Annex B): one association per batch.

What the PACS takes as it is stored goes as it is stored, byte for byte, read from the file while it
is sent; anything else is transcoded without loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_sender.association import Command, PacsAssociation, associated
from dicom_sender.caller import Caller
from dicom_sender.presentation import Stored, batches, candidates
from imaging_pixels.transcode import NotTranscodable, transcode
from imaging_store.instances import InstanceStore
from message_contracts.destination import PacsDestination

NOT_ACCEPTED = 0x0122
"""SOP Class Not Supported: what we note where the PACS accepts no presentation context."""

_LONGEST_COMMENT = 64


@dataclass(frozen=True)
class Sent:
    """What became of one instance."""

    sop_instance_uid: str
    status: int
    error_comment: str
    transfer_syntax_uid: str
    """In which it was sent; empty where it was not."""


@dataclass(frozen=True)
class Batch:
    """What is to be sent, and who hears of it."""

    waiting: Sequence[Stored]
    before_each: Callable[[Stored], None]
    """Called before an instance is sent; what it raises ends the sending."""
    on_answer: Callable[[Sent], None]
    """Called with each answer, before the next instance is sent."""


def send(destination: PacsDestination, caller: Caller, store: InstanceStore, batch: Batch) -> None:
    """Send a batch over one association; over more where the contexts do not fit into one.

    Instances after one that is refused are still sent.

    Raises
    ------
    PacsUnavailable
        Before every instance had its answer.
    """
    wanted = destination.transfer_syntaxes
    for waiting, proposals in batches(batch.waiting, wanted):
        with associated(destination, caller, proposals) as association:
            accepted = association.accepted if association is not None else {}
            for stored in waiting:
                batch.before_each(stored)
                syntaxes = candidates(stored, wanted, accepted)
                if association is None or not syntaxes:
                    batch.on_answer(_not_sent(stored, "no presentation context for it is taken"))
                else:
                    batch.on_answer(_send_one(association, store, stored, syntaxes))


def _send_one(
    association: PacsAssociation, store: InstanceStore, stored: Stored, syntaxes: Sequence[str]
) -> Sent:
    """Send an instance in the first of these transfer syntaxes that it goes into unchanged."""
    reason = ""
    for transfer_syntax_uid in syntaxes:
        data_set: bytes | tuple[Path, int]
        if transfer_syntax_uid == stored.transfer_syntax_uid:
            data_set = (store.path(stored.key), stored.data_set_offset)
        else:
            try:
                data_set = transcode(store.read(stored.key), transfer_syntax_uid)
            except NotTranscodable as error:
                reason = str(error)
                continue
        command = Command(stored.sop_class_uid, stored.sop_instance_uid, transfer_syntax_uid)
        answer = association.store(command, data_set)
        comment = answer.error_comment[:_LONGEST_COMMENT]
        return Sent(stored.sop_instance_uid, answer.status, comment, transfer_syntax_uid)
    return _not_sent(stored, reason)


def _not_sent(stored: Stored, reason: str) -> Sent:
    return Sent(stored.sop_instance_uid, NOT_ACCEPTED, reason[:_LONGEST_COMMENT], "")
