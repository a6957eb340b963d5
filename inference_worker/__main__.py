"""The inference worker: ``python -m inference_worker``.

With ``--register-only`` it enters the models in the database and leaves, without TensorFlow.
"""

import logging
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pydicom
import structlog

from imaging_store.instances import open_instance_store
from inference_worker.handlers import Worker
from inference_worker.model_folder import InvalidModelFolder, find_model_folders
from inference_worker.registration import Registered, register
from inference_worker.results import LoadedModel
from inference_worker.settings import WorkerSettings
from message_contracts.inference import ModelReference
from message_contracts.topology import INFERENCE_ROUTINE, INFERENCE_URGENT
from service_runtime.database import Database
from service_runtime.errors import TransientError
from service_runtime.messaging.consumer import Handling
from service_runtime.process import EXIT_TRY_AGAIN, Service, run_service
from service_runtime.settings import load
from service_runtime.telemetry import log

NAME = "inference_worker"
REGISTER_ONLY = "--register-only"

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
    """Load the models, then read studies until told to stop."""
    settings = service.settings
    registered = _register(settings, service.database)
    models, set_aside = load_models(registered)
    worker = Worker(
        database=service.database,
        store=open_instance_store(settings.store),
        models=models,
        set_aside=set_aside,
        time_zone=ZoneInfo(settings.time_zone),
        now=lambda: datetime.now(UTC),
    )
    handling = Handling(worker.on_inference_requested, on_exhausted=worker.on_exhausted)
    service.ready()
    service.messaging.consume(
        {INFERENCE_URGENT: handling, INFERENCE_ROUTINE: handling},
        service.stop,
        # One at a time: reading is long, and the urgent lane is looked at before each.
        prefetch=1,
        handler_deadline_s=settings.inference_deadline_s,
    )


def load_models(
    registered: Registered,
) -> tuple[dict[ModelReference, LoadedModel], dict[str, str]]:
    """Load and warm every model; return those that are ready, and by name why others are not."""
    set_aside = {each.path.name: each.reason for each in registered.refused}
    models: dict[ModelReference, LoadedModel] = {}
    if not registered.folders:
        return models, set_aside
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # TensorFlow comes with it: seconds and half a gigabyte that a worker without models saves.
    from inference_worker.predictor import Predictor  # noqa: PLC0415

    for folder in registered.folders:
        described = folder.description
        try:
            predictor = Predictor(folder)
        except InvalidModelFolder as error:
            set_aside[described.name] = str(error)
            _LOG.error("model.set_aside", path=folder.path, reason=str(error))
            continue
        reference = ModelReference(name=described.name, version=described.version)
        models[reference] = LoadedModel(described, folder.weights_sha256, predictor.predict)
    return models, set_aside


def _register(settings: WorkerSettings, database: Database) -> Registered:
    folders, refused = find_model_folders(settings.models_dir)
    if not folders and not refused:
        _LOG.warning("models.none", path=settings.models_dir)
    return register(database, folders, refused, datetime.now(UTC))


if __name__ == "__main__":
    main(sys.argv[1:])
