"""Instances as they are retrieved: as stored, or transcoded where that was asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import Row

from dicom_listener.dicomweb.media_types import DICOM, MULTIPART, MediaType, covers
from dicom_listener.dicomweb.multipart import end_of_parts, head_of_part
from dicom_listener.dicomweb.offered import instances_of, were_purged
from dicom_listener.dicomweb.pixel_work import PIXEL_WORK, Lane
from dicom_listener.part10 import file_meta
from dicom_listener.sop_classes import DEFLATED
from imaging_pixels.decode import UndecodablePixels
from imaging_pixels.inflation import check_inflated_size
from imaging_pixels.transcode import (
    NotTranscodable,
    can_be_read_from,
    can_be_written_in,
    transcode,
)
from imaging_store.instances import FileInstanceStore, NotInStore
from service_runtime.database import Database
from service_runtime.problem_details import Problem

PIECE_BYTES = 256 * 1024

MOST_INFLATED_BYTES = 2**28
"""Of a deflated data set that is not sent as stored: as a whole it has to be in memory."""

LONGEST_TRANSCODED_BYTES = 2**30
"""Of an instance as stored that is sent in another transfer syntax."""

_ANY = "*"
_LOG = structlog.get_logger()

Instance = Row[Any]
"""A row of what is offered."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How instances are to be sent."""

    is_multipart: bool
    transfer_syntaxes: tuple[str, ...]
    """Acceptable ones, the most wanted first; ``*`` for as stored."""

    def of(self, instance: Instance) -> str | None:
        """Return the transfer syntax to send an instance in; ``None`` where none will do."""
        stored: str = instance.transfer_syntax_uid
        if stored in self.transfer_syntaxes or _ANY in self.transfer_syntaxes:
            return stored
        if can_be_read_from(stored):
            return next(filter(can_be_written_in, self.transfer_syntaxes), None)
        return None


def wanted(accepted: Sequence[MediaType], *, is_one: bool) -> Wanted:
    """Choose among acceptable media types for instances (PS3.18 §8.7.3).

    A transfer syntax that is not said is Explicit VR Little Endian; who takes anything whatever
    is sent what is stored. A single part is for one instance only.

    Raises
    ------
    Problem
        406 where none of them is for instances.
    """
    syntaxes: list[str] = []
    is_multipart: bool | None = None
    for each in accepted:
        is_parts = each.covers(MULTIPART) and covers(each.part, DICOM)
        is_single = is_one and each.covers(DICOM) and not is_parts
        if not (is_parts or is_single) or is_multipart not in (None, is_parts):
            continue
        is_multipart = is_parts
        default = _ANY if each.name == "*/*" else str(ExplicitVRLittleEndian)
        syntaxes.append(each.transfer_syntax or default)
    if is_multipart is None:
        raise not_acceptable(f'{MULTIPART}; type="{DICOM}" is offered here')
    return Wanted(is_multipart, tuple(syntaxes))


def not_acceptable(detail: str) -> Problem:
    """Return the problem of a request that takes nothing that is offered."""
    return Problem(406, "not-acceptable", detail)


def require_instances(database: Database, role: str, **uids: str) -> list[Instance]:
    """Return what is offered of a study, series or instance.

    Raises
    ------
    Problem
        404 where there is nothing, 410 where there was and it has been purged.
    """
    if any("\0" in uid for uid in uids.values()):
        # Which not every database takes, not even to compare.
        raise _not_found()
    with database.reading() as connection:
        found = instances_of(connection, role, **uids)
        if found:
            return found
        is_gone = were_purged(connection, **uids)
    raise gone() if is_gone else _not_found()


def _not_found() -> Problem:
    return Problem(404, "not-found", "there is no such instance here")


def gone() -> Problem:
    """Return the problem of an instance that was purged."""
    return Problem(410, "gone", "what was received has been purged after its case ended")


def parts(
    store: FileInstanceStore,
    instances: Sequence[tuple[Instance, str]],
    boundary: str,
    url: str,
) -> Iterator[bytes]:
    """Yield the body of instances, each in a transfer syntax, one after the other.

    What turns out to be damaged or gone when its turn has come is left out.
    """
    for instance, transfer_syntax_uid in instances:
        content = file_content(store, instance, transfer_syntax_uid)
        try:
            first = next(content, b"")
        except (NotInStore, NotTranscodable) as error:
            _LOG.warning(
                "instance.not_sent", sop_instance_uid=instance.sop_instance_uid, exc_info=error
            )
            continue
        yield head_of(instance, transfer_syntax_uid, boundary, url)
        yield first
        yield from content
    yield end_of_parts(boundary)


def head_of(instance: Instance, transfer_syntax_uid: str, boundary: str, url: str) -> bytes:
    """Return the delimiter and the head of an instance's part of a body."""
    media_type = f"{DICOM}; transfer-syntax={transfer_syntax_uid}"
    return head_of_part(boundary, media_type, instance_url(url, instance))


def lane_of(instances: Sequence[tuple[Instance, str]]) -> Lane:
    """Return where instances are read that are to be sent, each in a transfer syntax."""
    is_as_stored = all(uid == instance.transfer_syntax_uid for instance, uid in instances)
    return None if is_as_stored else PIXEL_WORK


def file_content(
    store: FileInstanceStore, instance: Instance, transfer_syntax_uid: str
) -> Iterator[bytes]:
    """Yield a Part 10 file: as stored byte by byte, or transcoded.

    Raises
    ------
    NotInStore
        It has been purged meanwhile.
    NotTranscodable
        The instance cannot be had in that transfer syntax, or is too large for it.
    """
    if transfer_syntax_uid == instance.transfer_syntax_uid:
        with store.open(instance.key) as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
        return
    if store.path(instance.key).stat().st_size > LONGEST_TRANSCODED_BYTES:
        raise NotTranscodable("the instance is too large to be transcoded here")
    content = store.read(instance.key)
    if instance.transfer_syntax_uid in DEFLATED:
        _check_inflated_size(content)
    dataset = transcode(content, transfer_syntax_uid)
    del content
    yield file_meta(instance.sop_class_uid, instance.sop_instance_uid, transfer_syntax_uid, "")
    for start in range(0, len(dataset), PIECE_BYTES):
        yield dataset[start : start + PIECE_BYTES]


def _check_inflated_size(content: bytes) -> None:
    try:
        check_inflated_size(content, MOST_INFLATED_BYTES)
    except UndecodablePixels as error:
        raise NotTranscodable(str(error)) from error


def instance_url(url: str, instance: Instance) -> str:
    """Return the URL of an instance below that of the service."""
    return (
        f"{url}/studies/{instance.study_instance_uid}/series/{instance.series_instance_uid}"
        f"/instances/{instance.sop_instance_uid}"
    )
