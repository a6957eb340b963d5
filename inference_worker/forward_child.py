"""The process that a model runs in: ``python -m inference_worker.forward_child FD FOLDER``.

It loads the model, says so, and answers until the worker closes the other end. Whatever a
model does here (raise, hang, leak, crash) the worker sees from outside and survives.
"""

import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from inference_worker.forward_answers import Answer, Kind, Question
from inference_worker.model_folder import InvalidModelFolder, load_model_folder


def main(arguments: list[str]) -> None:
    """Load the model of a folder, and answer on an inherited socket until its end of file."""
    # The worker decides when it is over, also where a terminal or a supervisor signals all of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker: Connection[Answer, Any] = Connection(int(arguments[0]))
    questions: queue.SimpleQueue[Question] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(worker, questions), daemon=True).start()
    try:
        # TensorFlow comes with it.
        from inference_worker.predictor import Predictor  # noqa: PLC0415

        predictor = Predictor(load_model_folder(Path(arguments[1])))
    except InvalidModelFolder as error:
        worker.send(Answer(Kind.INVALID, str(error)))
        return
    worker.send(Answer(Kind.READY, None))
    while True:
        question = questions.get()
        try:
            if question.explained is None:
                predictions = predictor.predict(question.batch)
            else:
                predictions = predictor.explain(question.batch, question.explained)
            answer = Answer(Kind.DONE, predictions)
        except Exception as error:  # noqa: BLE001
            # A network may raise whatever it comes upon; texts may quote the pictures.
            answer = Answer(Kind.RAISED, type(error).__name__)
        worker.send(answer)


def _receive(worker: "Connection[Answer, Any]", questions: "queue.SimpleQueue[Question]") -> None:
    """Leave as soon as the worker is gone, also while the model hangs."""
    while True:
        try:
            questions.put(worker.recv())
        except (EOFError, OSError):
            os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
