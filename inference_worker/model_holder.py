"""The models that a worker holds, kept in step with the registry while it runs."""

import threading
import time
from collections.abc import Callable, Iterable
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

_LOG = structlog.get_logger()


class ModelUnavailable(PermanentError):
    """The model that was asked for is not here, or was set aside; says why."""


class StillLoading(Postponed):
    """The model is being loaded, for so many seconds by now; meanwhile others read."""

    def __init__(self, for_s: float = 0.0) -> None:
        # Where it takes long, many may wait: each is heard of less often.
        super().__init__("the model is being loaded", max(LOOK_S, for_s / 4))


@dataclass
class Models:
    """Holds the models that messages ask for, and what takes their place while it runs.

    A model is loaded when it is first asked for, since a network in memory is dear and a worker may
    never be asked for most of what is installed. From then on the versions of its name that are
    active or in shadow are held: one that a person decides for is loaded before the other is let
    go of. Each is loaded in a thread of its own, so that one that hangs keeps no other waiting.
    """

    database: Database
    load: Callable[[RegisteredModel], LoadedModel]
    """Raises `PermanentError` where the model cannot be used."""
    told: Callable[[RegisteredModel, str | None], None]
    """Is told of every loading: why it failed, or that it did not."""
    _loaded: dict[ModelReference, LoadedModel] = field(default_factory=dict)
    _loading: dict[ModelReference, float] = field(default_factory=dict)
    """Since when (monotonic)."""
    _unusable: dict[ModelReference, str] = field(default_factory=dict)
    _asked_for: set[ModelReference] = field(default_factory=set)
    """By messages since the registry was looked at last."""
    _on_demand: set[ModelReference] = field(default_factory=set)
    """Held for messages alone, whatever their state is, until the registry changes."""
    _names: set[str] = field(default_factory=set)
    """Of all models that were ever asked for."""
    _seen: Any = None
    _due: bool = False
    """A loading has ended since the registry was looked at last."""
    _closed: bool = False
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
            if (began := self._loading.get(reference)) is not None:
                raise StillLoading(time.monotonic() - began)
            unusable = self._unusable.get(reference)
            if unusable is None:
                self._asked_for.add(reference)
                self._wake.set()
                raise StillLoading
        raise ModelUnavailable(f"The model {reference.name} {reference.version} {unusable}")

    def follow(self, stop: threading.Event) -> None:
        """Load and let go as messages ask and the registry changes, until told to stop."""
        watch = self.database.watch()
        due = True
        try:
            while not stop.is_set():
                try:
                    due = watch.changed() or self._due or self._wake.is_set() or due
                    if due:
                        self._wake.clear()
                        self.refresh()
                    due = False
                except TransientError as error:
                    _LOG.warning("models.not_looked_at", error=log.describe(error))
                except Exception as error:  # noqa: BLE001
                    # Without this thread studies would wait for their models for ever.
                    _LOG.exception("models.not_looked_at", exc_info=error)
                self._wake.wait(LOOK_S)
        finally:
            watch.close()

    def refresh(self) -> None:
        """Begin to load what is wanted and not here.

        Where all that is wanted is here, let go of what is not wanted.

        Raises
        ------
        TransientError
            The database is away: what is here stays.
        """
        with self.database.reading() as connection:
            seen = _state_of_registry(connection)
            with self._lock:
                if seen == self._seen and not self._asked_for and not self._due:
                    return
            registered = registered_models(connection)
        with self._lock:
            if seen != self._seen:
                # What was repaired or decided meanwhile is tried anew.
                self._unusable.clear()
                self._on_demand.clear()
            self._seen, self._due = seen, False
            missing, gone = self._take_in(registered)
        for each in missing:
            self._begin_to_load(each, seen)
        _let_go(gone)

    def _begin_to_load(self, registered: RegisteredModel, seen: Any) -> None:
        # A daemon: a network that hangs while it is loaded keeps no worker from leaving.
        thread = threading.Thread(
            target=self._load,
            args=(registered, seen),
            name=f"loads {registered.reference.name}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            _LOG.warning(
                "model.not_loaded", error=log.describe(error), model=registered.reference.name
            )
            with self._lock:
                self._loading.pop(registered.reference, None)
                self._due = True

    def close(self) -> None:
        """Let go of every model."""
        with self._lock:
            self._closed = True
            gone = list(self._loaded.values())
            self._loaded.clear()
        _let_go(gone)

    def _take_in(
        self, registered: Iterable[RegisteredModel]
    ) -> tuple[list[RegisteredModel], list[LoadedModel]]:
        """Return what is to be loaded, and what to be let go of. The lock is held."""
        asked_for, self._asked_for = self._asked_for, set()
        self._on_demand |= asked_for
        self._names |= {each.name for each in asked_for}
        wanted = {each.reference: each for each in registered if self._is_wanted(each)}
        for reference in asked_for - wanted.keys():
            self._unusable.setdefault(reference, "is not installed on this worker.")
        here = self._loaded.keys() | self._unusable.keys()
        missing = [wanted[each] for each in wanted.keys() - here - self._loading.keys()]
        self._loading |= {each.reference: time.monotonic() for each in missing}
        if wanted.keys() - here:
            return missing, []
        return missing, [self._loaded.pop(each) for each in self._loaded.keys() - wanted.keys()]

    def _is_wanted(self, registered: RegisteredModel) -> bool:
        reference = registered.reference
        if registered.state is ModelState.INACTIVE:
            return reference in self._on_demand
        return reference.name in self._names

    def _load(self, registered: RegisteredModel, seen: Any) -> None:
        """Load a model that was wanted when the registry was in the state ``seen``."""
        reference = registered.reference
        keys = {
            "model": reference.name,
            "model_version": reference.version,
            "weights_sha256": registered.weights_sha256,
        }
        reason: str | None = None
        loaded: LoadedModel | None = None
        try:
            loaded = self.load(registered)
        except TransientError as error:
            _LOG.warning("model.not_loaded", error=log.describe(error), **keys)
            with self._lock:
                self._loading.pop(reference, None)
                # Not at once: what is away may be so for a while.
                self._due = True
            return
        except Exception as error:  # noqa: BLE001
            # A network may raise whatever it comes upon; the other models serve on.
            reason = log.describe(error)
            _LOG.error("model.set_aside", reason=reason, **keys)
        with self._lock:
            self._loading.pop(reference, None)
            self._due = True
            came_late = self._closed
            if loaded is None:
                # Else it may have been repaired after this loading began, and is tried anew.
                if seen == self._seen:
                    self._unusable[reference] = f"cannot be used: {reason}"
            elif not came_late:
                self._loaded[reference] = loaded
        self._wake.set()
        if loaded is not None and came_late:
            loaded.close()
            return
        if loaded is not None:
            _LOG.info("model.loaded", **keys)
        try:
            self.told(registered, reason)
        except TransientError as error:
            _LOG.warning("model.loading_not_noted", error=log.describe(error), **keys)


def _let_go(models: Iterable[LoadedModel]) -> None:
    for each in models:
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
