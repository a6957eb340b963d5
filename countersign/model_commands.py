"""``countersign models``: what is installed, what it would read, and how well it reads."""

# ruff: noqa: PLC0415 - --help must answer at once

import json
import os
import re
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from countersign import model_registry_commands, model_report
from countersign.installation import DataOption, NoDatabase, open_database, use
from service_runtime.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from imaging_store.model_registry import RegisteredModel
    from inference_worker.model_folder import ModelFolder, RefusedFolder
    from workflow_engine.routing import Explanation

app = typer.Typer(help="Models: which are installed, and which are asked.", no_args_is_help=True)
model_registry_commands.add_to(app)
model_report.add_to(app)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="NAME or NAME@VERSION.")]
_T = TypeVar("_T")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


class NoSuchModel(PermanentError):
    """There is no usable model of this name."""


class NoSuchStudy(PermanentError):
    """Nothing of a study of this UID has arrived."""


@app.command("list")
def list_models(data: DataOption = None) -> None:
    """Show every model with what it does, and why others are refused; ends with 1 where one is.

    Where there is no installation yet, the model folders that it would find.
    """
    with _registry(data) as connection:
        refused = _list_folders(data) if connection is None else _list_registered(connection)
    for reason in refused:
        typer.echo(f"refused: {reason}", err=True)
    raise typer.Exit(1 if refused else 0)


@app.command()
def show(name: NameArgument, data: DataOption = None) -> None:
    """Show all that a model says of itself."""
    import yaml

    with _registry(data) as connection:
        description = (
            _find(name, data).description.model_dump(mode="json", exclude_none=True)
            if connection is None
            else _find_registered(connection, name).description
        )
    typer.echo(
        yaml.safe_dump(description, sort_keys=False, allow_unicode=True, width=100), nl=False
    )


@app.command()
def match(
    what: Annotated[
        str,
        typer.Argument(metavar="FILE|STUDY_UID", help="A DICOM file, or a study that is stored."),
    ],
    calling_ae_title: Annotated[
        str | None, typer.Option(help="Who would send the file; a stored study has its sender.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Say, for each model, what it would read of this, and for each part of its rule why.

    Ends with 1 where no model would: its study would become NO_MODEL.
    """
    of_study = not Path(what).exists() and _UID.fullmatch(what) is not None
    with _registry(data) as connection:
        if of_study:
            explained = _of_study(connection, what)
        else:
            explained = _of_file(connection, Path(what), calling_ae_title, data)
    from countersign.model_matching import told

    for each in explained:
        for line in told(each, of_study=of_study):
            typer.echo(line)
    matched = any(each.is_asked and not each.shadow for each in explained)
    if not matched:
        typer.echo("no rule fits: NO_MODEL")
    raise typer.Exit(0 if matched else 1)


@app.command("evaluate")
def evaluate_model(
    name: NameArgument,
    data: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Pictures with manifest.csv (file, class, group_id)."),
    ],
) -> None:
    """Measure a model on labeled pictures; prints the figures as JSON."""
    folder = _find(name, None)
    # TensorFlow comes with it, and would tell of CUDA and CPU flags.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from inference_worker.evaluate import evaluate

    typer.echo(json.dumps(evaluate(folder, data), indent=2, ensure_ascii=False))


@contextmanager
def _registry(data: Path | None) -> "Iterator[Connection | None]":
    """Give a connection to the installation's database; ``None`` where there is none yet."""
    with ExitStack() as open_things:
        connection = None
        with suppress(NoDatabase):
            database = open_things.enter_context(open_database(data))
            connection = open_things.enter_context(database.reading())
        yield connection


def _list_registered(connection: "Connection") -> "Sequence[str]":
    from sqlalchemy import select

    from imaging_store.model_registry import ModelState, registered_models
    from imaging_store.schema.results import refused_model

    found = registered_models(connection)
    refused = connection.execute(select(refused_model)).all()
    known_to_fail = {(each.model_name, each.model_version) for each in refused}
    for each in found:
        labels = ", ".join(one["label"] for one in each.description.get("classes", ()))
        typer.echo(f"{_name(each)}  {each.state}  {labels}")
        tried = each.loaded_at or (each.reference.name, each.reference.version) in known_to_fail
        if each.state is not ModelState.INACTIVE and not tried:
            typer.echo("  not loaded yet: the first study that asks for it shows whether it can be")
        last = each.last_decision
        if last is not None:
            typer.echo(f"  {last.decision}, {last.at:%Y-%m-%d %H:%M:%SZ}, {last.by}: {last.why}")
    if not found and not refused:
        typer.echo("no models")
    return [each.reason for each in refused]


def _list_folders(data: Path | None) -> "Sequence[str]":
    good, refused = _folders(data)
    for folder in good:
        description = folder.description
        labels = ", ".join(each.label for each in description.classes)
        typer.echo(f"{description.name}@{description.version}  {labels}  {folder.path}")
    if not good and not refused:
        typer.echo("no model folders")
    return [each.reason for each in refused]


def _of_study(connection: "Connection | None", uid: str) -> "Sequence[Explanation]":
    from workflow_engine.routable import explain_study

    found = None if connection is None else explain_study(connection, uid)
    if found is None:
        raise NoSuchStudy(f"{uid}: no such file, and no such study")
    return found


def _of_file(
    connection: "Connection | None", file: Path, calling_ae_title: str | None, data: Path | None
) -> "Sequence[Explanation]":
    from countersign.model_matching import attributes_of
    from message_contracts.inference import ModelReference
    from workflow_engine import routable
    from workflow_engine.routing import RoutableInstance, RoutableModel, explain

    instance = RoutableInstance("", attributes_of(file, calling_ae_title))
    if connection is not None:
        return explain(routable.models(connection), [instance])
    good, _ = _folders(data)
    models = [
        RoutableModel(
            ModelReference(name=each.description.name, version=each.description.version),
            each.description.applies_to,
        )
        for each in good
    ]
    return explain(models, [instance])


def _folders(data: Path | None) -> tuple[tuple["ModelFolder", ...], tuple["RefusedFolder", ...]]:
    from inference_worker.model_folder import find_model_folders
    from inference_worker.settings import WorkerSettings
    from service_runtime.settings import load

    use(data)
    return find_model_folders(load(WorkerSettings).models_dir)


def _find(name: str, data: Path | None) -> "ModelFolder":
    good, refused = _folders(data)
    found = {f"{each.description.name}@{each.description.version}": each for each in good}
    for each in refused:
        if each.path.name == name:
            raise NoSuchModel(each.reason)
    return _newest(name, found)


def _find_registered(connection: "Connection", name: str) -> "RegisteredModel":
    from imaging_store.model_registry import registered_models

    return _newest(name, {_name(each): each for each in registered_models(connection)})


def _newest(name: str, found: dict[str, _T]) -> _T:
    """Return what is called ``NAME@VERSION``, or the newest of what is called ``NAME``."""
    from imaging_store.model_registry import version_key

    wanted, _, version = name.partition("@")
    fitting = [
        each for each in found if each.split("@")[0] == wanted and each.endswith(f"@{version}")
    ] or [each for each in found if each.split("@")[0] == wanted and not version]
    if not fitting:
        raise NoSuchModel(f"there is no model {name}; there are: {', '.join(found) or 'none'}")
    return found[max(fitting, key=lambda each: version_key(each.split("@")[1]))]


def _name(registered: "RegisteredModel") -> str:
    return f"{registered.reference.name}@{registered.reference.version}"
