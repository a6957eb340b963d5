"""Send DICOM files by C-STORE (PS3.4 Annex B), each in the transfer syntax that it is in."""

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from typing_extensions import override

from service_runtime.errors import PermanentError

MOST_CONTEXTS = 128
"""Presentation contexts of one association: their ids are the odd numbers to 255 (PS3.8 §9.3.2)."""

_TIMEOUT_S = 30.0
_STORE_TIMEOUT_S = 300.0
_PREFIX_AT = 128
_WARNINGS = range(0xB000, 0xC000)
_ADDRESS = re.compile(
    r"(?P<ae_title>[\x20-\x5b\x5d-\x7e]{1,16})@(?P<host>\[[^\]]+\]|[^\[\]:]+):(?P<port>\d{1,5})"
)


class WrongAddress(PermanentError):
    """Not an address of an Application Entity."""


@dataclass(frozen=True)
class Address:
    """Where an Application Entity listens."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``AET@HOST:PORT``; an IPv6 address stands in brackets.

        Raises
        ------
        WrongAddress
            It is not of that form.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or not 1 <= int(match["port"]) < 2**16:
            raise WrongAddress(f"{text!r} is no address: AET@HOST:PORT, as in PACS@192.0.2.7:11112")
        return cls(match["ae_title"].strip(), match["host"].strip("[]"), int(match["port"]))

    @override
    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


@dataclass(frozen=True)
class Sendable:
    """A file that holds an instance."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    bare: bool = False
    """Without File Meta Information: the data set alone (PS3.10 calls it no file)."""

    @property
    def context(self) -> tuple[str, str]:
        """Abstract syntax and transfer syntax, which together need a presentation context."""
        return (self.sop_class_uid, self.transfer_syntax_uid)


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    path: Path
    status: int | None
    """The C-STORE response's Status (0000,0900); ``None`` where there was no response."""

    reason: str = ""
    """Error Comment (0000,0902), or why there was no response."""

    @property
    def taken(self) -> bool:
        """Whether the peer has it: Success or a Warning (PS3.7 Annex C)."""
        return self.status is not None and (self.status == 0 or self.status in _WARNINGS)

    @override
    def __str__(self) -> str:
        status = "" if self.status is None else f"{self.status:04X}: "
        return f"{self.path}: {status}{self.reason or 'taken'}"


@dataclass
class Survey:
    """What files turned out to be."""

    sendable: list[Sendable] = field(default_factory=list)
    skipped: list[Outcome] = field(default_factory=list)


def survey(paths: Iterable[Path]) -> Survey:
    """Look into every file, and into every file below a folder, for what it takes to send it."""
    found = Survey()
    for path in _files(paths):
        try:
            found.sendable.append(_look_into(path))
        except (InvalidDicomError, OSError, AttributeError, ValueError, EOFError, KeyError) as why:
            reason = why.strerror if isinstance(why, OSError) and why.strerror else str(why)
            found.skipped.append(Outcome(path, None, reason or "not a DICOM file"))
        except NotImplementedError:
            found.skipped.append(Outcome(path, None, "not a DICOM file"))
    return found


def send(
    files: Sequence[Sendable],
    to: Address,
    *,
    calling_ae_title: str,
    on_outcome: Callable[[Outcome], None],
) -> list[Outcome]:
    """Send files in their order, byte for byte, and return what became of each.

    Raises
    ------
    WrongAddress
        ``calling_ae_title`` is no AE title.
    """
    # The data set goes from the file to the peer as it is, in pieces.
    _config.STORE_SEND_CHUNKED_DATASET = True
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    for batch in batches(files):
        _send_batch(batch, to, calling_ae_title, note)
    return outcomes


def echo(to: Address, *, calling_ae_title: str) -> str:
    """Ask a peer whether it is there (C-ECHO, PS3.4 Annex A); return why not, or nothing."""
    association, reason = _associate(
        to, calling_ae_title, [build_context(UID("1.2.840.10008.1.1"), ImplicitVRLittleEndian)]
    )
    if association is None:
        return reason
    try:
        status = association.send_c_echo()
    finally:
        association.release()
    return "" if "Status" in status and status.Status == 0 else "no answer to C-ECHO"


