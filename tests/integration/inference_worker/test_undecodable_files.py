"""Whatever is in a file that cannot be shown, the case hears why, and the worker serves on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from imaging_pixels.decode import UndecodablePixels, decode
from inference_worker.decoding import parse
from inference_worker.handlers import Worker
from message_contracts import catalogue
from message_contracts.inference import InferenceCompleted, InferenceFailed
from service_runtime.database import Database
from service_runtime.messaging.tables import message
from tests.integration.imaging_pixels.test_every_file import everything_of_pydicom
from tests.integration.inference_worker.requests_to_read import a_request, an_instance

# Odd values of odd files make pydicom warn.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def is_decodable(file: Path) -> bool:
    try:
        decode(parse(file.read_bytes()))
    except UndecodablePixels:
        return False
    return True


def test_every_undecodable_instance_is_a_failure_with_its_reason_and_the_next_one_is_read(
    worker: Worker, keep: Callable[..., None], database: Database, test_data: Path
) -> None:
    files = [*everything_of_pydicom(), *sorted((test_data / "dicom").rglob("*.dcm"))]
    undecodable = [file for file in files if not is_decodable(file)]
    for number, file in enumerate(undecodable, start=1000):
        uid = f"2.25.{number}"
        keep(an_instance(SOPInstanceUID=uid), file.read_bytes())
        ask(worker, database, uid, number)
    keep(an_instance())
    ask(worker, database, "2.25.103", 1)

    with database.reading() as connection:
        bodies = connection.execute(select(message.c.body)).scalars().all()
    answers = {each.causation_id.int: each.body for each in map(catalogue.decode, bodies)}
    assert isinstance(answers.pop(1), InferenceCompleted)
    assert len(answers) == len(undecodable) > 90
    assert {type(answer) for answer in answers.values()} == {InferenceFailed}
    for answer in answers.values():
        assert answer.reason.startswith("The instance cannot be read: ")


def ask(worker: Worker, database: Database, uid: str, number: int) -> None:
    envelope = a_request(uid).model_copy(update={"id": UUID(int=number)})
    effect = worker.on_inference_requested(envelope)
    with database.transaction() as transaction:
        effect(transaction)
