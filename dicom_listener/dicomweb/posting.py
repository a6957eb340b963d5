"""What is posted, part by part, on its way into the store: C-STORE's rules for HTTP's parts.

One request is to completion what an association is to C-STORE: it ends with its answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from dicom_listener.c_store import StoreRequest
from dicom_listener.dicomweb.multipart import MalformedMultipart, Mark, MultipartReader
from dicom_listener.instance_header import NotUnderstood
from dicom_listener.keeping import Reception
from dicom_listener.metrics import INSTANCES
from dicom_listener.reception import InstanceKeeper, InstanceReception
from dicom_listener.sender import Sender
from dicom_listener.sop_classes import TRANSFER_SYNTAXES, is_storage
from dicom_listener.store_status import StoreAnswer, StoreStatus
from imaging_pixels.file_meta import FileMeta, NotPart10, parse_file_meta

CALLING_AE_TITLE = "DICOMWEB"
"""Stands where an AE title is kept, and may be listed as one: who posts is a user, without one."""

SOP_CLASS_NOT_SUPPORTED = 0x0122
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122
"""Failure reasons of PS3.18 Table I.2-2 that C-STORE tells by refusing the context instead."""

_MOST_PARTS = 50_000
_OTHER_STUDY = StoreAnswer(
    StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "Study Instance UID differs from the URL's"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one part."""

    sop_class_uid: str
    """Empty where the part does not say, as is the next."""
    sop_instance_uid: str
    status: int
    comment: str
    """Empty where it was stored; names nothing of the patient's."""

    @property
    def is_stored(self) -> bool:
        """Whether it is durable and can be found."""
        return self.status == StoreStatus.SUCCESS


BeginReception = Callable[[StoreRequest, str], Reception]
"""Begins to keep a data set in a transfer syntax."""


class Posting:
    """Takes the body of one request, in order; ends with ``end``, whatever happened."""

    def __init__(self, begin: BeginReception, boundary: str, on_end: Callable[[], None]) -> None:
        self._begin = begin
        self._reader = MultipartReader(boundary)
        self._on_end = on_end
        self._part: _Part | None = None
        self.outcomes: list[Outcome] = []

    def take(self, piece: bytes) -> None:
        """Take the next bytes of the body.

        Raises
        ------
        MalformedMultipart
            It is not made of parts. What was complete before stays stored.
        """
        for found in self._reader.feed(piece):
            if found is Mark.PART_BEGINS:
                if len(self.outcomes) == _MOST_PARTS:
                    raise MalformedMultipart(f"at most {_MOST_PARTS} parts are taken")
                self._part = _Part(self._begin)
            elif self._part is None:
                continue
            elif isinstance(found, memoryview):
                self._part.write(found)
            else:
                part, self._part = self._part, None
                outcome = part.finish()
                INSTANCES.labels(f"{outcome.status:04X}").inc()
                self.outcomes.append(outcome)

    def close(self) -> None:
        """Tell that the body has come to its end.

        Raises
        ------
        MalformedMultipart
            The last part is not complete; it was not stored.
        """
        self._reader.close()

    def end(self) -> None:
        """Leave nothing of a part that was not finished."""
        if self._part is not None:
            self._part.abandon()
            self._part = None
        self._on_end()


class _Part:
    """One file: its File Meta Information decides how the data set behind it is kept."""

    def __init__(self, begin: BeginReception) -> None:
        self._begin = begin
        self._head = bytearray()
        self._meta: FileMeta | None = None
        self._reception: Reception | None = None
        self._refusal: tuple[int, str] | None = None

    def write(self, content: memoryview) -> None:
        if self._reception is not None:
            self._reception.write(content)
        elif self._refusal is None:
            self._head += content
            self._decide()

    def finish(self) -> Outcome:
        if self._reception is None and self._refusal is None:
            self._decide(whole=True)
        if self._reception is not None:
            answer = self._reception.finish()
            return self._outcome(int(answer.status), answer.comment)
        assert self._refusal is not None  # noqa: S101 - what is whole has been decided
        return self._outcome(*self._refusal)

    def abandon(self) -> None:
        if self._reception is not None:
            self._reception.abandon()

    def _outcome(self, status: int, comment: str) -> Outcome:
        meta = self._meta
        return Outcome(
            meta.sop_class_uid if meta else "",
            meta.sop_instance_uid if meta else "",
            status,
            # There is no command: the File Meta Information says what a part is.
            comment.replace("the command's", "File Meta Information's"),
        )

    def _decide(self, *, whole: bool = False) -> None:
        try:
            meta = self._meta = parse_file_meta(bytes(self._head), whole=whole)
        except NotPart10 as error:
            self._refuse(StoreStatus.CANNOT_UNDERSTAND, str(error))
            return
        if meta is None:
            return
        if not (meta.sop_class_uid and meta.sop_instance_uid and meta.transfer_syntax_uid):
            self._refuse(StoreStatus.CANNOT_UNDERSTAND, "File Meta Information lacks a UID")
        elif not is_storage(meta.sop_class_uid):
            self._refuse(SOP_CLASS_NOT_SUPPORTED, "SOP Class is not stored here")
        elif meta.transfer_syntax_uid not in TRANSFER_SYNTAXES:
            self._refuse(TRANSFER_SYNTAX_NOT_SUPPORTED, "Transfer Syntax is not known")
        else:
            request = StoreRequest(
                message_id=0,
                affected_sop_class_uid=meta.sop_class_uid,
                affected_sop_instance_uid=meta.sop_instance_uid,
                has_data_set=True,
            )
            self._reception = self._begin(request, meta.transfer_syntax_uid)
            self._reception.write(memoryview(bytes(self._head))[meta.size_bytes :])
        self._head.clear()

    def _refuse(self, status: int, comment: str) -> None:
        self._refusal = (status, comment)


def receptions(
    keeper: InstanceKeeper, sender: Sender, study_instance_uid: str = ""
) -> BeginReception:
    """Return what begins receptions of a request; empty, its URL names no study."""

    def begin(request: StoreRequest, transfer_syntax_uid: str) -> Reception:
        return _OfStudy(study_instance_uid, keeper, request, transfer_syntax_uid, sender)

    return begin


class _OfStudy(InstanceReception):
    """Refuses an instance of another study than the one that the URL names (PS3.18 §10.5.1)."""

    def __init__(self, study_instance_uid: str, *reception: Any) -> None:
        super().__init__(*reception)
        self._study_instance_uid = study_instance_uid

    @override
    def _keep(self) -> StoreAnswer:
        try:
            header = self._header()
        except NotUnderstood:
            return super()._keep()
        if self._study_instance_uid not in ("", header.study_instance_uid):
            return self._refuse(_OTHER_STUDY)
        return super()._keep()
