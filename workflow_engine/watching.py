"""Figures of every model as metrics, renewed from what is stored: often, where that is quick.

Several processes of an installation say the same: take the greatest of a series, not the sum.
"""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import structlog
from prometheus_client import Gauge
from typing_extensions import override

from imaging_store.model_registry import RegisteredModel, registered_models
from message_contracts.inference import ModelReference
from service_runtime.background import Background
from service_runtime.database import Database
from service_runtime.errors import TransientError
from service_runtime.telemetry import log
from workflow_engine.model_monitoring import ModelReport, report
from workflow_engine.watched_time import WINDOW

EVERY_S = 300.0
_MOST_OF_THE_TIME = 0.01
"""Counting takes no more of it: a busy year's answers are not read through every few minutes."""

_MODEL = ("model", "version")


def _gauge(name: str, says: str, *labels: str) -> Gauge:
    return Gauge(
        f"countersign_model_{name}", says, [*_MODEL, *labels], multiprocess_mode="mostrecent"
    )


RESULTS = _gauge("results", "Answers of the last 30 days.", "outcome")
FINDINGS = _gauge("findings", "Readings of the last 30 days.", "label")
CONFIDENCE = _gauge(
    "confidence", "Readings by the probability of the most probable class, cumulative.", "at_most"
)
SIGNED = _gauge("signed", "What doctors made of findings of the last 30 days.", "label", "verdict")
DRIFT = _gauge("input_psi", "Population stability index of inputs, of the last 30 days.")
DRIFT_BY_CHANCE = _gauge(
    "input_psi_by_chance", "95th percentile of what it would be without any drift."
)
RENEWED = _gauge("renewed_timestamp_seconds", "When its figures were last counted.")

Sample = tuple[Gauge, tuple[str, ...], float]

_LOG = structlog.get_logger()


class Watching(Background):
    """Renews the metrics until it is told to stop."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("model monitoring", wait_s=1.0)
        self._database = database
        self._now = now
        self._monotonic_s = monotonic_s
        self._told: dict[ModelReference, set[tuple[Gauge, tuple[str, ...]]]] = {}

    @override
    def work(self, stopping: threading.Event) -> None:
        """Renew at once, and every few minutes; less often where renewing takes long."""
        while not stopping.is_set():
            begun_s = self._monotonic_s()
            try:
                self.renew()
            except TransientError as error:
                _LOG.warning("models.not_looked_at", error=log.describe(error))
            except Exception as error:  # noqa: BLE001
                # Figures that stand still look like those of a model that is well.
                _LOG.exception("models.not_looked_at", exc_info=error)
            took_s = self._monotonic_s() - begun_s
            stopping.wait(max(EVERY_S, took_s / _MOST_OF_THE_TIME))

    def renew(self) -> None:
        """Set every metric to what is stored now; of what is stored no more, to 0.

        A model that cannot be counted keeps its figures, and the time at which they were renewed.

        Raises
        ------
        TransientError
            The database is away: the metrics stay.
        """
        until = self._now()
        with self._database.reading() as connection:
            models = registered_models(connection)
        for each in models:
            try:
                self._renew(each, until)
            except TransientError:
                raise
            except Exception as error:  # noqa: BLE001
                # One that cannot be counted must not take the others' figures with it.
                model, version = each.reference.name, each.reference.version
                _LOG.exception(
                    "model.not_looked_at", model=model, model_version=version, exc_info=error
                )

    def _renew(self, registered: RegisteredModel, until: datetime) -> None:
        with self._database.reading() as connection:
            of = report(connection, registered, until - WINDOW, until)
        found = {(gauge, labels): value for gauge, labels, value in samples(of)}
        told = self._told.setdefault(registered.reference, set())
        if of.answered:
            told.update(found)
        for gauge, labels in told:
            gauge.labels(*labels).set(found.get((gauge, labels), 0))
        RENEWED.labels(of.model, of.version).set(until.timestamp())


def samples(of: ModelReport) -> Iterator[Sample]:
    """Return a report as values of metrics: labels are the model's, and bounded."""
    model = (of.model, of.version)
    outcomes = {"finding": of.read - of.uncertain, "uncertain": of.uncertain}
    outcomes |= {"refused": of.refused, "failed": of.failed}
    for outcome, count in outcomes.items():
        yield RESULTS, (*model, outcome), count
    for label, count in of.findings.items():
        yield FINDINGS, (*model, label), count
    parts = len(of.confidence)
    for place in range(parts):
        at_most = f"{(place + 1) / parts:g}"
        yield CONFIDENCE, (*model, at_most), sum(of.confidence[: place + 1])
    for each in of.by_class:
        yield SIGNED, (*model, each.label, "accepted"), each.accepted
        yield SIGNED, (*model, each.label, "overridden"), each.overridden
        yield SIGNED, (*model, each.label, "uninterpretable"), each.uninterpretable
    if of.drift is not None:
        yield DRIFT, model, of.drift.psi
        yield DRIFT_BY_CHANCE, model, of.drift.psi_by_chance