def batches(files: Sequence[Sendable]) -> Iterator[list[Sendable]]:
    """Divide files, in their order, so that each batch fits into one association's contexts."""
    batch: list[Sendable] = []
    contexts: set[tuple[str, str]] = set()
    for file in files:
        if file.context not in contexts and len(contexts) == MOST_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(file)
        contexts.add(file.context)
    if batch:
        yield batch


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.is_file())
        else:
            yield path


def _look_into(path: Path) -> Sendable:
    with path.open("rb") as stream:
        stream.seek(_PREFIX_AT)
        is_part_10 = stream.read(4) == b"DICM"
    if not is_part_10:
        return _look_into_bare(path)
    meta = read_file_meta_info(path)
    for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID"):
        if not meta.get(keyword):
            raise ValueError(f"not sendable: File Meta Information lacks {keyword}")
    return Sendable(
        path,
        str(meta.MediaStorageSOPClassUID),
        str(meta.MediaStorageSOPInstanceUID),
        str(meta.TransferSyntaxUID),
    )


def _look_into_bare(path: Path) -> Sendable:
    dataset = dcmread(
        path,
        force=True,
        stop_before_pixels=True,
        specific_tags=["SOPClassUID", "SOPInstanceUID"],
    )
    implicit, little = dataset.original_encoding
    if not (dataset.get("SOPClassUID") and dataset.get("SOPInstanceUID")):
        raise ValueError("not a DICOM file")
    if implicit:
        syntax = ImplicitVRLittleEndian
    else:
        syntax = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return Sendable(
        path, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), str(syntax), bare=True
    )


def _send_batch(
    batch: list[Sendable], to: Address, calling_ae_title: str, note: Callable[[Outcome], None]
) -> None:
    contexts = [
        build_context(UID(sop_class), UID(syntax))
        for sop_class, syntax in dict.fromkeys(file.context for file in batch)
    ]
    association: Association | None = None
    reason = ""
    unreachable = False
    try:
        for number, file in enumerate(batch):
            # A peer that ends the association over one file may still take the next.
            if not unreachable and (association is None or not association.is_established):
                association, reason = _associate(to, calling_ae_title, contexts)
                unreachable = association is None
            if association is None:
                note(Outcome(file.path, None, reason))
            else:
                note(_store(association, file, number % 2**16))
    finally:
        if association is not None and association.is_established:
            association.release()


def _associate(
    to: Address, calling_ae_title: str, contexts: list[PresentationContext]
) -> tuple[Association | None, str]:
    try:
        entity = AE(calling_ae_title)
    except (ValueError, TypeError) as error:
        raise WrongAddress(f"the calling AE title: {error}") from None
    entity.connection_timeout = entity.acse_timeout = _TIMEOUT_S
    entity.dimse_timeout = entity.network_timeout = _STORE_TIMEOUT_S
    association = entity.associate(
        to.host,
        to.port,
        contexts=contexts,
        ae_title=to.ae_title,
        evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay)],
    )
    if association.is_established:
        return association, ""
    if association.is_rejected:
        answer = association.acceptor.primitive
        why = getattr(answer, "reason_str", "") or "no reason given"
        return None, f"{to} rejected the association: {why}"
    if association.rejected_contexts:
        return None, f"{to} takes none of what was proposed"
    return None, f"nobody answers at {to}"


def _without_delay(event: evt.Event) -> None:
    # Nagle's algorithm holds the last fragment of a data set until the peer has acknowledged.
    association_socket = event.assoc.dul.socket
    if association_socket is not None and association_socket.socket is not None:
        association_socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _store(association: Association, file: Sendable, message_id: int) -> Outcome:
    what = dcmread(file.path, force=True) if file.bare else file.path
    if file.bare and not isinstance(what, Path):
        what.file_meta = FileMetaDataset()
        what.file_meta.TransferSyntaxUID = UID(file.transfer_syntax_uid)
    try:
        response = association.send_c_store(what, msg_id=message_id)
    except ValueError:
        syntax = UID(file.transfer_syntax_uid).name
        return Outcome(
            file.path, None, f"{UID(file.sop_class_uid).name} in {syntax} was not accepted"
        )
    except (AttributeError, OSError) as error:
        return Outcome(file.path, None, str(error))
    except RuntimeError:
        return Outcome(file.path, None, "the association ended")
    if "Status" not in response:
        return Outcome(file.path, None, "the association ended without an answer")
    comment = str(response.get("ErrorComment", ""))
    reason = comment or ("" if response.Status == 0 else "no comment given")
    return Outcome(file.path, int(response.Status), reason)
