"""A model as it is served: in a process that is begun again, until it is set aside."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import structlog
from prometheus_client import Counter, Gauge

from imaging_pixels.render import Picture
from inference_worker.forward_process import Fault, ForwardProcess, Limits, ModelFault, Start
from inference_worker.micro_batches import Closed, MicroBatches
from inference_worker.model_folder import InvalidModelFolder, ModelFolder
from inference_worker.prediction import Prediction
from inference_worker.study_reading import FramePrediction, Predict
from service_runtime.errors import PermanentError, TransientError

MOST_FAULTS = 3
"""So many in a row set a model aside, where they came with more than one study; or three times as
many, whatever they came with. A study that alone makes a model fail is given up before that."""

SHORT_LIFE = 1000
"""Batches. A process whose memory has grown too large after fewer counts as a fault; after more it
is only begun anew."""

FAULTS = Counter(
    "countersign_model_faults", "What models did instead of answering.", ["model", "fault"]
)
SET_ASIDE = Gauge(
    "countersign_model_set_aside", "1 for a model that is asked no more here.", ["model"]
)
_LOG = structlog.get_logger()


Opened = Callable[[], AbstractContextManager[ModelFolder]]
"""Gives the folder of the model, checked, for as long as it takes to load it."""


class ModelSetAside(PermanentError):
    """The model failed too often on this worker, and is asked no more; says how."""


class ModelGone(TransientError):
    """The model is not wanted here any more: another version took its place."""


class ServedModel:
    """A loaded model whose faults stay its own.

    Raises
    ------
    InvalidModelFolder
        The model cannot be loaded, or does not fit its description.
    """

    def __init__(self, opened: Opened, limits: Limits, start: Start = ForwardProcess) -> None:
        self._opened = opened
        self._limits = limits
        self._start = start
        with opened() as folder:
            self.description, self.weights_sha256 = folder.description, folder.weights_sha256
            self._process: ForwardProcess | None = start(folder.path, limits)
        self._name, self._version = self.description.name, self.description.version
        self._batches_of_process = 0
        self._faults: list[str] = []
        self._leaks = 0
        self._aside: str | None = None
        self._closing = threading.Event()
        SET_ASIDE.labels(self._name).set(0)
        self._batches = MicroBatches(self._forward, f"batches of {self._name}")

    def reader(self, study_instance_uid: str, urgent: bool) -> Predict:  # noqa: FBT001 - a Reader
        """Return what predicts the pictures of one study."""
        return partial(self._predict, owner=study_instance_uid, urgent=urgent)

    def predict(self, batch: Picture) -> Sequence[FramePrediction]:
        """Predict pictures that belong to no study."""
        return self._predict(batch, owner="", urgent=False)

    def explain(
        self, study_instance_uid: str, batch: Picture, place: int
    ) -> Sequence[FramePrediction]:
        """Explain the class at a place of the network's output; a person waits for it."""
        return self._predict(batch, owner=study_instance_uid, urgent=True, explained=place)

    @property
    def process_id(self) -> int | None:
        """Of the model's process; ``None`` while it has none."""
        return None if self._process is None else self._process.process_id

    def close(self) -> None:
        """End the process; who waits for an answer is to ask again elsewhere."""
        self._closing.set()
        process = self._process
        if process is not None:
            # It may hang, and its batch is waited for.
            process.kill()
        self._batches.close()
        if self._process is not None:
            self._process.close()
            self._process = None

    def _predict(
        self,
        batch: Picture,
        owner: str,
        urgent: bool,  # noqa: FBT001
        explained: int | None = None,
    ) -> Sequence[FramePrediction]:
        try:
            return self._batches.predict(batch, owner, urgent=urgent, explained=explained)
        except Closed:
            raise ModelGone(f"the model {self._name} {self._version} was let go") from None

    def _forward(
        self, batch: Picture, owners: Sequence[str], explained: int | None
    ) -> Sequence[Prediction]:
        """Predict in the process of the model; in the thread of the batches alone."""
        if self._closing.is_set():
            raise Closed
        if self._aside is not None:
            raise ModelSetAside(self._aside)
        try:
            predictions = self._running().predict(batch, explained)
        except (ModelFault, InvalidModelFolder) as error:
            if self._closing.is_set():
                self._process = None
                raise Closed from error
            self._count(error, owners)
            if self._aside is not None:
                raise ModelSetAside(self._aside) from error
            if isinstance(error, ModelFault):
                raise
            raise ModelFault(Fault.DIED, "could not be begun again") from error
        self._faults.clear()
        self._batches_of_process += 1
        self._renew_where_it_has_grown()
        return predictions

    def _running(self) -> ForwardProcess:
        if self._process is None:
            self._batches_of_process = 0
            with self._opened() as folder:
                self._process = self._start(folder.path, self._limits)
        return self._process

    def _count(self, error: ModelFault | InvalidModelFolder, owners: Sequence[str]) -> None:
        fault = error.fault if isinstance(error, ModelFault) else Fault.DIED
        if fault is not Fault.RAISED:
            self._process = None
        FAULTS.labels(self._name, fault).inc()
        _LOG.error(
            "model.fault",
            model=self._name,
            model_version=self._version,
            faults=fault,
            reason=str(error),
            instance_count=len(owners),
        )
        if len(set(owners)) > 1:
            # Whose it was shows when each is tried alone.
            return
        self._faults += owners[:1]
        many = MOST_FAULTS if len(set(self._faults)) > 1 else MOST_FAULTS**2
        if len(self._faults) >= many:
            self._set_aside(f"{len(self._faults)} times in a row it {error}")

    def _renew_where_it_has_grown(self) -> None:
        process = self._process
        if process is None or process.memory_bytes <= self._limits.memory_bytes:
            return
        process.close()
        self._process = None
        FAULTS.labels(self._name, Fault.LEAKS).inc()
        most = f"{self._limits.memory_bytes >> 20} MiB"
        _LOG.error(
            "model.fault",
            model=self._name,
            model_version=self._version,
            faults=Fault.LEAKS,
            reason=f"has grown to more than {most}",
        )
        if self._batches_of_process < SHORT_LIFE:
            self._leaks += 1
        if self._leaks >= MOST_FAULTS:
            self._set_aside(f"{self._leaks} times it has grown to more than {most}")

    def _set_aside(self, how: str) -> None:
        self._aside = (
            f"The model {self._name} {self._version} is set aside on this worker: {how}. "
            "Repair it and add it as a new version, or start the worker again."
        )
        if self._process is not None:
            self._process.close()
            self._process = None
        SET_ASIDE.labels(self._name).set(1)
        _LOG.error(
            "model.set_aside", model=self._name, model_version=self._version, reason=self._aside
        )
