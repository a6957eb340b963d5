"""What a model in shadow mode makes of a study: kept for comparison, and told to nobody.

No result object, no picture and no message come of it, so that nothing of it can reach a case, a
report or a PACS.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import update

from imaging_store.schema.results import shadow_result
from inference_worker.results import LoadedModel
from message_contracts.inference import UNCERTAIN, InferenceRequested
from service_runtime.database import Transaction

LONGEST_REASON = 500


def read(
    request: InferenceRequested, model: LoadedModel, probabilities: Sequence[float], at: datetime
) -> Callable[[Transaction], None]:
    """Return the effect that keeps a reading; ``probabilities`` in the order of the classes."""
    described = model.description
    foremost = max(range(len(probabilities)), key=lambda place: probabilities[place])
    uncertain = probabilities[foremost] < described.uncertain_below
    return _keep(
        request,
        at,
        weights_sha256=model.weights_sha256,
        label=UNCERTAIN if uncertain else described.labels[foremost],
        uncertain=uncertain,
        probabilities=dict(zip(described.labels, map(float, probabilities), strict=True)),
        failure=None,
    )


def failed(request: InferenceRequested, reason: str, at: datetime) -> Callable[[Transaction], None]:
    """Return the effect that keeps why there is no reading."""
    return _keep(
        request,
        at,
        weights_sha256="",
        label=None,
        uncertain=False,
        probabilities={},
        failure=reason[:LONGEST_REASON],
    )


def _keep(request: InferenceRequested, at: datetime, **said: Any) -> Callable[[Transaction], None]:
    key = {
        "case_id": request.case_id,
        "case_version": request.case_version,
        "model_name": request.model.name,
        "model_version": request.model.version,
    }
    values = {"study_instance_uid": request.study_instance_uid, "answered_at": at, **said}

    def effect(transaction: Transaction) -> None:
        connection = transaction.connection
        connection.execute(transaction.database.insert_new(shadow_result), key | values)
        # Tried again by a person, it may succeed.
        of_key = [shadow_result.c[name] == value for name, value in key.items()]
        connection.execute(update(shadow_result).where(*of_key).values(values))

    return effect
