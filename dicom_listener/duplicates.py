"""Compares an instance that came again with other bytes to the one that came first.

That takes reading both, and is done by the process that hears of it by a message: the association
that brought it was answered long before.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID
from sqlalchemy import Row, select, update

from dicom_listener.conflicts import ConflictKind, Contradiction, is_decided_for, note
from dicom_listener.differences import Difference, Kind, compare, equal_pixels, text_of
from dicom_listener.identity import Identity, differing, identity_of
from dicom_listener.instance_header import NotUnderstood
from dicom_listener.remembered import compare_with_index, known_identity
from dicom_listener.rereading import Rereader, Source, skip_file_meta
from dicom_listener.sop_classes import DEFLATED
from imaging_store.instances import Kept, NotInStore
from imaging_store.schema.ingest import duplicate_instance, instance, study
from message_contracts.envelope import Envelope
from message_contracts.ingest import ConflictReason
from message_contracts.intake import InstanceDuplicated
from service_runtime.database import Database, Transaction
from service_runtime.messaging.consumer import Effect

_WHOLE_IN_MEMORY_BYTES = 128 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_LONGEST_VALUE = 400

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Found:
    difference: Difference
    claimed: Identity
    known_values: dict[str, str]
    claimed_values: dict[str, str]


_UNKNOWN = _Found(Difference(Kind.CONTENT, ()), Identity("", "", "", ""), {}, {})
"""Of two of which one cannot be read: a person has to look."""


@dataclass(frozen=True)
class Duplicates:
    """The handler of ``instance.duplicated``."""

    database: Database
    rereader: Rereader
    now: Callable[[], datetime]

    def on_instance_duplicated(self, envelope: Envelope) -> Effect:
        """Compare the two; tell of what a person has to see."""
        body = envelope.data(InstanceDuplicated)
        with self.database.reading() as connection:
            first = connection.execute(
                select(instance).where(instance.c.sop_instance_uid == body.sop_instance_uid)
            ).first()
            second = connection.execute(select(duplicate_instance).where(*_is(body))).first()
            of_study = connection.execute(
                select(study).where(study.c.study_instance_uid == body.study_instance_uid)
            ).one()
        if first is None or second is None or second.difference is not None or second.purged_at:
            return lambda _: None
        found = self._compare(of_study, first, second)
        log.info(
            "instance.compared",
            study_instance_uid=body.study_instance_uid,
            sop_instance_uid=body.sop_instance_uid,
            outcome=found.difference.kind,
            faults=found.difference.keywords,
        )
        return partial(_enter, body, found, self.now())

    def on_exhausted(self, envelope: Envelope, _reason: str) -> Effect:
        """Have a person look at what could not be compared, even where a decoder died of it."""
        body = envelope.body
        if not isinstance(body, InstanceDuplicated):
            return lambda _: None
        return partial(_enter, body, _UNKNOWN, self.now())

    def _compare(self, of_study: Row[Any], first: Row[Any], second: Row[Any]) -> _Found:
        try:
            if first.purged_at is not None:
                return self._found_in_index(of_study, first, second)
            return self._found(first, second)
        except (NotInStore, NotUnderstood, FileNotFoundError):
            return _UNKNOWN
        except (OSError, MemoryError):
            raise
        except Exception as error:
            # Whatever a malformed element or frame does to the libraries that read it.
            log.warning(
                "instance.not_compared", sop_instance_uid=first.sop_instance_uid, exc_info=error
            )
            return _UNKNOWN

    def _found_in_index(self, of_study: Row[Any], first: Row[Any], second: Row[Any]) -> _Found:
        newcomer = self.rereader.arrival(
            Kept(second.key, second.size_bytes, second.digest),
            Source(second.transfer_syntax_uid, second.calling_ae_title, second.called_ae_title),
            self.now(),
        )
        compared = compare_with_index(of_study, first, newcomer)
        header = newcomer.header
        claimed = identity_of(header, header.shared.issuer_of_patient_id)
        return _Found(compared.difference, claimed, compared.known, compared.claimed)

    def _found(self, first: Row[Any], second: Row[Any]) -> _Found:
        store = self.rereader.store
        headers = [
            self.rereader.header(row.key, row.transfer_syntax_uid) for row in (first, second)
        ]
        one, other = (
            _read(store.path(row.key), row.transfer_syntax_uid) for row in (first, second)
        )
        difference = compare(
            one.data_set, other.data_set, pixels_are_equal=lambda: _same_pixels(one, other)
        )
        # Who leaves the issuer out means the one that the first was known by.
        known, claimed = (
            identity_of(header, header.shared.issuer_of_patient_id) for header in headers
        )
        return _Found(
            difference,
            claimed,
            _values(one.data_set, known, difference.keywords),
            _values(other.data_set, claimed, difference.keywords),
        )


def _is(body: InstanceDuplicated) -> tuple[Any, ...]:
    columns = duplicate_instance.c
    return columns.sop_instance_uid == body.sop_instance_uid, columns.digest == body.digest


def _values(ds: Dataset, identity: Identity, keywords: tuple[str, ...]) -> dict[str, str]:
    texts = {keyword: text_of(ds, keyword)[:_LONGEST_VALUE] for keyword in keywords}
    return {keyword: text for keyword, text in texts.items() if text} | identity.values()


def _enter(body: InstanceDuplicated, found: _Found, at: datetime, transaction: Transaction) -> None:
    connection = transaction.connection
    known = connection.execute(
        select(study).where(study.c.study_instance_uid == body.study_instance_uid).with_for_update()
    ).one()
    connection.execute(
        update(duplicate_instance).where(*_is(body)).values(difference=str(found.difference.kind))
    )
    if found.difference.kind in {Kind.ENCODING, Kind.UNCOMPARED}:
        return
    contradiction = Contradiction(
        ConflictKind.INSTANCE,
        body.study_instance_uid,
        body.sop_instance_uid,
        body.digest,
        holds=True,
        reason=ConflictReason.INSTANCE_CONFLICT,
        differing=found.difference.keywords,
        known=found.known_values,
        claimed=found.claimed_values,
    )
    if found.difference.kind is Kind.ATTRIBUTES:
        contradiction = replace(
            contradiction,
            kind=ConflictKind.UPDATE,
            holds=_is_of_another(transaction, known, found.claimed),
            reason=ConflictReason.IDENTITY_CONFLICT,
        )
    note(transaction, contradiction, at)


def _is_of_another(transaction: Transaction, known: Row[Any], claimed: Identity) -> bool:
    """Whether the newcomer names another patient than its study is known by now."""
    return bool(differing(known_identity(known), claimed)) and not is_decided_for(
        transaction, known.study_instance_uid, claimed
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """A data set, or what of it lies before the pixels where it is too long to be held whole."""

    data_set: Dataset
    path: Path
    pixels_at: int | None = None


def _read(path: Path, transfer_syntax_uid: str) -> _Read:
    if transfer_syntax_uid in DEFLATED:
        return _Read(_inflated(path, transfer_syntax_uid), path)
    if path.stat().st_size <= _WHOLE_IN_MEMORY_BYTES:
        return _Read(_parsed(BytesIO(path.read_bytes())), path)
    with path.open("rb") as file:
        ds = _parsed(file, stop_before_pixels=True)
        return _Read(ds, path, file.tell())


def _parsed(file: Any, *, stop_before_pixels: bool = False) -> Dataset:
    try:
        return dcmread(file, stop_before_pixels=stop_before_pixels)
    except Exception as error:
        # Whatever a malformed data set does to the parser; its text may quote it.
        raise NotUnderstood("the data set cannot be parsed") from error


def _inflated(path: Path, transfer_syntax_uid: str) -> Dataset:
    """Read a deflated data set (PS3.5 §A.5) that inflates to no more than memory can hold."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as file:
        skip_file_meta(file)
        try:
            data = inflate.decompress(file.read(), _WHOLE_IN_MEMORY_BYTES)
            ds = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
        except Exception as error:
            # Whatever a malformed data set does to the parser; its text may quote it.
            raise NotUnderstood("the data set cannot be parsed") from error
    if inflate.unconsumed_tail:
        raise NotUnderstood("the data set inflates to more than can be compared")
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    return ds


def _same_pixels(one: _Read, other: _Read) -> bool:
    if one.pixels_at is None and other.pixels_at is None:
        return equal_pixels(one.data_set, other.data_set)
    if one.pixels_at is None or other.pixels_at is None:
        return False
    with one.path.open("rb") as file, other.path.open("rb") as other_file:
        file.seek(one.pixels_at)
        other_file.seek(other.pixels_at)
        while piece := file.read(_PIECE_BYTES):
            if piece != other_file.read(_PIECE_BYTES):
                return False
        return not other_file.read(1)
