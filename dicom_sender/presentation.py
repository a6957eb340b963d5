"""What is proposed to a PACS, and in which encoding each instance goes. Pure.

As stored where the PACS takes that; else in what the destination asks for, the most wanted first;
else uncompressed. Each transfer syntax that we would choose between has a presentation context of
its own, because within one context the acceptor chooses (PS3.8 §9.3.3.2).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging_pixels.transcode import can_be_read_from, can_be_written_in

MOST_CONTEXTS = 128
"""Presentation Context IDs are odd, from 1 to 255 (PS3.8 §9.3.2.2)."""


@dataclass(frozen=True)
class Stored:
    """An instance that waits, as its File Meta Information has it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    key: str
    """Where the instance store keeps it."""
    data_set_offset: int
    """Where its data set begins in the file."""


@dataclass(frozen=True)
class Proposal:
    """One presentation context."""

    sop_class_uid: str
    transfer_syntax_uid: str


def proposals_for(stored: Stored, wanted: Sequence[str]) -> tuple[Proposal, ...]:
    """Return the contexts under which an instance may go, the preferred one first."""
    own = stored.transfer_syntax_uid
    proposed = [own]
    if can_be_read_from(own):
        proposed += [uid for uid in wanted if can_be_written_in(uid)]
        # Implicit VR Little Endian is what every PACS takes (PS3.5 §10.1), Explicit says more.
        proposed += [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    return tuple(Proposal(stored.sop_class_uid, uid) for uid in dict.fromkeys(proposed))


def batches(
    waiting: Iterable[Stored], wanted: Sequence[str]
) -> Iterator[tuple[list[Stored], list[Proposal]]]:
    """Yield what goes over one association each, and what is proposed for it."""
    batch: list[Stored] = []
    proposed: dict[Proposal, None] = {}
    for stored in waiting:
        more = dict.fromkeys(proposals_for(stored, wanted))
        if len(proposed | more) > MOST_CONTEXTS:
            yield batch, list(proposed)
            batch, proposed = [], {}
        batch.append(stored)
        proposed |= more
    if batch:
        yield batch, list(proposed)


def candidates(
    stored: Stored, wanted: Sequence[str], accepted: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the transfer syntaxes to try for an instance, in order, of those accepted.

    ``accepted`` has, for each SOP class, the transfer syntaxes that the PACS takes.
    """
    taken = accepted.get(stored.sop_class_uid, ())
    proposed = [each.transfer_syntax_uid for each in proposals_for(stored, wanted)]
    return [uid for uid in proposed if uid in taken]
