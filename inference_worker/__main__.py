"""The inference worker: ``python -m inference_worker``.

With ``--register-only`` it enters the models in the database and leaves, without TensorFlow.
"""

import sys
import threading
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pydicom
import structlog

from imaging_store.instances import InstanceStore, open_instance_store
from imaging_store.model_registry import RegisteredModel
from inference_worker.explanations import Explainer
from inference_worker.forward_process import Limits
from inference_worker.handlers import Worker
from inference_worker.loading import ModelSource, keep_files
from inference_worker.model_folder import RefusedFolder, find_model_folders
from inference_worker.model_holder import Models
from inference_worker.registration import (
    Registered,
    log_registered,
    note_loading,
    register,
    replace_missing,
)
from inference_worker.settings import WorkerSettings
from message_contracts.envelope import Envelope
from message_contracts.inference import ExplanationRequested, ModelReference
from message_contracts.topology import INFERENCE_ROUTINE, INFERENCE_URGENT
from service_runtime.database import Database
from service_runtime.errors import TransientError
from service_runtime.messaging.at_once import AtOnce
from service_runtime.messaging.consumer import Effect, Handling
from service_runtime.process import EXIT_TRY_AGAIN, Service, run_service
from service_runtime.settings import load
from service_runtime.telemetry import log

NAME = "inference_worker"
REGISTER_ONLY = "--register-only"
LOOK_S = 0.05
"""How often to look for new requests: little beside the second that a reading takes."""

_LOG = structlog.get_logger()


def main(arguments: list[str]) -> None:
    """Run until told to stop, or register and leave."""
    if arguments not in ([], [REGISTER_ONLY]):
        sys.stderr.write(f"usage: python -m {NAME} [{REGISTER_ONLY}]\n")
        raise SystemExit(2)
    if arguments:
        register_only(load(WorkerSettings))
        return
    # A misspelled keyword would be an attribute of Python's and none of the object's.
    pydicom.config.INVALID_KEYWORD_BEHAVIOR = "RAISE"
    run_service(NAME, WorkerSettings, serve)


def register_only(settings: WorkerSettings) -> None:
    """Enter the models in the database, so that what arrives next finds them.

    Raises
    ------
    SystemExit
        With 75 while the database is away.
    """
    log.configure(NAME, settings.log_level)
    database = Database(settings.database, via_relay=settings.via_broker)
    try:
        _register(settings, database)
    except TransientError as error:
        _LOG.exception("registration.failed", exc_info=error, exit_code=EXIT_TRY_AGAIN)
        raise SystemExit(EXIT_TRY_AGAIN) from None
    finally:
        database.close()


def serve(service: Service[WorkerSettings]) -> None:
    """Read studies until told to stop."""
    settings = service.settings
    store = open_instance_store(settings.store)
    models = hold_models(settings, service.database, store)
    worker = Worker(
        database=service.database,
        store=store,
        models=models,
        time_zone=ZoneInfo(settings.time_zone),
        now=lambda: datetime.now(UTC),
    )
    threading.Thread(target=models.follow, args=(service.stop,), name="models", daemon=True).start()
    explainer = Explainer(worker.database, store, models, worker.time_zone, worker.now)
    routine = Handling(worker.on_inference_requested, on_exhausted=worker.on_exhausted)
    urgent = urgent_handling(worker, explainer)
    service.ready()
    try:
        service.messaging.consume(
            {INFERENCE_URGENT: urgent, INFERENCE_ROUTINE: routine},
            service.stop,
            # One more for urgent studies: none waits for a long routine one to end.
            at_once=AtOnce(settings.studies_at_once + 1, of_later_queues=settings.studies_at_once),
            handler_deadline_s=settings.inference_deadline_s,
            look_s=LOOK_S,
        )
    finally:
        models.close()


def urgent_handling(worker: Worker, explainer: Explainer) -> Handling:
    """Return the handling of the queue that readings and explanations share."""

    def handle(envelope: Envelope) -> Effect:
        if isinstance(envelope.body, ExplanationRequested):
            return explainer.on_explanation_requested(envelope)
        return worker.on_inference_requested(envelope)

    def on_exhausted(envelope: Envelope, reason: str) -> Effect:
        if isinstance(envelope.body, ExplanationRequested):
            return explainer.on_exhausted(envelope, reason)
        return worker.on_exhausted(envelope, reason)

    return Handling(handle, on_exhausted=on_exhausted)


def hold_models(settings: WorkerSettings, database: Database, store: InstanceStore) -> Models:
    """Check and register the model folders; a network is loaded when it is first asked for."""
    registered = _register(settings, database)
    source = ModelSource(
        store,
        {
            _reference(each.description.name, each.description.version): each
            for each in registered.folders
        },
        {_reference(*each.model): each.reason for each in registered.refused if each.model},
        Limits(settings.forward_deadline_s, settings.model_memory_mib << 20),
    )
    for folder in registered.folders:
        try:
            keep_files(store, folder)
        except TransientError as error:
            # It reads all the same; it cannot be rolled back to once its folder is gone.
            _LOG.warning("model.not_kept", path=folder.path, error=log.describe(error))
    replace_missing(database, registered.folders, source.is_kept, datetime.now(UTC))

    def told(model: RegisteredModel, reason: str | None) -> None:
        name = source.folder_name(model)
        refused = None
        if reason is not None:
            reference = model.reference
            refused = RefusedFolder(
                settings.models_dir / name, reason, (reference.name, reference.version)
            )
        note_loading(database, model.reference, refused, name, datetime.now(UTC))

    return Models(database, source.load, told)


def _reference(name: str, version: str) -> ModelReference:
    return ModelReference(name=name, version=version)


def _register(settings: WorkerSettings, database: Database) -> Registered:
    folders, refused = find_model_folders(settings.models_dir)
    if not folders and not refused:
        _LOG.warning("models.none", path=settings.models_dir)
    registered = register(database, folders, refused, datetime.now(UTC))
    log_registered(registered)
    return registered


if __name__ == "__main__":
    main(sys.argv[1:])
