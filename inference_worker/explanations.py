"""What happens on ``explanation.requested``: the heat map of a class that somebody asks for.

It explains the frame that the reading's own heat map does, by the same weights, and is made of what
the reading said: asked for twice, it is the same object. It is kept beside the results and is none
of them: the case, what was signed and what is sent stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

import numpy as np
import structlog
from sqlalchemy import Row, select, update

from imaging_pixels.render import render
from imaging_store.instances import InstanceStore, NotInStore
from imaging_store.schema.ingest import instance
from imaging_store.schema.results import explanation
from imaging_store.schema.workflow import inference_result
from inference_worker import secondary_capture
from inference_worker.decoding import for_network, parse
from inference_worker.handlers import ModelHolder
from inference_worker.heatmap import Heatmap, Legend, draw_heatmap, heatmap_png
from inference_worker.known_study import known_as
from inference_worker.plane_geometry import pixel_aspect
from inference_worker.prediction import NO_NUMBER
from inference_worker.result_attributes import Kind, Reading, ResultObject
from inference_worker.results import LoadedModel
from message_contracts.envelope import Envelope
from message_contracts.inference import UNCERTAIN, ExplanationRequested, InferenceCompleted
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError
from service_runtime.messaging.consumer import Effect

LONGEST_REASON = 500

_LOG = structlog.get_logger()


class NothingToExplain(PermanentError):
    """The class cannot be explained; the text says why and names no patient."""


@dataclass(frozen=True)
class Explainer:
    """The handler of ``explanation.requested``."""

    database: Database
    store: InstanceStore
    models: ModelHolder
    time_zone: tzinfo
    now: Callable[[], datetime]

    def on_explanation_requested(self, envelope: Envelope) -> Effect:
        """Have the model explain a class; done again, it makes the same object again."""
        request = envelope.data(ExplanationRequested)
        try:
            row = self._reading_row(request)
            completed = InferenceCompleted.model_validate(row.completed)
            model = self.models.of(request.model)
            place = _place_of(request.label, completed, model)
            heatmap, made = self._explained(completed, row.requested_at, model, place)
        except PermanentError as error:
            return self._answered(request, failure=str(error)[:LONGEST_REASON])
        folder = completed.heatmap_key.rpartition("/")[0]
        keys = {name: f"{folder}/explanations/{place}.{name}" for name in ("dcm", "png")}
        self.store.put_artifacts({keys["dcm"]: made.content, keys["png"]: heatmap_png(heatmap)})
        return self._answered(
            request,
            sop_instance_uid=made.sop_instance_uid,
            key=keys["dcm"],
            picture_key=keys["png"],
        )

    def on_exhausted(self, envelope: Envelope, reason: str) -> Effect:
        """Tell that tries are used up."""
        request = envelope.data(ExplanationRequested)
        return self._answered(request, failure=f"The model could not be run: {reason}"[:500])

    def _reading_row(self, request: ExplanationRequested) -> Row[Any, Any]:
        asked = inference_result.c
        with self.database.reading() as connection:
            row = connection.execute(
                select(asked.completed, asked.requested_at).where(
                    asked.case_id == request.case_id,
                    asked.case_version == request.case_version,
                    asked.model_name == request.model.name,
                    asked.model_version == request.model.version,
                    asked.completed.is_not(None),
                )
            ).one_or_none()
        if row is None:
            raise NothingToExplain("The model has not read this version of the study.")
        return row

    def _explained(
        self, completed: InferenceCompleted, requested_at: datetime, model: LoadedModel, place: int
    ) -> tuple[Heatmap, ResultObject]:
        source = parse(self._content(completed.heatmap_sop_instance_uid))
        frame = (completed.heatmap_frame_number or 1) - 1
        picture = render(source, frame)
        if model.explain is None:
            raise NothingToExplain("The model explains the most probable class only.")
        batch = for_network(picture, model.description.input)[np.newaxis]
        [prediction] = model.explain(completed.study_instance_uid, batch, place)
        if prediction.refusal == NO_NUMBER:
            raise NothingToExplain(NO_NUMBER)
        with self.database.reading() as connection:
            known = known_as(connection, completed.study_instance_uid)
        reading = Reading(
            study_instance_uid=completed.study_instance_uid,
            study_version=completed.case_version,
            model=model.description,
            weights_sha256=model.weights_sha256,
            requested_at=requested_at,
            time_zone=self.time_zone,
            probabilities=completed.probabilities,
            uncertain=completed.uncertain,
            known_as=known,
        )
        label = model.description.labels[place]
        [said] = [each for each in completed.probabilities if each.label == label]
        heatmap = draw_heatmap(
            picture,
            prediction.cam,
            Legend(
                finding=UNCERTAIN if completed.uncertain else completed.probabilities[0].label,
                explained_class=label,
                probability=said.probability,
                model=f"{completed.model.name} {completed.model.version}",
            ),
            prediction.grid,
            pixel_aspect(source, frame),
        )
        made = secondary_capture.make(
            source, heatmap.capture, reading, frame, place + 1, label, Kind.EXPLANATION
        )
        return heatmap, made

    def _content(self, sop_instance_uid: str) -> bytes:
        kept = instance.c
        with self.database.reading() as connection:
            key = connection.execute(
                select(kept.key).where(
                    kept.sop_instance_uid == sop_instance_uid,
                    kept.purged_at.is_(None),
                    kept.excluded_at.is_(None),
                )
            ).scalar()
        try:
            if key is not None:
                return self.store.read(key)
        except NotInStore:
            pass
        raise NothingToExplain("The image that the finding rests on is not kept any more.")

    def _answered(self, request: ExplanationRequested, **values: str) -> Effect:
        key = {
            "case_id": request.case_id,
            "case_version": request.case_version,
            "model_name": request.model.name,
            "model_version": request.model.version,
            "label": request.label,
        }
        answered_at = self.now()
        failure = values.get("failure")
        _LOG.info(
            "explanation.failed" if failure else "explanation.made",
            case_id=request.case_id,
            case_version=request.case_version,
            model=request.model.name,
            model_version=request.model.version,
            reason=failure,
        )

        def effect(transaction: Transaction) -> None:
            connection = transaction.connection
            first = {**key, "failures": 0, "answered_at": answered_at}
            connection.execute(transaction.database.insert_new(explanation), first)
            of_key = [explanation.c[name] == value for name, value in key.items()]
            said: dict[str, Any] = {"failure": None, **values, "answered_at": answered_at}
            if failure:
                said["failures"] = explanation.c.failures + 1
            connection.execute(update(explanation).where(*of_key).values(said))

        return effect


def _place_of(label: str, completed: InferenceCompleted, model: LoadedModel) -> int:
    if model.weights_sha256 != completed.weights_sha256:
        raise NothingToExplain("The weights that read the study are not installed any more.")
    labels = model.description.labels
    if label not in labels or all(each.label != label for each in completed.probabilities):
        raise NothingToExplain(f"label: the model has no such class, but {', '.join(labels)}")
    return labels.index(label)
