"""The instances that a request names, as they are kept, and what a model reads of them."""

from dataclasses import replace
from functools import cache, partial

import structlog
from sqlalchemy import Connection, bindparam, select

from imaging_store.instances import InstanceStore, NotInStore
from imaging_store.schema.ingest import instance
from inference_worker.decoding import KeptInstance
from inference_worker.selection import Candidate, selected
from inference_worker.study_reading import UnreadableStudy
from message_contracts.inference import InferenceRequested
from message_contracts.study_selection import StudySelection

MOST_HELD_BYTES = 2**24
"""A study's only file is held in memory until its results are made, unless it is larger."""

_COLUMNS = (
    *("sop_instance_uid", "series_instance_uid", "series_number", "series_description"),
    *("instance_number", "number_of_frames", "key", "size_bytes", "purged_at"),
)
_OF_STUDY = select(*(instance.c[name] for name in _COLUMNS)).where(
    instance.c.study_instance_uid == bindparam("uid"),
    # A person may have excluded one since the model was asked.
    instance.c.excluded_at.is_(None),
)
_LOG = structlog.get_logger()


def instances_to_read(
    connection: Connection, store: InstanceStore, request: InferenceRequested, reads: StudySelection
) -> list[KeptInstance]:
    """Return which of the named instances the model is to read, in the order of reading.

    Raises
    ------
    UnreadableStudy
        Some were purged: what is left must not pass for the study.
    """
    rows = connection.execute(_OF_STUDY, {"uid": request.study_instance_uid}).all()
    kept = {row.sop_instance_uid: row for row in rows}
    named = [kept[uid] for uid in request.sop_instance_uids if uid in kept]
    gone = sum(row.purged_at is not None for row in named)
    if gone:
        raise UnreadableStudy(
            f"{gone} of its {len(request.sop_instance_uids)} instances are not kept any more: "
            "they were purged after an earlier report. Read the study in the PACS."
        )
    missing = len(request.sop_instance_uids) - len(named)
    if missing:
        _LOG.warning(
            "instances.missing",
            study_instance_uid=request.study_instance_uid,
            instance_count=missing,
        )
    candidates = [
        Candidate(
            row.sop_instance_uid,
            row.series_instance_uid,
            row.series_number,
            row.series_description,
            row.instance_number,
            row.number_of_frames,
        )
        for row in named
    ]
    to_read = [
        KeptInstance(
            each.sop_instance_uid,
            partial(_content, store, kept[each.sop_instance_uid].key),
            each.frames,
            kept[each.sop_instance_uid].size_bytes,
        )
        for each in selected(candidates, reads)
    ]
    if len(to_read) == 1 and to_read[0].size_bytes <= MOST_HELD_BYTES:
        # It will be explained: read again where there are many, to hold none of them.
        to_read = [replace(to_read[0], read=cache(to_read[0].read))]
    return to_read


def _content(store: InstanceStore, key: str) -> bytes:
    try:
        return store.read(key)
    except NotInStore:
        raise UnreadableStudy("An instance is not in the store any more.") from None
