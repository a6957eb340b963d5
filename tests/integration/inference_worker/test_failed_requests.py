"""What cannot or may not be read is answered with a reason, or tried again, or a dead letter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import update

from imaging_store.instances import FileInstanceStore
from imaging_store.schema.ingest import instance
from inference_worker.forward_process import USUAL_LIMITS, Fault, ForwardProcess, ModelFault
from inference_worker.handlers import Worker
from inference_worker.model_folder import ModelFolder
from inference_worker.model_holder import ModelUnavailable
from inference_worker.prediction import Prediction
from inference_worker.served_model import MOST_FAULTS, ModelSetAside, ServedModel
from message_contracts.inference import (
    InferenceCompleted,
    InferenceFailed,
    ModelReference,
)
from message_contracts.topology import INFERENCE_ROUTINE, RetryPolicy
from service_runtime.database import Database
from service_runtime.errors import TransientError
from service_runtime.messaging import dead_letters, outbox
from service_runtime.messaging.consumer import Handling
from service_runtime.messaging.embedded import EmbeddedConsumer
from tests.integration.inference_worker.requests_to_read import (
    NOON,
    SHAPES,
    Held,
    a_request,
    an_instance,
    answer_of,
    sent,
    with_model,
)
from tests.readings import WEIGHTS_SHA256, a_model
from tests.synthetic_images import an_image, part10


def test_a_model_that_was_set_aside_is_a_dead_letter_with_the_reason(
    worker: Worker, keep: Callable[..., None]
) -> None:
    def predict(_batch: Any) -> Sequence[Prediction]:
        raise ModelSetAside("The model is set aside: 3 times in a row it hung.")

    keep(an_instance())

    with pytest.raises(ModelSetAside, match="3 times in a row"):
        with_model(worker, predict=predict).on_inference_requested(a_request())


def test_a_model_that_gives_no_answer_is_asked_again(
    worker: Worker, keep: Callable[..., None]
) -> None:
    def predict(_batch: Any) -> Sequence[Prediction]:
        raise ModelFault(Fault.HANGS, "gave no answer within 60 s")

    keep(an_instance())

    with pytest.raises(TransientError):
        with_model(worker, predict=predict).on_inference_requested(a_request())


def test_a_blank_picture_is_refused_and_that_is_the_answer(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    keep(an_image(np.full((96, 80), 9, "u2")))

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)
    assert answer.is_refusal
    assert "blank" in answer.reason


def test_truncated_pixels_are_a_failure_that_a_person_understands(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    keep(an_instance(), part10(an_instance())[:-500])

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)
    assert answer.reason.startswith("The instance cannot be read: the pixel data is truncated")


def test_a_request_for_nothing_that_is_kept_is_a_failure(
    worker: Worker, database: Database
) -> None:
    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)
    assert answer.reason == "None of the instances is in the store."


def test_a_file_that_is_gone_is_a_failure(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    keep(an_instance())
    store.path("instances/2.25.103.dcm").unlink()

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)
    assert "not in the store" in answer.reason


def test_what_is_left_of_a_purged_study_does_not_pass_for_the_study(
    worker: Worker, database: Database, keep: Callable[..., None]
) -> None:
    late, early = an_instance(), an_instance(SOPInstanceUID="1.2.3.9")
    keep(late)
    keep(early)
    with database.transaction() as transaction:
        transaction.connection.execute(
            update(instance).where(instance.c.sop_instance_uid == "1.2.3.9").values(purged_at=NOON)
        )

    effect = worker.on_inference_requested(a_request("1.2.3.9", str(late.SOPInstanceUID)))

    answer = answer_of(database, effect)
    assert isinstance(answer, InferenceFailed)
    assert "1 of its 2 instances are not kept any more" in answer.reason


def test_an_excluded_instance_is_not_read(
    worker: Worker, database: Database, keep: Callable[..., None]
) -> None:
    keep(an_instance())
    with database.transaction() as transaction:
        transaction.connection.execute(update(instance).values(excluded_at=NOON))

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)


def test_a_model_that_is_not_there_is_a_dead_letter_with_the_reason(worker: Worker) -> None:
    forms = ModelReference(name="forms", version="2.0.0")

    with pytest.raises(ModelUnavailable, match=r"It is not here\."):
        worker.on_inference_requested(a_request(model=forms))


def test_when_tries_are_used_up_the_case_hears_it(worker: Worker, database: Database) -> None:
    answer = answer_of(database, worker.on_exhausted(a_request(), "it stopped 10 times"))

    assert isinstance(answer, InferenceFailed)
    assert answer.reason == "The model could not be run: it stopped 10 times"


def consume_until(database: Database, worker: Worker, is_done: Callable[[], bool]) -> None:
    handling = Handling(
        worker.on_inference_requested,
        on_exhausted=worker.on_exhausted,
        retry=RetryPolicy(first_delay_s=0.01, multiplier=1, cap_s=0.01, attempts=3),
    )
    consumer = EmbeddedConsumer(
        database, {INFERENCE_ROUTINE: handling}, prefetch=1, handler_deadline_s=60
    )
    stop = threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,))
    thread.start()
    try:
        until = time.monotonic() + 240
        while not is_done():
            assert time.monotonic() < until
            stop.wait(0.02)
    finally:
        stop.set()
        thread.join()


def test_a_request_that_fails_otherwise_when_it_is_replayed_is_answered_anew(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    keep(an_image(np.full((96, 80), 9, "u2")))
    with database.transaction() as transaction:
        outbox.send(transaction, a_request())
    without_models = replace(worker, models=Held())
    consume_until(database, without_models, lambda: dead_letters.list_open(database) != [])
    [letter] = dead_letters.list_open(database)
    with database.transaction() as transaction:
        dead_letters.replay(transaction, letter.id, who="admin", why="it is back")

    consume_until(database, worker, lambda: len(sent(database, InferenceFailed)) == 2)

    missing, blank = sorted(sent(database, InferenceFailed), key=lambda each: each.is_refusal)
    assert missing.reason == "The model could not be run: It is not here."
    assert "blank" in blank.reason


def test_a_request_that_fails_as_it_did_before_the_last_replay_is_answered_anew(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    keep(an_instance())
    with database.transaction() as transaction:
        outbox.send(transaction, a_request())

    told = []
    for reason in ("It hung.", "It leaked.", "It hung."):

        def predict(_batch: Any, why: str = reason) -> Sequence[Prediction]:
            raise ModelSetAside(why)

        failing = with_model(worker, predict=predict)
        consume_until(database, failing, lambda: len(dead_letters.list_open(database)) == 1)
        told.append(sorted(each.reason for each in sent(database, InferenceFailed)))
        [letter] = dead_letters.list_open(database)
        with database.transaction() as transaction:
            dead_letters.replay(transaction, letter.id, who="admin", why="it is back")

    said = "The model could not be run: It"
    assert told == [
        [f"{said} hung."],
        [f"{said} hung.", f"{said} leaked."],
        [f"{said} hung.", f"{said} hung.", f"{said} leaked."],
    ]


def test_a_model_that_hangs_is_set_aside_while_others_go_on_and_can_be_asked_again(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    forms = ModelReference(name="forms", version="2.0.0")
    tries: list[int] = []

    class Hanging:
        memory_bytes = 0

        def predict(self, _batch: Any, _explained: int | None = None) -> Sequence[Prediction]:
            tries.append(1)
            raise ModelFault(Fault.HANGS, "gave no answer within 60 s")

        def close(self) -> None:
            pass

    @contextmanager
    def opened() -> Iterator[ModelFolder]:
        yield ModelFolder(a_model(), Path("shapes"), Path("shapes/shapes.keras"), WEIGHTS_SHA256)

    served = ServedModel(opened, USUAL_LIMITS, lambda *_: cast("ForwardProcess", Hanging()))
    good = worker.models.of(SHAPES)
    hanging = replace(good, predict=served.predict, reader=served.reader)
    other = replace(good, description=a_model(name="forms", version="2.0.0"))
    keep(an_instance())
    with database.transaction() as transaction:
        for number in range(1, 6):
            for place, asked in enumerate((SHAPES, forms)):
                request = a_request(model=asked, case_version=number)
                unique = request.model_copy(update={"id": UUID(int=10 * number + place)})
                outbox.send(transaction, unique)

    consume_until(
        database,
        replace(worker, models=Held({SHAPES: hanging, forms: other})),
        lambda: (
            len(dead_letters.list_open(database)) == 5
            and len(sent(database, InferenceCompleted)) == 5
        ),
    )
    served.close()

    assert len(tries) == MOST_FAULTS**2
    assert {each.model for each in sent(database, InferenceCompleted)} == {forms}
    failed = sent(database, InferenceFailed)
    assert {each.model for each in failed} == {SHAPES}
    assert "is set aside on this worker: 9 times in a row it gave no answer" in failed[-1].reason
    letters = dead_letters.list_open(database)
    with database.transaction() as transaction:
        for letter in letters:
            dead_letters.replay(transaction, letter.id, who="admin", why="it is back")

    consume_until(
        database,
        replace(worker, models=Held({SHAPES: good, forms: other})),
        lambda: len(sent(database, InferenceCompleted)) == 10,
    )

    assert dead_letters.list_open(database) == []
