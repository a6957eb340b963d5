"""Reads once more what is kept, as if it had just arrived."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from dicom_listener.arrival import Arrival
from dicom_listener.instance_header import InstanceHeader, NotUnderstood, parse_header
from dicom_listener.peers import Peer
from dicom_listener.study_start import study_start
from imaging_pixels.file_meta import FileMeta, NotPart10, read_file_meta
from imaging_store.instances import FileInstanceStore, Kept


@dataclass(frozen=True, slots=True)
class Source:
    """Where an instance came from, and in which transfer syntax."""

    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str


@dataclass(frozen=True, slots=True)
class Rereader:
    """Reads instances of one store; what they leave unsaid is told by who sent them."""

    store: FileInstanceStore
    peer_of: Callable[[str], Peer]
    """Of a calling AE title."""

    def header(self, key: str, transfer_syntax_uid: str) -> InstanceHeader:
        """Return the header of an instance.

        Raises
        ------
        NotInStore
            Its bytes have been purged.
        NotUnderstood
            It does not say which instance it is.
        """
        with self.store.open(key) as file:
            skip_file_meta(file)
            header = parse_header(file, transfer_syntax_uid)
        if header is None:
            raise NotUnderstood("the data set ends before its header does")
        return header

    def arrival(self, kept: Kept, source: Source, at: datetime) -> Arrival:
        """Return an instance as it would arrive now.

        Raises
        ------
        NotInStore, NotUnderstood
            As `header`.
        """
        return self.arrival_of(self.header(kept.key, source.transfer_syntax_uid), kept, source, at)

    def arrival_of(
        self, header: InstanceHeader, kept: Kept, source: Source, at: datetime
    ) -> Arrival:
        """Return an instance whose header has been read as it would arrive now."""
        peer, shared = self.peer_of(source.calling_ae_title), header.shared
        return Arrival(
            header=header,
            kept=kept,
            transfer_syntax_uid=source.transfer_syntax_uid,
            calling_ae_title=source.calling_ae_title,
            called_ae_title=source.called_ae_title,
            issuer_of_patient_id=shared.issuer_of_patient_id or peer.default_issuer_of_patient_id,
            started=study_start(
                shared.study_date, shared.study_time, shared.timezone_offset, peer.zone
            ),
            at=at,
            quiet_period=peer.quiet_period,
        )


def skip_file_meta(file: BinaryIO) -> FileMeta:
    """Go to where the data set begins in a Part 10 file that we began; return what is before it.

    Raises
    ------
    NotUnderstood
        It is no such file.
    """
    try:
        return read_file_meta(file)
    except NotPart10 as error:
        raise NotUnderstood(str(error)) from None
