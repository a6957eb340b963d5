"""Keeps one data set while it arrives: first its bytes, then the answer, then the index."""

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from dicom_listener.arrival import Arrival
from dicom_listener.c_store import StoreRequest
from dicom_listener.entered import is_kept
from dicom_listener.index import Index
from dicom_listener.instance_header import (
    PREFIX_BYTES,
    InstanceHeader,
    NotUnderstood,
    parse_header,
    study_begun,
)
from dicom_listener.keeping import Reception
from dicom_listener.key_object_selection import KEY_OBJECT_SELECTION, rejected_studies
from dicom_listener.long_transfers import prolong
from dicom_listener.open_associations import OpenAssociation
from dicom_listener.part10 import file_meta
from dicom_listener.quarantine import Quarantined, put, quarantine_key, reason_key
from dicom_listener.rereading import Source, skip_file_meta
from dicom_listener.sender import Sender
from dicom_listener.store_status import (
    OTHER_SOP_CLASS,
    OTHER_SOP_INSTANCE,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SUCCESS,
    StoreAnswer,
    cannot_understand,
)
from dicom_listener.study_start import study_start
from imaging_store.instances import FileInstanceStore, FileSink, Kept, StorageFull, instance_key
from service_runtime.database import Database, DatabaseFull

log = structlog.get_logger()

_FIRST_PARSE_BYTES = 8192
"""Of most modalities the header ends before; otherwise it is read again when more has come."""
_SHORT = timedelta(seconds=1)
"""Transfers that take no longer are left alone: their instance is there soon enough."""


class InstanceKeeper:
    """Begins receptions into one store and one index."""

    def __init__(
        self,
        store: FileInstanceStore,
        database: Database,
        index: Index,
        now: Callable[[], datetime],
    ) -> None:
        self.store = store
        self.database = database
        self.index = index
        self.now = now

    def __call__(
        self, request: StoreRequest, transfer_syntax_uid: str, sender: Sender
    ) -> Reception:
        """Begin to keep a data set. What goes wrong is answered when all of it has arrived."""
        return InstanceReception(self, request, transfer_syntax_uid, sender)

    def association_ended(self, association: OpenAssociation) -> None:
        """Have an association that has ended hold no study open."""
        self.index.end(association)


