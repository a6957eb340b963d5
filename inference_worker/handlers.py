"""What happens on ``inference.requested``: read, explain, make the result objects, tell.

Trouble with the study itself is an answer, ``inference.failed``, and no dead letter: a doctor reads
it. Trouble of ours is tried again, and is an answer too when tries are used up.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, Protocol

import cv2
import structlog
import xxhash
from prometheus_client import Counter
from sqlalchemy import Connection

from imaging_pixels.decode import frame_count
from imaging_store.instances import InstanceStore
from imaging_store.schema.results import result_object
from inference_worker import shadow
from inference_worker.heatmap import heatmap_png, source_png
from inference_worker.input_quality import Refused
from inference_worker.kept_instances import instances_to_read
from inference_worker.known_study import known_as
from inference_worker.model_holder import ModelUnavailable
from inference_worker.partial_reading import not_read
from inference_worker.result_attributes import ResultObject
from inference_worker.results import LoadedModel, Results, make_results
from inference_worker.served_model import ModelSetAside
from inference_worker.study_reading import StudyReading, read_study
from message_contracts.envelope import Envelope
from message_contracts.inference import (
    InferenceCompleted,
    InferenceFailed,
    InferenceRequested,
    ModelReference,
    Urgency,
)
from message_contracts.overtaking import overtaking_id
from message_contracts.topology import INFERENCE_URGENT
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError
from service_runtime.messaging.answering import answer
from service_runtime.messaging.consumer import Effect
from service_runtime.messaging.hastening import is_handled

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


class ModelHolder(Protocol):
    """Gives models that are ready to read; safe to ask from any thread."""

    def of(self, reference: ModelReference) -> LoadedModel:
        """Return one.

        Raises
        ------
        ModelUnavailable
            It cannot be used, or was never installed.
        Postponed
            It is being loaded.
        """


def decoding_threads() -> Executor:
    """Return what reads and decodes for all studies of a worker; its threads begin when needed."""
    # Studies are read side by side: OpenCV's own threads would wait busily beside them.
    cv2.setNumThreads(1)
    return ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decoding")


@dataclass(frozen=True)
class Worker:
    """The handlers of the queues ``inference.urgent`` and ``inference.routine``."""

    database: Database
    store: InstanceStore
    models: ModelHolder
    time_zone: tzinfo
    now: Callable[[], datetime]
    decoders: Executor = field(default_factory=decoding_threads)
    """Reads and decodes ahead of the models."""

    def on_inference_requested(self, envelope: Envelope) -> Effect:
        """Have the model read the study; done again, it makes objects of the same UIDs.

        Their bytes may differ by the last digits of a number, which depend on what else was in the
        network's batch. Where two attempts end, rows and files of the first stay.
        """
        request = envelope.data(InferenceRequested)
        try:
            with self.database.reading() as connection:
                if _is_overtaken(connection, envelope, request):
                    return lambda _: None
                model = self.models.of(request.model)
                instances = instances_to_read(
                    connection, self.store, request, model.description.reads
                )
            study = read_study(
                instances,
                model.description,
                model.predict_of(
                    request.study_instance_uid, urgent=request.urgency is Urgency.URGENT
                ),
                self.decoders,
            )
            if request.shadow:
                return shadow.read(request, model, study.probabilities, self.now())
            with self.database.reading() as connection:
                known = known_as(connection, request.study_instance_uid)
            made = make_results(request, envelope.time, self.time_zone, model, study, known)
        except (ModelUnavailable, ModelSetAside):
            # A dead letter: it can be replayed once the model is back. The case is told as well.
            raise
        except Refused as error:
            return self._failed(envelope, request, str(error), refused=error)
        except PermanentError as error:
            return self._failed(envelope, request, str(error))
        _log_read(request, study, made)
        results = {"SC.dcm": made.captures[0]}
        for number, capture in enumerate(made.captures[1:], start=2):
            results[f"SC-{number}.dcm"] = capture
        results["SR.dcm"] = made.report
        if made.parametric_map is not None:
            results["PM.dcm"] = made.parametric_map
        contents = {name: result.content for name, result in results.items()}
        contents["heatmap.png"] = heatmap_png(made.heatmap)
        contents["source.png"] = source_png(made.heatmap)
        folder = _folder(request, model)
        keys = {name: _key(folder, name, each) for name, each in contents.items()}
        self.store.put_artifacts({keys[name]: content for name, content in contents.items()})
        rows = [
            self._row(request, made, result) | {"key": keys[name]}
            for name, result in results.items()
        ]
        completed = _completed(request, made, keys, study)

        def effect(transaction: Transaction) -> None:
            transaction.connection.execute(transaction.database.insert_new(result_object), rows)
            answer(transaction, envelope, completed, source=SOURCE, time=self.now())
            INFERENCES.labels(request.model.name, "completed").inc()

        return effect

    def on_exhausted(self, envelope: Envelope, reason: str) -> Effect:
        """Tell that tries are used up; the dead letter can be replayed."""
        request = envelope.data(InferenceRequested)
        return self._failed(envelope, request, f"The model could not be run: {reason}")

    def _failed(
        self,
        envelope: Envelope,
        request: InferenceRequested,
        reason: str,
        *,
        refused: Refused | None = None,
    ) -> Effect:
        outcome = "refused" if refused else "failed"
        _LOG.warning(
            f"inference.{outcome}",
            study_instance_uid=request.study_instance_uid,
            case_id=request.case_id,
            case_version=request.case_version,
            model=request.model.name,
            model_version=request.model.version,
            reason=reason,
        )
        if request.shadow:
            return shadow.failed(request, reason, self.now())
        failed = InferenceFailed(
            case_id=request.case_id,
            case_version=request.case_version,
            study_instance_uid=request.study_instance_uid,
            model=request.model,
            reason=reason[:MOST_REASON],
            is_refusal=refused is not None,
            given=refused.given if refused else None,
        )

        def effect(transaction: Transaction) -> None:
            answer(transaction, envelope, failed, source=SOURCE, time=self.now())
            INFERENCES.labels(request.model.name, outcome).inc()

        return effect

    def _row(
        self, request: InferenceRequested, made: Results, result: ResultObject
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
            "made_at": self.now(),
            "sha256": hashlib.sha256(result.content).hexdigest(),
        }


def _is_overtaken(connection: Connection, envelope: Envelope, request: InferenceRequested) -> bool:
    """Tell whether a person had this read in the urgent lane, while it waited in the other."""
    if request.urgency is Urgency.URGENT:
        return False
    return is_handled(connection, INFERENCE_URGENT, overtaking_id(envelope.id))


def _folder(request: InferenceRequested, model: LoadedModel) -> str:
    """Return where the store keeps what came of a reading; other weights, another place."""
    described = model.description
    # One level: each folder is made, and synced into the one above, for every reading.
    return (
        f"results/{request.case_id}-v{request.case_version}-"
        f"{described.name}-{described.version}-{model.weights_sha256[:12]}"
    )


def _key(folder: str, name: str, content: bytes) -> str:
    """Return where a file lies: other content never takes its place."""
    stem, _, suffix = name.rpartition(".")
    return f"{folder}/{stem}-{xxhash.xxh3_64_hexdigest(content)}.{suffix}"


def _completed(
    request: InferenceRequested, made: Results, keys: Mapping[str, str], study: StudyReading
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
        heatmap_frame_number=_frame_number(study),
        result_sop_instance_uids=tuple(
            each.sop_instance_uid
            for each in (*made.captures, made.report, made.parametric_map)
            if each is not None
        ),
        heatmap_key=keys["heatmap.png"],
        source_key=keys["source.png"],
        not_read=not_read(study.unreadable, study.refused),
        given=study.given,
    )


def _frame_number(study: StudyReading) -> int | None:
    explained = study.explained
    source = study.sources[study.places[explained.instance.sop_instance_uid]]
    return explained.frame + 1 if frame_count(source) > 1 else None


def _log_read(request: InferenceRequested, study: StudyReading, made: Results) -> None:
    for uid, reason in study.unreadable.items():
        _LOG.warning(
            "instance.unreadable",
            study_instance_uid=request.study_instance_uid,
            sop_instance_uid=uid,
            reason=reason,
        )
    for uid, reason in study.refused.items():
        _LOG.info(
            "instance.refused",
            study_instance_uid=request.study_instance_uid,
            sop_instance_uid=uid,
            reason=reason,
        )
    left_out = made.captures[0].left_out + made.report.left_out
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
