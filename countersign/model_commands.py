"""``countersign models``: what is installed, what it would read, and how well it reads."""

# ruff: noqa: PLC0415 - --help must answer at once

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from countersign.installation import DataOption, use
from service_runtime.errors import PermanentError

if TYPE_CHECKING:
    from inference_worker.model_folder import ModelFolder, RefusedFolder
    from message_contracts.applicability import InstanceAttributes

app = typer.Typer(help="Model folders.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="NAME or NAME@VERSION.")]


class NoSuchModel(PermanentError):
    """There is no usable folder of this name."""


class NotAnInstance(PermanentError):
    """The file cannot be read as DICOM."""


@app.command("list")
def list_models(data: DataOption = None) -> None:
    """Show every model folder, and why a folder is refused; ends with 1 where one is."""
    good, refused = _folders(data)
    for folder in good:
        description = folder.description
        labels = ", ".join(each.label for each in description.classes)
        typer.echo(f"{description.name}@{description.version}  {labels}  {folder.path}")
    for each in refused:
        typer.echo(f"refused: {each.reason}", err=True)
    if not good and not refused:
        typer.echo("no model folders")
    raise typer.Exit(1 if refused else 0)


@app.command()
def show(name: NameArgument, data: DataOption = None) -> None:
    """Show all that a model says of itself."""
    import yaml

    description = _find(name, data).description.model_dump(mode="json", exclude_none=True)
    typer.echo(
        yaml.safe_dump(description, sort_keys=False, allow_unicode=True, width=100), nl=False
    )


@app.command()
def match(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A DICOM file.")],
    data: DataOption = None,
) -> None:
    """Say, for each model, whether it would read this instance, and if not, why not.

    Ends with 1 where no model would: its study would become NO_MODEL.
    """
    attributes = _attributes_of(file)
    good, _ = _folders(data)
    matched = False
    for folder in good:
        description = folder.description
        reasons = description.applies_to.mismatches(attributes)
        typer.echo(f"{description.name}@{description.version}: {'no' if reasons else 'reads it'}")
        for reason in reasons:
            typer.echo(f"  {reason}")
        matched = matched or not reasons
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


def _folders(data: Path | None) -> tuple[tuple["ModelFolder", ...], tuple["RefusedFolder", ...]]:
    from inference_worker.model_folder import find_model_folders
    from inference_worker.settings import WorkerSettings
    from service_runtime.settings import load

    use(data)
    return find_model_folders(load(WorkerSettings).models_dir)


def _find(name: str, data: Path | None) -> "ModelFolder":
    good, refused = _folders(data)
    wanted, _, version = name.partition("@")
    found = [
        folder
        for folder in good
        if folder.description.name == wanted and version in ("", folder.description.version)
    ]
    if not found:
        for each in refused:
            if each.path.name == wanted:
                raise NoSuchModel(each.reason)
        names = ", ".join(f"{f.description.name}@{f.description.version}" for f in good) or "none"
        raise NoSuchModel(f"there is no model {name}; there are: {names}")
    return max(found, key=lambda folder: _numbers(folder.description.version))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _attributes_of(file: Path) -> "InstanceAttributes":
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    from message_contracts.model_description import InstanceAttributes

    asked = ["Modality", "BodyPartExamined", "SOPClassUID", "ViewPosition", "ImageType"]
    try:
        read = dcmread(file, stop_before_pixels=True, specific_tags=asked)
    except (OSError, InvalidDicomError) as error:
        why = getattr(error, "strerror", None) or "not a DICOM file"
        raise NotAnInstance(f"{file}: {why}") from error
    image_type = read.get("ImageType") or ()
    return InstanceAttributes(
        modality=str(read.get("Modality") or "") or None,
        body_part_examined=str(read.get("BodyPartExamined") or "") or None,
        sop_class_uid=str(read.get("SOPClassUID") or "") or None,
        view_position=str(read.get("ViewPosition") or "") or None,
        image_type=(image_type,) if isinstance(image_type, str) else tuple(image_type),
    )