class InstanceReception:
    """One data set on its way from the association to the store."""

    def __init__(
        self,
        keeper: InstanceKeeper,
        request: StoreRequest,
        transfer_syntax_uid: str,
        sender: Sender,
    ) -> None:
        self._keeper = keeper
        self._request = request
        self._transfer_syntax_uid = transfer_syntax_uid
        self._sender = sender
        self._prefix = bytearray()
        self._parse_at = _FIRST_PARSE_BYTES
        self._header_read: InstanceHeader | None = None
        self._failure: StoreAnswer | None = None
        self._sink: FileSink | None = None
        self._quiet_period = sender.peer.quiet_period
        self._prolong_at = keeper.now() + min(_SHORT, self._quiet_period / 10)
        self._meta = file_meta(
            request.affected_sop_class_uid,
            request.affected_sop_instance_uid,
            transfer_syntax_uid,
            sender.calling_ae_title,
        )
        try:
            self._sink = keeper.store.open_write(self._meta)
        except Exception as error:  # noqa: BLE001 - every failure has to be answered
            self._fail(error)

    def write(self, *fragments: memoryview) -> None:
        """Take the next bytes; after a failure the rest is read and dropped."""
        if self._sink is None:
            return
        try:
            self._sink.write(*fragments)
        except Exception as error:  # noqa: BLE001 - every failure has to be answered
            self._fail(error)
        else:
            self._follow(fragments)

    def room(self) -> memoryview | None:
        """Return where the next bytes may be put; after a failure nowhere."""
        return self._sink.room() if self._sink is not None else None

    def took(self, piece: memoryview) -> None:
        """Take the next bytes, which are where they belong already."""
        try:
            self._open_sink().took(len(piece))
        except Exception as error:  # noqa: BLE001 - every failure has to be answered
            self._fail(error)
        else:
            self._follow([piece])

    def _follow(self, fragments: Sequence[memoryview]) -> None:
        """Do what is done while the data set arrives."""
        if self._header_read is None:
            self._read_ahead(fragments)
        if (now := self._keeper.now()) >= self._prolong_at:
            self._prolong_at = now + self._quiet_period / 2
            self._keep_waiting(now)

    def _keep_waiting(self, now: datetime) -> None:
        """Have the study of a transfer that takes long wait for it, as long as something comes."""
        header = self._header_read
        study_instance_uid = (
            header.study_instance_uid
            if header is not None
            else study_begun(self._prefix, self._transfer_syntax_uid)
        )
        if study_instance_uid:
            prolong(self._keeper.database, study_instance_uid, now, self._quiet_period)

    def _read_ahead(self, fragments: Sequence[memoryview]) -> None:
        """Keep the beginning, and read the header in it when the next piece has been taken.

        Of a large piece the disk has a part by then.
        """
        if len(self._prefix) >= self._parse_at:
            # Once more when all that is kept has come, and after that never.
            self._parse_at = max(PREFIX_BYTES, len(self._prefix) + 1)
            with suppress(NotUnderstood):
                self._header_read = parse_header(
                    io.BytesIO(self._prefix), self._transfer_syntax_uid, whole=False
                )
            if self._header_read is not None:
                return
        for fragment in fragments:
            if len(self._prefix) >= PREFIX_BYTES:
                return
            self._prefix += fragment[: PREFIX_BYTES - len(self._prefix)]

    def abandon(self) -> None:
        """Leave nothing of what will not be finished."""
        if self._sink is not None:
            self._sink.abort()
            self._sink = None

    def finish(self) -> StoreAnswer:
        """Make the data set durable; every failure has its status and is logged.

        It is found through the index a moment later.
        """
        try:
            if self._failure is None:
                return self._keep()
        except Exception as error:  # noqa: BLE001 - every failure has to be answered
            self._fail(error)
        finally:
            self.abandon()
        return self._failure or PROCESSING_FAILURE

    def _keep(self) -> StoreAnswer:
        try:
            header = self._header()
        except NotUnderstood as error:
            return self._quarantine(str(error))
        if header.sop_class_uid != self._request.affected_sop_class_uid:
            return self._refuse(OTHER_SOP_CLASS)
        if header.sop_instance_uid != self._request.affected_sop_instance_uid:
            return self._refuse(OTHER_SOP_INSTANCE)
        sink = self._open_sink()
        kept = sink.commit(
            instance_key(header.study_instance_uid, header.sop_instance_uid, sink.digest)
        )
        # It has ended: there is nothing left to abandon.
        self._sink = None
        keeper, sender = self._keeper, self._sender
        arrival = Arrival(
            header=header,
            kept=kept,
            transfer_syntax_uid=self._transfer_syntax_uid,
            calling_ae_title=sender.calling_ae_title,
            called_ae_title=sender.called_ae_title,
            issuer_of_patient_id=header.shared.issuer_of_patient_id
            or sender.peer.default_issuer_of_patient_id,
            started=study_start(
                header.shared.study_date,
                header.shared.study_time,
                header.shared.timezone_offset,
                sender.peer.zone,
            ),
            at=keeper.now(),
            quiet_period=sender.peer.quiet_period,
            association=sender.association,
            rejected_studies=self._rejected_studies(header, kept),
            is_urgent=self._request.is_urgent,
        )
        if not sink.was_there and keeper.index.take(arrival):
            return SUCCESS
        outcome = keeper.index.add(arrival)
        if not is_kept(keeper.database, keeper.store, arrival, outcome, keeper.now()):
            # The purge has just removed it again: it is to be sent once more.
            return self._refuse(PROCESSING_FAILURE)
        return SUCCESS

    def _header(self) -> InstanceHeader:
        if self._header_read is not None:
            return self._header_read
        sink = self._open_sink()
        is_whole = sink.size_bytes == len(self._prefix)
        header = parse_header(io.BytesIO(self._prefix), self._transfer_syntax_uid, whole=is_whole)
        if header is not None:
            return header
        with sink.flush_to().open("rb") as file:
            file.seek(len(self._meta))
            header = parse_header(file, self._transfer_syntax_uid)
        assert header is not None  # noqa: S101 - the data set ends where the file ends
        return header

    def _rejected_studies(self, header: InstanceHeader, kept: Kept) -> tuple[str, ...]:
        if header.sop_class_uid != KEY_OBJECT_SELECTION:
            return ()
        with self._keeper.store.open(kept.key) as file:
            # Whoever sent the same before may have had a longer name.
            skip_file_meta(file)
            return rejected_studies(file, self._transfer_syntax_uid)

    def _quarantine(self, reason: str) -> StoreAnswer:
        sink, request, sender = self._open_sink(), self._request, self._sender
        store = self._keeper.store
        store.put_artifact(reason_key(sink.digest), f"{reason}\n".encode())
        # First: nobody looks there for what a power cut has left damaged.
        sink.sync()
        kept = sink.commit(quarantine_key(sink.digest))
        thing = Quarantined(
            kept,
            reason,
            request.affected_sop_class_uid,
            request.affected_sop_instance_uid,
            Source(self._transfer_syntax_uid, sender.calling_ae_title, sender.called_ae_title),
            self._keeper.now(),
        )
        if not put(self._keeper.database, store, thing):
            # What a person had discarded has just been removed: it is to be sent once more.
            return self._refuse(PROCESSING_FAILURE)
        log.warning("instance.quarantined", reason=reason, key=kept.key)
        return cannot_understand(reason)

    def _refuse(self, answer: StoreAnswer) -> StoreAnswer:
        log.warning(
            "instance.refused",
            status_code=f"{answer.status:04X}",
            error_comment=answer.comment,
            sop_instance_uid=self._request.affected_sop_instance_uid,
        )
        return answer

    def _fail(self, error: Exception) -> None:
        self.abandon()
        if isinstance(error, StorageFull | DatabaseFull):
            self._failure = OUT_OF_RESOURCES
        else:
            self._failure = PROCESSING_FAILURE
        log.error(
            "instance.not_stored",
            status_code=f"{self._failure.status:04X}",
            sop_instance_uid=self._request.affected_sop_instance_uid,
            exc_info=error,
        )

    def _open_sink(self) -> FileSink:
        if self._sink is None:
            raise RuntimeError("the reception has ended")
        return self._sink
