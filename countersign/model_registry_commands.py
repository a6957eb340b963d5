"""``countersign models add``, ``activate``, ``shadow``, ``retire`` and ``roll-back``."""

# ruff: noqa: PLC0415 - --help must answer at once

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from countersign.installation import DataOption, open_database
from countersign.why import said
from service_runtime.errors import PermanentError

if TYPE_CHECKING:
    from admin_api.model_decisions import Deciding
    from inference_worker.model_folder import ModelFolder
    from message_contracts.inference import ModelReference
    from service_runtime.database import Database

VersionArgument = Annotated[str, typer.Argument(metavar="NAME@VERSION")]
WhyOption = Annotated[str, typer.Option(help="Kept with the decision.", callback=said)]


class NotAVersion(PermanentError):
    """The argument is not NAME@VERSION."""


class NotTaken(PermanentError):
    """The folder cannot be registered; the reason names the field at fault."""


def add_to(app: typer.Typer) -> None:
    """Give the commands to ``countersign models``."""
    for name, command in (
        ("add", add),
        ("activate", activate),
        ("shadow", shadow),
        ("retire", retire),
        ("roll-back", roll_back),
    ):
        app.command(name)(command)


def add(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A model folder: model.yaml and weights.")
    ],
    data: DataOption = None,
) -> None:
    """Check a model folder, load its network once, and register it; workers take it up at once.

    Of a name that is new, it is asked from the next study on. Of a name that is known it waits
    for ``countersign models activate``. The folder may be removed afterwards: what is needed of
    it is kept in the instance store.
    """
    from imaging_store.model_registry import ModelState, registered_models
    from inference_worker.model_folder import load_model_folder
    from message_contracts.inference import ModelReference

    checked = load_model_folder(folder.expanduser().absolute())
    reference = ModelReference(name=checked.description.name, version=checked.description.version)
    with open_database(data) as database:
        _load_once(checked)
        _register(database, checked, reference)
        with database.reading() as connection:
            [state] = [
                each.state for each in registered_models(connection) if each.reference == reference
            ]
    name = f"{reference.name}@{reference.version}"
    if state is ModelState.INACTIVE:
        typer.echo(f"{name} is registered, and is not asked yet:")
        typer.echo(f"  countersign models shadow {name}    to compare it first")
        typer.echo(f"  countersign models activate {name}  to have it asked")
    else:
        typer.echo(f"{name} is registered: {state}")


def activate(version: VersionArgument, why: WhyOption, data: DataOption = None) -> None:
    """Have a version asked from the next study on, in the place of the one that is."""
    from admin_api import model_decisions

    _decide(version, why, data, model_decisions.activate)
    typer.echo(f"{version} is active")


def shadow(version: VersionArgument, why: WhyOption, data: DataOption = None) -> None:
    """Have a version read what it would be asked about, for comparison alone."""
    from admin_api import model_decisions

    _decide(version, why, data, model_decisions.put_in_shadow)
    typer.echo(f"{version} reads in shadow")


def retire(version: VersionArgument, why: WhyOption, data: DataOption = None) -> None:
    """Have a version neither asked nor read in shadow any more."""
    from admin_api import model_decisions

    _decide(version, why, data, model_decisions.retire)
    typer.echo(f"{version} is retired")


def roll_back(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    why: WhyOption,
    data: DataOption = None,
) -> None:
    """Have the version asked that was before; done again, it goes one further back."""
    from admin_api import model_decisions

    with open_database(data) as database:
        reference = model_decisions.roll_back(database, name, _deciding(why))
    typer.echo(f"{reference.name}@{reference.version} is active")


def _load_once(folder: "ModelFolder") -> None:
    """See that the network can be loaded and fits its description, before a worker has to."""
    # TensorFlow comes with it, and would tell of CUDA and CPU flags.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from inference_worker.predictor import Predictor

    Predictor(folder)


def _register(database: "Database", folder: "ModelFolder", reference: "ModelReference") -> None:
    from admin_api import model_decisions
    from imaging_store.instances import open_instance_store
    from inference_worker.loading import keep_files
    from inference_worker.registration import note_loading, register
    from inference_worker.settings import WorkerSettings
    from service_runtime.settings import load

    keep_files(open_instance_store(load(WorkerSettings).store), folder)
    deciding = _deciding("")
    registered = register(database, [folder], [], deciding.at)
    for each in registered.refused:
        raise NotTaken(each.reason)
    note_loading(database, reference, None, folder.path.name, deciding.at)
    model_decisions.note_addition(database, reference, deciding)


def _decide(
    version: str,
    why: str,
    data: Path | None,
    act: "Callable[[Database, ModelReference, Deciding], None]",
) -> None:
    from message_contracts.inference import ModelReference

    name, at, number = version.partition("@")
    if not at:
        raise NotAVersion(f"NAME@VERSION is needed, such as {name}@1.0.0")
    with open_database(data) as database:
        act(database, ModelReference(name=name, version=number), _deciding(why))


def _deciding(why: str) -> "Deciding":
    from datetime import UTC, datetime

    from admin_api.model_decisions import Deciding
    from countersign.shell_user import shell_user

    return Deciding(shell_user().printed_name, why, datetime.now(UTC))
