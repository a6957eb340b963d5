"""The models that a worker holds, kept in step with the registry while it runs."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import func, select

from imaging_store.model_registry import ModelState, RegisteredModel, registered_models
from imaging_store.schema.administration import model_decision
from imaging_store.schema.results import model
from inference_worker.results import LoadedModel
from message_contracts.inference import ModelReference
from service_runtime.database import Database
from service_runtime.errors import PermanentError, Postponed, TransientError
from service_runtime.telemetry import log

LOOK_S = 1.0
"""How often the registry is looked at."""
_ORDER = (ModelState.ACTIVE, ModelState.SHADOW, ModelState.INACTIVE)

_LOG = structlog.get_logger()


class ModelUnavailable(PermanentError):
    """The model that was asked for is not here, or was set aside; says why."""


class StillLoading(Postponed):
    """The model is being loaded; meanwhile others read."""

    def __init__(self) -> None:
        super().__init__("the model is being loaded", LOOK_S)


@dataclass
class Models:
    """Holds what is active or in shadow, and for a while what messages still ask for.

    One thread loads, whoever reads goes on meanwhile; a model that is not wanted any more is let
    go of only when those that are wanted have been loaded.
    """

    database: Database
    load: Callable[[RegisteredModel], LoadedModel]
    """Raises `PermanentError` where the model cannot be used."""
    told: Callable[[RegisteredModel, str | None], None]
    """Is told of every loading: why it failed, or that it did not."""
    _loaded: dict[ModelReference, LoadedModel] = field(default_factory=dict)
    _unusable: dict[ModelReference, str] = field(default_factory=dict)
    _asked_for: set[ModelReference] = field(default_factory=set)
    _on_demand: set[ModelReference] = field(default_factory=set)
    """Loaded for messages alone; kept until the registry changes."""
    _seen: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Event = field(default_factory=threading.Event)

    def of(self, reference: ModelReference) -> LoadedModel:
        """Return a model that is ready to read. May be called from any thread.

        Raises
        ------
        StillLoading
            Ask again in a moment.
        ModelUnavailable
            It cannot be used, or was never installed.
        """
        with self._lock:
            found = self._loaded.get(reference)
            if found is not None:
                return found
            unusable = self._unusable.get(reference)
            if unusable is None:
                self._asked_for.add(reference)
                self._wake.set()
                raise StillLoading
        raise ModelUnavailable(f"The model {reference.name} {reference.version} {unusable}")

    def follow(self, stop: threading.Event) -> None:
        """Load and let go as the registry changes, until told to stop."""
        watch = self.database.watch()
        due = True
        try:
            while not stop.is_set():
                try:
                    due = watch.changed() or self._wake.is_set() or due
                    if due:
                        self._wake.clear()
                        self.refresh()
                    due = False
                except TransientError as error:
                    _LOG.warning("models.not_looked_at", error=log.describe(error))
                self._wake.wait(LOOK_S)
        finally:
            watch.close()

    def refresh(self) -> None:
        """Load what is wanted and not here, then let go of what is here and not wanted.

        Raises
        ------
        TransientError
            The database or the store is away: what is here stays.
        """
        with self.database.reading() as connection:
            seen = _state_of_registry(connection)
            with self._lock:
                if seen == self._seen and not self._asked_for:
                    return
                if seen != self._seen:
                    # What was repaired or decided meanwhile is tried anew.
                    self._unusable.clear()
                    self._on_demand.clear()
            registered = registered_models(connection)
        with self._lock:
            asked_for = set(self._asked_for)
            self._on_demand |= asked_for
        wanted = [
            each
            for each in sorted(registered, key=lambda each: _ORDER.index(each.state))
            if each.state is not ModelState.INACTIVE or each.reference in self._on_demand
        ]
        # What a message waits for comes first.
        for each in sorted(wanted, key=lambda each: each.reference not in asked_for):
            self._load(each)
        self._let_go({each.reference for each in wanted}, asked_for)
        self._seen = seen

    def close(self) -> None:
        """Let go of every model."""
        self._let_go(set(), set())

    def _load(self, registered: RegisteredModel) -> None:
        reference = registered.reference
        with self._lock:
            if reference in self._loaded or reference in self._unusable:
                return
        keys = {
            "model": reference.name,
            "model_version": reference.version,
            "weights_sha256": registered.weights_sha256,
        }
        reason: str | None = None
        loaded: LoadedModel | None = None
        try:
            loaded = self.load(registered)
        except TransientError:
            raise
        except Exception as error:  # noqa: BLE001
            # A network may raise whatever it comes upon; the other models serve on.
            reason = log.describe(error)
            _LOG.error("model.set_aside", reason=reason, **keys)
        with self._lock:
            if loaded is not None:
                self._loaded[reference] = loaded
            else:
                self._unusable[reference] = f"cannot be used: {reason}"
        if loaded is not None:
            _LOG.info("model.loaded", **keys)
        self.told(registered, reason)

    def _let_go(self, wanted: set[ModelReference], asked_for: set[ModelReference]) -> None:
        with self._lock:
            for reference in asked_for - wanted:
                self._unusable.setdefault(reference, "is not installed on this worker.")
            self._asked_for -= asked_for
            gone = [self._loaded.pop(each) for each in self._loaded.keys() - wanted]
        for each in gone:
            _LOG.info(
                "model.let_go", model=each.description.name, model_version=each.description.version
            )
            each.close()


def _state_of_registry(connection: Any) -> Any:
    """Return what is other after every change that matters here."""
    rows = connection.execute(
        select(model.c.name, model.c.version, model.c.weights_sha256, model.c.retired_at)
    ).all()
    last = connection.execute(select(func.max(model_decision.c.sequence))).scalar()
    return frozenset(tuple(row) for row in rows), last
