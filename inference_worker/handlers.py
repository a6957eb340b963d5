"""What happens on ``inference.requested``: read, explain, make the result objects, tell.

Trouble with the study itself is an answer, ``inference.failed``, and no dead letter: a doctor reads
it. Trouble of ours is tried again, and is an answer too when tries are used up.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import select

from imaging_store.instances import InstanceStore, NotInStore
from imaging_store.schema.ingest import instance as instance_table
from imaging_store.schema.results import result_object
from inference_worker.heatmap import heatmap_png, source_png
from inference_worker.known_study import known_as
from inference_worker.result_attributes import ResultObject
from inference_worker.results import LoadedModel, Results, make_results
from inference_worker.study_reading import (
    KeptInstance,
    StudyReading,
    UnreadableStudy,
    read_study,
)
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.inference import (
    InferenceCompleted,
    InferenceFailed,
    InferenceRequested,
    ModelReference,
)
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError
from service_runtime.messaging import outbox
from service_runtime.messaging.consumer import Effect

SOURCE = "inference_worker"
MOST_REASON = 500

INFERENCES = Counter(
    "countersign_inferences", "Studies that a model was asked to read.", ["model", "outcome"]
)
LEFT_OUT = Counter(
    "countersign_result_attributes_left_out",
    "Attributes of sources that break their VR and were left out of result objects.",
)

_LOG = structlog.get_logger()


class ModelUnavailable(PermanentError):
    """The model that was asked for is not here, or was set aside; says why."""


@dataclass(frozen=True)
class Worker:
    """The handlers of the queues ``inference.urgent`` and ``inference.routine``."""

    database: Database
    store: InstanceStore
    models: Mapping[ModelReference, LoadedModel]
    set_aside: Mapping[str, str]
    """Model name to the reason why its folder is not used."""
    time_zone: tzinfo
    now: Callable[[], datetime]

    def on_inference_requested(self, envelope: Envelope) -> Effect:
        """Have the model read the study; done again, it makes the same objects again."""
        request = envelope.data(InferenceRequested)
        try:
            model = self._model(request.model)
            study = read_study(self._instances(request), model.description, model.predict)
            with self.database.reading() as connection:
                known = known_as(connection, request.study_instance_uid)
            made = make_results(request, envelope.time, self.time_zone, model, study, known)
        except PermanentError as error:
            return self._failed(envelope, request, str(error))
        _log_read(request, study, made)
        folder = _folder(request, model)
        contents = {
            "SC.dcm": made.capture.content,
            "SR.dcm": made.report.content,
            "heatmap.png": heatmap_png(made.heatmap),
            "source.png": source_png(made.heatmap),
        }
        for name, content in contents.items():
            self.store.put_artifact(f"{folder}/{name}", content)
        rows = [
            self._row(request, made, result, f"{folder}/{name}")
            for name, result in (("SC.dcm", made.capture), ("SR.dcm", made.report))
        ]
        completed = _completed(request, made, folder, study)
        answer = envelope.leads_to(
            completed,
            source=SOURCE,
            time=self.now(),
            id=derived_id(InferenceCompleted.TYPE, envelope.id),
        )

        def effect(transaction: Transaction) -> None:
            transaction.connection.execute(transaction.database.insert_new(result_object), rows)
            outbox.send(transaction, answer)
            INFERENCES.labels(request.model.name, "completed").inc()

        return effect

    def on_exhausted(self, envelope: Envelope, reason: str) -> Effect:
        """Tell that tries are used up; the dead letter can be replayed."""
        request = envelope.data(InferenceRequested)
        return self._failed(envelope, request, f"The model could not be run: {reason}")

    def _failed(self, envelope: Envelope, request: InferenceRequested, reason: str) -> Effect:
        _LOG.warning(
            "inference.failed",
            study_instance_uid=request.study_instance_uid,
            case_id=request.case_id,
            case_version=request.case_version,
            model=request.model.name,
            model_version=request.model.version,
            reason=reason,
        )
        failed = InferenceFailed(
            case_id=request.case_id,
            case_version=request.case_version,
            study_instance_uid=request.study_instance_uid,
            model=request.model,
            reason=reason[:MOST_REASON],
        )
        answer = envelope.leads_to(
            failed,
            source=SOURCE,
            time=self.now(),
            id=derived_id(InferenceFailed.TYPE, envelope.id),
        )

        def effect(transaction: Transaction) -> None:
            outbox.send(transaction, answer)
            INFERENCES.labels(request.model.name, "failed").inc()

        return effect

    def _model(self, reference: ModelReference) -> LoadedModel:
        found = self.models.get(reference)
        if found is not None:
            return found
        named = f"The model {reference.name} {reference.version}"
        why = self.set_aside.get(reference.name)
        if why is not None:
            raise ModelUnavailable(f"{named} cannot be used: {why}")
        raise ModelUnavailable(f"{named} is not installed on this worker.")

    def _instances(self, request: InferenceRequested) -> list[KeptInstance]:
        """Return the named instances that are kept, in the order in which they are named.

        Raises
        ------
        UnreadableStudy
            Some were purged: what is left must not pass for the study.
        """
        columns = instance_table.c
        with self.database.reading() as connection:
            rows = connection.execute(
                select(columns.sop_instance_uid, columns.key, columns.purged_at).where(
                    columns.study_instance_uid == request.study_instance_uid,
                    # A person may have excluded one since the model was asked.
                    columns.excluded_at.is_(None),
                )
            ).all()
        keys = {row.sop_instance_uid: row.key for row in rows}
        purged = {row.sop_instance_uid for row in rows if row.purged_at is not None}
        gone = sum(uid in purged for uid in request.sop_instance_uids)
        if gone:
            raise UnreadableStudy(
                f"{gone} of its {len(request.sop_instance_uids)} instances are not kept any more: "
                "they were purged after an earlier report. Read the study in the PACS."
            )
        missing = [uid for uid in request.sop_instance_uids if uid not in keys]
        if missing:
            _LOG.warning(
                "instances.missing",
                study_instance_uid=request.study_instance_uid,
                instance_count=len(missing),
            )
        return [
            KeptInstance(uid, partial(self._content, keys[uid]))
            for uid in request.sop_instance_uids
            if uid in keys
        ]

    def _content(self, key: str) -> bytes:
        try:
            return self.store.read(key)
        except NotInStore:
            raise UnreadableStudy("An instance is not in the store any more.") from None

    def _row(
        self, request: InferenceRequested, made: Results, result: ResultObject, key: str
    ) -> dict[str, Any]:
        return {
            "sop_instance_uid": result.sop_instance_uid,
            "sop_class_uid": result.sop_class_uid,
            "study_instance_uid": request.study_instance_uid,
            "series_instance_uid": result.series_instance_uid,
            "case_id": request.case_id,
            "case_version": request.case_version,
            "model_name": made.reading.model.name,
            "model_version": made.reading.model.version,
            "key": key,
            "sha256": hashlib.sha256(result.content).hexdigest(),
            "made_at": self.now(),
        }


def _folder(request: InferenceRequested, model: LoadedModel) -> str:
    """Return where the store keeps what came of a reading; other weights, another place."""
    described = model.description
    return (
        f"results/{request.case_id}/v{request.case_version}/"
        f"{described.name}-{described.version}-{model.weights_sha256[:12]}"
    )


def _completed(
    request: InferenceRequested, made: Results, folder: str, study: StudyReading
) -> InferenceCompleted:
    reading = made.reading
    return InferenceCompleted(
        case_id=request.case_id,
        case_version=request.case_version,
        study_instance_uid=request.study_instance_uid,
        model=request.model,
        device_uid=reading.model.device_uid,
        weights_sha256=reading.weights_sha256,
        uncertain_below=reading.model.uncertain_below,
        uncertain=reading.uncertain,
        probabilities=reading.probabilities,
        heatmap_sop_instance_uid=study.explained.instance.sop_instance_uid,
        result_sop_instance_uids=(made.capture.sop_instance_uid, made.report.sop_instance_uid),
        heatmap_key=f"{folder}/heatmap.png",
        source_key=f"{folder}/source.png",
    )


def _log_read(request: InferenceRequested, study: StudyReading, made: Results) -> None:
    for uid, reason in study.unreadable.items():
        _LOG.warning(
            "instance.unreadable",
            study_instance_uid=request.study_instance_uid,
            sop_instance_uid=uid,
            reason=reason,
        )
    left_out = made.capture.left_out + made.report.left_out
    LEFT_OUT.inc(len(left_out))
    _LOG.info(
        "inference.completed",
        study_instance_uid=request.study_instance_uid,
        case_id=request.case_id,
        case_version=request.case_version,
        model=request.model.name,
        model_version=request.model.version,
        instance_count=len(study.sources),
        faults=sorted(set(left_out)),
    )
